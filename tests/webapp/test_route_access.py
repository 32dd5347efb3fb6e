"""Access control of every route; new pages are covered automatically."""

import re
from collections.abc import Iterator

import pytest
from werkzeug.routing import Rule

from bus.db import Database
from bus.tenancy import owners
from tests.assertions import database_checksum
from tests.factories import make_agent, make_owner, make_project
from tests.webapp.web_client import Browser, WebApp, normalize_page
from webapp.blueprints import OperatorBlueprint, OwnerBlueprint

_UNKNOWN_ID = 987_654_321
_METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
# Differ in every response.
_VARYING_HEADERS = {"Content-Security-Policy", "Content-Length", "Set-Cookie", "X-Request-Id"}


@pytest.fixture
def ada(site: WebApp, db: Database) -> Browser:
    """Signed in as an owner without projects."""
    with db.transaction() as conn:
        owner = make_owner(conn, "ada")
    with db.connection() as conn:
        return site.new_browser().sign_in(conn, owner)


@pytest.fixture
def operator(site: WebApp, db: Database) -> Browser:
    """Signed in as an operator."""
    with db.transaction() as conn:
        owner = owners.add(conn, "op@example.org", handle="op", operator=True, actor="cli")
    with db.connection() as conn:
        return site.new_browser().sign_in(conn, owner)


def _rules(site: WebApp) -> Iterator[tuple[Rule, str]]:
    """Each rule with its own methods, without those that the framework adds."""
    for rule in site.app.url_map.iter_rules():
        if rule.endpoint == "static":
            continue
        for method in sorted((rule.methods or set()) - {"HEAD", "OPTIONS"}):
            yield rule, method


def _path(site: WebApp, rule: Rule, **values: object) -> str:
    """An address of the rule; missing values are ids that do not exist."""
    filled = {name: values.get(name, "csv" if name == "ending" else _UNKNOWN_ID) for name in rule.arguments}
    with site.app.test_request_context():
        built = rule.build(filled)
    assert built is not None
    return str(built[1])


def _is_private(site: WebApp, rule: Rule) -> bool:
    return isinstance(site.app.blueprints.get(rule.endpoint.partition(".")[0]), OwnerBlueprint)


def _is_console(site: WebApp, rule: Rule) -> bool:
    return isinstance(site.app.blueprints.get(rule.endpoint.partition(".")[0]), OperatorBlueprint)


def _is_machine(site: WebApp, rule: Rule) -> bool:
    return bool(getattr(site.app.view_functions[rule.endpoint], "bus_machine", False))


def test_pages_of_owners_redirect_visitors_to_sign_in(site: WebApp, stranger: Browser) -> None:
    seen = 0
    for rule, method in _rules(site):
        if _is_private(site, rule) and method == "GET":
            answer = stranger.get(_path(site, rule))
            assert (answer.status_code, answer.location.partition("?")[0]) == (303, "/sign-in"), rule
            seen += 1
    assert seen > 1


def test_the_operator_console_does_not_exist_for_others(
    site: WebApp, ada: Browser, stranger: Browser, operator: Browser
) -> None:
    """For every method, with or without a CSRF token: the response of an unknown address, byte for byte."""
    seen = 0
    for browser in (ada, stranger):
        data = {"csrf_token": browser.get_csrf_token()} if browser is ada else None
        for method in (*_METHODS, "OPTIONS"):
            expected = browser._open(method, "/no/such/thing", data=data)
            assert expected.status_code == 404
            paths = {_path(site, rule, name="heartbeat") for rule, _ in _rules(site) if _is_console(site, rule)}
            for path in (*sorted(paths), "/operator", "/operator/nothing", "/operator/owners"):
                answer = browser._open(method, path, data=data)
                assert (answer.status_code, normalize_page(answer)) == (404, normalize_page(expected)), (method, path)
                kept = [{k: v for k, v in one.headers if k not in _VARYING_HEADERS} for one in (answer, expected)]
                assert kept[0] == kept[1], (method, path)
                seen += 1
    assert seen > 150
    assert "Operator" not in ada.get("/admin/").text
    assert "Operator" in operator.get("/admin/").text
    for rule, method in _rules(site):
        if _is_console(site, rule) and method == "GET" and not rule.arguments:
            assert operator.get(_path(site, rule)).status_code == 200, rule


def test_no_form_is_accepted_without_a_csrf_token(
    site: WebApp, ada: Browser, stranger: Browser, operator: Browser, db: Database
) -> None:
    with db.connection() as conn:
        before = database_checksum(conn)
    seen = 0
    for rule, method in _rules(site):
        if method == "GET" or _is_machine(site, rule):
            continue
        for browser in (operator,) if _is_console(site, rule) else (ada, stranger):
            for token in (None, "", "nonsense", "IjEyMyI.aaaaaa.bbbbbbbbbbbbbbbbbbbbbbbbbbb"):
                data = None if token is None else {"csrf_token": token}
                assert browser.post(_path(site, rule), data=data).status_code == 400, rule
                seen += 1
    assert seen > 8
    with db.connection() as conn:
        after = database_checksum(conn)
    # Sessions record their last use.
    assert {name for name in before if before[name] != after[name]} <= {"session"}


