"""Every route there is, asked by those who should not get far. A new page is in here by being there."""

from collections.abc import Iterator

import pytest
from werkzeug.routing import Rule

from bus.db import Database
from bus.tenancy import owners
from tests.assertions import database_checksum
from tests.factories import make_agent, make_owner, make_project
from tests.webapp.web_client import Browser, WebApp, normalize_page
from webapp.blueprints import OperatorBlueprint, OwnerBlueprint

_NOBODYS = 987_654_321
_METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
# Another in every answer.
_OWN = {"Content-Security-Policy", "Content-Length", "Set-Cookie", "X-Request-Id"}


@pytest.fixture
def ada(site: WebApp, db: Database) -> Browser:
    """Signed in as an owner who has nothing."""
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
    """Each rule with the verbs of its own, without those that the framework adds."""
    for rule in site.app.url_map.iter_rules():
        if rule.endpoint == "static":
            continue
        for method in sorted((rule.methods or set()) - {"HEAD", "OPTIONS"}):
            yield rule, method


def _path(site: WebApp, rule: Rule, **values: object) -> str:
    """An address that the rule answers to; what is not given is something that nobody has."""
    filled = {name: values.get(name, "csv" if name == "ending" else _NOBODYS) for name in rule.arguments}
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


def test_nobody_who_is_not_signed_in_sees_a_page_of_an_owner(site: WebApp, stranger: Browser) -> None:
    seen = 0
    for rule, method in _rules(site):
        if _is_private(site, rule) and method == "GET":
            answer = stranger.get(_path(site, rule))
            assert (answer.status_code, answer.location.partition("?")[0]) == (303, "/sign-in"), rule
            seen += 1
    assert seen > 1


def test_the_operator_console_is_nothing_to_anybody_else(
    site: WebApp, ada: Browser, stranger: Browser, operator: Browser
) -> None:
    """Whatever the verb, with or without a token: the answer for an address that never was, byte for byte."""
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
                kept = [{k: v for k, v in one.headers if k not in _OWN} for one in (answer, expected)]
                assert kept[0] == kept[1], (method, path)
                seen += 1
    assert seen > 150
    assert "Operator" not in ada.get("/admin/").text
    assert "Operator" in operator.get("/admin/").text
    for rule, method in _rules(site):
        if _is_console(site, rule) and method == "GET" and not rule.arguments:
            assert operator.get(_path(site, rule)).status_code == 200, rule


def test_no_form_is_taken_without_its_token(
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
    # Sessions note when they were used.
    assert {name for name in before if before[name] != after[name]} <= {"session"}


def test_a_token_of_one_browser_is_nothing_in_another(site: WebApp, ada: Browser, db: Database) -> None:
    with db.transaction() as conn:
        bob = make_owner(conn, "bob")
    with db.connection() as conn:
        other = site.new_browser().sign_in(conn, bob)
    assert other.post("/sign-out", data={"csrf_token": ada.get_csrf_token()}).status_code == 400
    assert other.post("/sign-out", data={"csrf_token": other.get_csrf_token()}).status_code == 303


def test_every_address_refuses_other_verbs_and_says_which_it_takes(site: WebApp, operator: Browser) -> None:
    taken: dict[str, set[str]] = {}
    for rule, method in _rules(site):
        taken.setdefault(_path(site, rule), set()).add(method)
    for path, methods in taken.items():
        for method in sorted(set(_METHODS) - methods):
            answer = operator._open(method, path)
            assert answer.status_code == 405, (path, method)
            assert methods <= set(answer.headers["Allow"].split(", "))


def test_what_is_another_owners_is_what_does_not_exist(site: WebApp, ada: Browser, db: Database) -> None:
    """Each address about a project, with the project of somebody else: the answer for a project that never was."""
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


def test_every_answer_carries_its_headers(site: WebApp, ada: Browser, stranger: Browser, operator: Browser) -> None:
    asked = [(_path(site, rule), method) for rule, method in _rules(site)]
    asked += [("/nope", "GET"), ("/static/bus.css", "GET"), ("/static/nope", "GET"), ("/", "PUT")]
    for path, method in asked:
        for browser in (operator if path.startswith("/operator") else ada, stranger):
            headers = browser._open(method, path).headers
            policy = headers["Content-Security-Policy"]
            assert "default-src 'none'" in policy
            assert "frame-ancestors 'none'" in policy
            assert "unsafe" not in policy
            assert "*" not in policy
            assert headers["X-Content-Type-Options"] == "nosniff"
            assert headers["Referrer-Policy"] in ("same-origin", "no-referrer")
            assert "max-age=" in headers["Strict-Transport-Security"]
            assert "Server" not in headers
            # Files are kept by whoever fetches them; pages are made for one person at one moment.
            if path != "/static/bus.css" and not path.startswith("/kit"):
                assert "no-store" in headers["Cache-Control"] or "no-cache" in headers["Cache-Control"], path
            for cookie in headers.getlist("Set-Cookie"):
                assert cookie.startswith("__Host-"), cookie
                for attribute in ("Secure", "HttpOnly", "Path=/", "SameSite=Lax"):
                    assert attribute in cookie
                assert "Domain" not in cookie


def test_no_page_has_a_script_or_a_style_of_its_own(site: WebApp, operator: Browser) -> None:
    """The policy would refuse them in the browser, where nobody notices."""
    for rule, method in _rules(site):
        if method != "GET" or rule.rule.startswith("/kit"):
            continue
        page = operator.get(_path(site, rule)).text
        for forbidden in (" style=", "<style", " onclick=", " onsubmit=", "javascript:", "http://", 'src="//'):
            assert forbidden not in page.replace("http://www.w3.org", ""), (rule, forbidden)
