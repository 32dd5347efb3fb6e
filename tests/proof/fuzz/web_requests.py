"""Generated requests to every route of the web: methods, addresses, query strings, forms and headers."""

import contextlib
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from urllib.parse import quote_from_bytes, urlencode

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from werkzeug.routing import Rule
from werkzeug.test import TestResponse

from bus.db import Connection, Database
from tests.proof.fuzz.changes import take_changes
from tests.proof.fuzz.judgement import Tally, Violation, check_status, check_text
from tests.proof.fuzz.values import HOSTILE_TEXTS
from tests.webapp.page_catalog import FEATURE_ENV, SampleSite, create_sample_site
from tests.webapp.web_client import BASE_URL, Browser, FormParser, WebApp

_REQUESTS_PER_BLOCK = 500
_METHODS = ("GET", "GET", "POST", "POST", "HEAD", "OPTIONS", "PUT", "PATCH", "DELETE", "TRACE", "PROPFIND", "get")
# Routes that end the session of the generated requests, or that open a stream.
_SKIPPED_ENDPOINTS = frozenset(
    {
        "account.end_all_sessions",
        "account.end_session",
        "account.unlink",
        "operator_owners.sign_out",
        "sign_in.sign_out",
    }
    | {"operator_owners.suspend", "board.stream"}
)
_QUERY_NAMES = (
    *("actor", "after", "before", "cursor", "day", "days", "from", "kind", "lane", "limit", "next", "number", "owner"),
    *("project", "q", "ref", "sequence", "since", "state", "status", "tag", "to", "type", "until", "window", "x"),
)
_HEADER_NAMES = (
    *("Accept", "Accept-Language", "Accept-Encoding", "Content-Type", "Cookie", "Host", "If-None-Match"),
    *("If-Modified-Since", "Origin", "Range", "Referer", "User-Agent", "X-Forwarded-For", "X-Forwarded-Host"),
    *(
        "X-Forwarded-Proto",
        "X-HTTP-Method-Override",
        "X-Request-Id",
        "X-Requested-With",
        "Last-Event-ID",
        "Authorization",
    ),
)
# What an address may hold as bytes, beyond the texts.
_HOSTILE_BYTES = (
    b"%00",
    b"%ff%fe",
    b"%",
    b"%2e%2e%2f",
    b"%c0%af",
    b"a" * 9000,
    b"//evil.example",
    b"%0d%0aX: y",
    b";",
    b"%u0041",
)
_VALUES = st.one_of(
    st.sampled_from([text for text in HOSTILE_TEXTS if not re.search("[\ud800-\udfff]", text)]),
    st.sampled_from(
        ("1", "0", "-1", str(2**31), str(2**53), str(2**63), "9" * 60, "2026-01-31", "ada", "on", "", "true")
    ),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=60),
)


@dataclass(frozen=True)
class Request:
    """A generated request."""

    endpoint: str
    method: str
    path: str
    headers: dict[str, str]
    form: dict[str, str] | None
    is_signed_in: bool


@dataclass
class WebFuzzer:
    """Sends generated requests to the application, signed in as an operator and as a visitor.

    Attributes:
        reads_forms: whether forms are sent with the fields that the pages have.
    """

    database_url: str
    database: Database
    tally: Tally = field(default_factory=Tally)
    reads_forms: bool = True

    def run(self, requests: int, first_seed: int = 0) -> int:
        """Send so many requests.

        Raises:
            Violation: an answer or a change that must not be.
        """
        web = WebApp(self.database_url, **FEATURE_ENV)
        try:
            with _errors_of_requests() as errors:
                site = create_sample_site(self.database)
                forms = self._read_forms(web, site) if self.reads_forms else {}
                sent = 0
                while sent < requests:
                    count = min(_REQUESTS_PER_BLOCK, requests - sent)
                    self._run_block(web, site, forms, count, first_seed + sent, errors)
                    sent += count
                return sent
        finally:
            web.close()

    def _run_block(
        self,
        web: WebApp,
        site: SampleSite,
        forms: dict[str, dict[str, str]],
        count: int,
        block_seed: int,
        errors: list[str],
    ) -> None:
        rules = [rule for rule in web.app.url_map.iter_rules() if rule.endpoint not in _SKIPPED_ENDPOINTS]
        visitor = web.new_browser()
        with self.database.connection() as conn:
            owner = _sign_in(web, site, conn)
            token = owner.get_csrf_token()
            take_changes(conn)

            @seed(block_seed)
            @settings(
                max_examples=count,
                phases=[Phase.generate],
                deadline=None,
                database=None,
                suppress_health_check=list(HealthCheck),
            )
            @given(data=st.data())
            def send(data: st.DataObject) -> None:
                request = _draw_request(data, rules, site, forms, token)
                errors.clear()
                response = (owner if request.is_signed_in else visitor).flask_client.open(
                    request.path,
                    method=request.method,
                    base_url=BASE_URL,
                    headers=request.headers,
                    data=request.form,
                    buffered=True,
                )
                self._judge(request, response, take_changes(conn), errors)

            send()

    def _judge(self, request: Request, response: TestResponse, changes: set[str], errors: list[str]) -> None:
        context = (request, response.status_code, errors[:1])
        check_status(response.status_code, context)
        if response.mimetype in ("text/html", "application/json", "text/plain"):
            check_text(response.get_data(as_text=True)[:200_000], repr(request), (request, response.status_code))
        if errors:
            raise Violation(f"an error was logged: {context!r}")
        self.tally.add(f"{request.method} {response.status_code // 100}xx")
        # The test client sends methods in capital letters.
        is_refused = response.status_code >= 400 or request.method.upper() not in ("GET", "POST", "HEAD")
        if is_refused and changes:
            raise Violation(f"a refused request changed {changes}: {context!r}")

    def _read_forms(self, web: WebApp, site: SampleSite) -> dict[str, dict[str, str]]:
        """Return the fields of every form of every page, by address."""
        forms: dict[str, dict[str, str]] = {}
        with self.database.connection() as conn:
            owner = _sign_in(web, site, conn)
        for rule in web.app.url_map.iter_rules():
            if "GET" in (rule.methods or ()) and rule.arguments <= site.sample.route_values.keys():
                built = rule.build({name: site.sample.route_values[name] for name in rule.arguments})
                if (
                    built is not None
                    and rule.endpoint not in _SKIPPED_ENDPOINTS
                    and not rule.endpoint.startswith("oauth.")
                ):
                    response = owner.get(built[1])
                    if response.mimetype == "text/html":
                        forms |= FormParser(response.get_data(as_text=True)).forms
        return forms


