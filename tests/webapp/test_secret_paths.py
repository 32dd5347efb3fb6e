"""Codes and tokens in addresses reach no log, no metric, no trace and no Referer; new routes are covered."""

import json
import logging
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from werkzeug.routing import Rule

from bus.operations import telemetry
from tests.webapp.sample_data import SampleData
from tests.webapp.web_client import Browser, WebApp
from webapp.headers import SECRET_ROUTE_ARGUMENTS

_SECRET = "s3cr3t" * 6
# Variables of routes that everyone may read.
_PUBLIC_ARGUMENTS = {"ending", "filename", "name", "path", "slug", "version"}


def _secret_rules(site: WebApp) -> Iterator[tuple[Rule, str]]:
    for rule in site.app.url_map.iter_rules():
        if rule.arguments & SECRET_ROUTE_ARGUMENTS:
            for method in sorted((rule.methods or set()) - {"HEAD", "OPTIONS"}):
                yield rule, method


def test_every_variable_of_a_route_is_an_id_or_known_to_be_a_secret_or_not(site: WebApp) -> None:
    for rule in site.app.url_map.iter_rules():
        ids = {name for name in rule.arguments if name.endswith("_id") or name in ("fence", "seq")}
        assert rule.arguments - ids - _PUBLIC_ARGUMENTS <= SECRET_ROUTE_ARGUMENTS, rule


@pytest.mark.parametrize("name", ["nginx.conf", "Caddyfile"])
def test_the_log_of_a_proxy_leaves_out_every_secret(site: WebApp, name: str) -> None:
    text = (Path(__file__).resolve().parents[2] / "deploy" / name).read_text()
    (pattern,) = re.findall(r"\^/\([^)]+\)/", text)
    for rule, _ in _secret_rules(site):
        with site.app.test_request_context():
            built = rule.build(dict.fromkeys(rule.arguments, _SECRET))
        assert built is not None
        assert _SECRET not in re.sub(f"{pattern}.*", r"/\1/-", built[1]), rule


@pytest.mark.parametrize("fails", [False, True], ids=["as it is", "when the view fails"])
def test_a_secret_in_a_path_leaves_no_trace(
    site: WebApp,
    ada: Browser,
    sample: SampleData,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    fails: bool,
) -> None:
    spans: list[object] = []
    monkeypatch.setattr(telemetry, "record_span", lambda *args, **fields: spans.append((args, fields)))
    token, seen = ada.get_csrf_token(), 0
    with caplog.at_level(logging.DEBUG):
        for rule, method in _secret_rules(site):
            if fails:
                monkeypatch.setitem(site.app.view_functions, rule.endpoint, _fail)
            with site.app.test_request_context():
                built = rule.build(dict.fromkeys(rule.arguments, _SECRET))
            assert built is not None
            answer = ada._open(method, built[1], data={"csrf_token": token}, headers={"Referer": f"/x/{_SECRET}"})
            assert answer.headers["Referrer-Policy"] == "no-referrer", rule
            assert answer.status_code == 500 if fails else answer.status_code < 500, rule
            seen += 1
    assert seen >= 8
    formatter = logging.Formatter()
    logged = [
        (formatter.format(record), json.dumps(getattr(record, "fields", None), default=str))
        for record in caplog.records
    ]
    assert logged
    assert _SECRET not in str(logged)
    assert _SECRET not in site.app.extensions["bus.metrics"].render().decode()
    assert spans
    assert _SECRET not in str(spans)


def _fail(**_: object) -> str:
    raise RuntimeError("a defect")