def test_views_without_csrf_protection_are_the_listed_ones(site: WebApp) -> None:
    """None of them reads a cookie: the caller sends an invite code, the metrics token or a mailed token, if any."""
    assert {(method, rule.rule) for rule, method in _rules(site) if _is_machine(site, rule)} == {
        ("POST", "/join"),
        ("POST", "/email/unsubscribe/<token>"),
        ("GET", "/api/stats"),
        ("GET", "/metrics"),
        # OAuth clients: a code or a refresh token, if any.
        ("GET", "/.well-known/oauth-authorization-server"),
        ("GET", "/.well-known/oauth-protected-resource"),
        ("GET", "/.well-known/oauth-protected-resource/mcp"),
        ("POST", "/oauth/device_authorization"),
        ("POST", "/oauth/register"),
        ("POST", "/oauth/revoke"),
        ("POST", "/oauth/token"),
    }


def test_a_csrf_token_works_only_in_its_browser(site: WebApp, ada: Browser, db: Database) -> None:
    with db.transaction() as conn:
        bob = make_owner(conn, "bob")
    with db.connection() as conn:
        other = site.new_browser().sign_in(conn, bob)
    assert other.post("/sign-out", data={"csrf_token": ada.get_csrf_token()}).status_code == 400
    assert other.post("/sign-out", data={"csrf_token": other.get_csrf_token()}).status_code == 303


def test_every_address_refuses_other_methods_with_an_allow_header(site: WebApp, operator: Browser) -> None:
    taken: dict[str, set[str]] = {}
    for rule, method in _rules(site):
        taken.setdefault(_path(site, rule), set()).add(method)
    for path, methods in taken.items():
        for method in sorted(set(_METHODS) - methods):
            answer = operator._open(method, path)
            assert answer.status_code == 405, (path, method)
            assert methods <= set(answer.headers["Allow"].split(", "))


def test_resources_of_another_owner_do_not_exist(site: WebApp, ada: Browser, db: Database) -> None:
    """Each project address with another owner's project: the response of a project that does not exist."""
    with db.transaction() as conn:
        theirs = make_project(conn)
        agent = make_agent(conn, theirs)
    token = ada.get_csrf_token()
    for rule, method in _rules(site):
        if not _is_private(site, rule) or not rule.arguments:
            continue
        data = {"csrf_token": token} if method != "GET" else None
        participant = agent.ctx.participant_id
        ids = dict.fromkeys(rule.arguments, participant) | {"project_id": theirs.id}
        answers = [
            ada._open(method, _path(site, rule, **values), data=data)
            for values in ({}, dict.fromkeys(rule.arguments, 1_000_000), ids)
            if values is not ids or "project_id" in rule.arguments
        ]
        assert {answer.status_code for answer in answers} == {404}, rule
        assert len({normalize_page(answer) for answer in answers}) == 1, rule


def test_every_response_has_security_headers(site: WebApp, ada: Browser, stranger: Browser, operator: Browser) -> None:
    asked = [(_path(site, rule), method) for rule, method in _rules(site)]
    asked += [("/nope", "GET"), ("/static/bus.css", "GET"), ("/static/nope", "GET"), ("/", "PUT")]
    for path, method in asked:
        for browser in (operator if path.startswith("/operator") else ada, stranger):
            headers = browser._open(method, path).headers
            policy = headers["Content-Security-Policy"]
            scripts = re.search(r"script-src ('none'|'nonce-[\w-]{22}');", policy)
            assert scripts is not None, policy
            assert policy == (
                f"default-src 'none'; script-src {scripts[1]}; style-src 'self'; img-src 'self'; font-src 'self'; "
                "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
            )
            assert headers["X-Content-Type-Options"] == "nosniff"
            assert headers["X-Frame-Options"] == "DENY"
            assert headers["Cross-Origin-Opener-Policy"] == "same-origin"
            assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
            assert "camera=()" in headers["Permissions-Policy"]
            assert headers["Referrer-Policy"] in ("same-origin", "no-referrer")
            assert "max-age=" in headers["Strict-Transport-Security"]
            assert "Server" not in headers
            # Files may be cached; pages are personal.
            if path != "/static/bus.css" and not path.startswith("/kit"):
                assert "no-store" in headers["Cache-Control"] or "no-cache" in headers["Cache-Control"], path
            for cookie in headers.getlist("Set-Cookie"):
                assert cookie.startswith("__Host-"), cookie
                for attribute in ("Secure", "HttpOnly", "Path=/", "SameSite=Lax"):
                    assert attribute in cookie
                assert "Domain" not in cookie


def test_no_page_has_inline_scripts_or_styles(site: WebApp, operator: Browser) -> None:
    """The CSP would block them in the browser, without an error on the server."""
    for rule, method in _rules(site):
        if method != "GET" or rule.rule.startswith("/kit") or rule.endpoint.startswith("site_files."):
            continue
        page = operator.get(_path(site, rule)).text
        for forbidden in (" style=", "<style", " onclick=", " onsubmit=", "javascript:", "http://", 'src="//'):
            assert forbidden not in page.replace("http://www.w3.org", ""), (rule, forbidden)
        for attributes in re.findall("<script([^>]*)>", page):
            assert re.search(r' src="/static/[^"]+"', attributes), (rule, attributes)