def _sign_in(web: WebApp, site: SampleSite, conn: Connection) -> Browser:
    return web.new_browser().sign_in(conn, site.owner)


def _draw_request(
    data: st.DataObject, rules: list[Rule], site: SampleSite, forms: dict[str, dict[str, str]], token: str
) -> Request:
    rule = data.draw(st.sampled_from(rules))
    method = data.draw(st.sampled_from(_METHODS))
    path = _draw_path(data, rule, site)
    if data.draw(st.integers(0, 2)) == 0:
        names = data.draw(st.lists(st.sampled_from(_QUERY_NAMES), min_size=1, max_size=4))
        path += "?" + urlencode([(name, data.draw(_VALUES)) for name in names])
    form = _draw_form(data, forms.get(path, {}), token) if method not in ("GET", "HEAD") else None
    headers = {
        name: re.sub(r"[\r\n\x00]", " ", data.draw(_VALUES)).encode("latin-1", "replace").decode("latin-1")
        for name in data.draw(st.lists(st.sampled_from(_HEADER_NAMES), max_size=2, unique=True))
    }
    # Refused by the server or the application before anything else; the rest is to be reached.
    if data.draw(st.integers(0, 3)) > 0:
        headers.pop("Host", None)
    headers.pop("Cookie", None)
    if method == "POST":
        headers.setdefault("Referer", BASE_URL)
    return Request(rule.endpoint, method, path, headers, form, data.draw(st.integers(0, 3)) > 0)


def _draw_path(data: st.DataObject, rule: Rule, site: SampleSite) -> str:
    known = site.sample.route_values
    values = {name: known.get(name, "x") for name in rule.arguments}
    if data.draw(st.integers(0, 2)):
        # A value that is one of a few has no other form.
        with contextlib.suppress(ValueError):
            built = rule.build(values)
            if built is not None:
                return str(built[1])

    def hostile(_: re.Match[str]) -> str:
        if data.draw(st.booleans()):
            return data.draw(st.sampled_from(_HOSTILE_BYTES)).decode()
        return quote_from_bytes(data.draw(_VALUES).encode())

    return "/" + re.sub(r"<[^>]+>", hostile, rule.rule).lstrip("/")


def _draw_form(data: st.DataObject, fields: dict[str, str], token: str) -> dict[str, str]:
    form = dict(fields)
    if data.draw(st.integers(0, 4)):
        form["csrf_token"] = token
    names = [name for name in form if name != "csrf_token"] or ["name", "confirm", "x"]
    for name in data.draw(st.lists(st.sampled_from(names), max_size=3)):
        form[name] = data.draw(_VALUES)
    return form


@contextmanager
def _errors_of_requests() -> Iterator[list[str]]:
    """Collect what is logged as an error: a defect that is answered with an error page."""
    errors: list[str] = []

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            errors.append(self.format(record))

    handler = Handler(logging.ERROR)
    logging.getLogger().addHandler(handler)
    try:
        yield errors
    finally:
        logging.getLogger().removeHandler(handler)
