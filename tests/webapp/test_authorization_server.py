"""The authorization server: what it grants, and what it refuses to those who try to take it."""

import logging
import re
from collections.abc import Callable
from urllib.parse import unquote, urlsplit

import pytest

from bus.auth import login_links
from bus.db import Database
from bus.errors import NotAuthenticated
from bus.rules.token_format import access_token_fingerprint
from bus.tenancy import authentication, client_grants, owners, projects, tokens
from bus.tenancy.client_grants import ConnectedClient
from tests.assertions import database_checksum
from tests.factories import make_agent, make_project
from tests.webapp.oauth_requests import (
    CLIENT_ID,
    REDIRECT_URI,
    RESOURCE,
    VERIFIER,
    authorization_path,
    connect,
    consent,
    exchange,
    read_answer,
    read_return_url,
    refresh,
    request_token,
    store_client,
)
from tests.webapp.sample_data import SampleData, project_path
from tests.webapp.web_client import BASE_URL, Browser, FormParser, WebApp


@pytest.fixture(autouse=True)
def _client(db: Database) -> None:
    store_client(db)


def _actor(db: Database, access_token: str) -> str | None:
    """As whom an access token acts at the endpoint; None if it is refused."""
    with db.connection() as conn:
        ctx = tokens.find_caller(conn, access_token_fingerprint(access_token, RESOURCE))
        if ctx is None:
            return None
        try:
            return authentication.authenticate(conn, ctx).actor
        except NotAuthenticated:
            return None


def _connected(db: Database, sample: SampleData) -> list[ConnectedClient]:
    with db.connection() as conn:
        connected = client_grants.list_connected(conn, sample.owner.id)
    return [client for client in connected if client.id != sample.route_values["grant_id"]]


def test_a_client_connects_as_a_new_participant(
    ada: Browser, stranger: Browser, db: Database, sample: SampleData
) -> None:
    page = ada.get(authorization_path())
    assert page.headers["Cache-Control"] == "no-store"
    assert page.headers["X-Frame-Options"] == "DENY"
    assert "frame-ancestors 'none'" in page.headers["Content-Security-Policy"]
    assert "app.example" in page.text
    assert "127.0.0.1:49152" in page.text
    assert FormParser(page.text).forms[authorization_path()]["name"] == "example-app"
    target = f"new-{sample.full_project.id}"
    answer = read_answer(consent(ada, target=target, lane="review"))
    assert (answer["state"], answer["iss"]) == ("s-1", BASE_URL)
    issued = exchange(stranger, answer["code"])
    assert issued.headers["Cache-Control"] == "no-store"
    assert (issued.get_json()["token_type"], issued.get_json()["expires_in"]) == ("Bearer", 3600)
    assert _actor(db, issued.get_json()["access_token"]) == "ada/example-app"
    rotated = refresh(stranger, issued.get_json()["refresh_token"])
    assert _actor(db, rotated.get_json()["access_token"]) == "ada/example-app"
    (client,) = _connected(db, sample)
    assert (client.client_id, client.actor) == (CLIENT_ID, "ada/example-app")
    # The next time, the same participant is preselected.
    again = FormParser(ada.get(authorization_path()).text).forms[authorization_path()]
    assert (again["target"], again["name"]) == (str(client.participation_id), "example-app-2")


def test_a_client_connects_as_an_existing_participant(ada: Browser, db: Database, sample: SampleData) -> None:
    participation_id = str(sample.route_values["participation_id"])
    issued = connect(ada, target=participation_id, lives="7")
    assert _actor(db, issued["access_token"]) == "ada/review-agent"
    for path in ("/account/", project_path(sample, f"participants/{participation_id}")):
        page = ada.get(path)
        assert "Example App" in page.text
        assert "app.example" in page.text
    disconnected = ada.submit(f"/account/clients/{_connected(db, sample)[0].id}/disconnect")
    assert urlsplit(disconnected.location).path == project_path(sample, f"participants/{participation_id}")
    assert _actor(db, issued["access_token"]) is None
    assert refresh(ada, issued["refresh_token"]).get_json() == {"error": "invalid_grant"}
    assert "Example App" not in ada.get("/account/").text.partition('id="clients"')[2]


def test_a_denial_reaches_the_client(ada: Browser, db: Database, sample: SampleData) -> None:
    page = consent(ada, decision="deny")
    assert "Example App got no access." in page.text
    answer = read_answer(page)
    assert (answer["error"], answer["state"], answer["iss"]) == ("access_denied", "s-1", BASE_URL)
    assert _connected(db, sample) == []


def test_a_visitor_signs_in_first_and_comes_back(stranger: Browser, db: Database, sample: SampleData) -> None:
    answer = stranger.get(authorization_path())
    assert answer.status_code == 303
    assert answer.location.startswith("/sign-in?next=/oauth/authorize?")
    stranger.get(answer.location)
    with db.connection() as conn:
        path = f"/sign-in/link/{login_links.create_login_link(conn, sample.owner, actor='cli')}"
    stranger.get(path)
    back = stranger.submit(path)
    assert (back.status_code, unquote(back.location)) == (303, unquote(authorization_path()))
    assert stranger.get(back.location).status_code == 200


_FOREIGN_TARGETS: tuple[dict[str, str | None], ...] = (
    {"redirect_uri": "http://127.0.0.1:49152/other"},
    {"redirect_uri": "http://127.0.0.1.attacker.example/callback"},
    {"redirect_uri": "http://localhost:49152/callback"},
    {"redirect_uri": "https://127.0.0.1:49152/callback"},
    {"redirect_uri": "http://user@127.0.0.1:49152/callback"},
    {"redirect_uri": "http://127.0.0.1:49152/callback#x"},
    {"redirect_uri": "https://app.example:444/callback"},
    {"redirect_uri": "https://app.example/callback?x"},
    {"redirect_uri": "javascript:alert(1)"},
    {"redirect_uri": 'http://127.0.0.1:49152/callback"é'},
    {"redirect_uri": None},
    {"client_id": None},
    {"client_id": "app"},
    {"client_id": "http://app.example/oauth/client.json"},
    {"client_id": "https://app.example/\0"},
)


def test_a_browser_is_not_sent_where_the_client_may_not_be(ada: Browser) -> None:
    for changed in _FOREIGN_TARGETS:
        page = ada.get(authorization_path(**changed))
        assert page.status_code == 400, changed
        assert "Nothing was granted" in page.text, changed
        assert 'http-equiv="refresh"' not in page.text, changed


_WRONG_REQUESTS: tuple[tuple[dict[str, str | None], str], ...] = (
    ({"code_challenge": None, "code_challenge_method": None}, "invalid_request"),
    ({"code_challenge_method": "plain"}, "invalid_request"),
    ({"code_challenge_method": None}, "invalid_request"),
    ({"code_challenge": "short"}, "invalid_request"),
    ({"response_type": "token"}, "unsupported_response_type"),
    ({"response_type": 'co"dé'}, "invalid_request"),
    ({"resource": "https://other.example/mcp"}, "invalid_target"),
    ({"resource": f"{RESOURCE}/other"}, "invalid_target"),
    ({"resource": RESOURCE.removesuffix("/mcp")}, "invalid_target"),
)


def test_a_wrong_request_is_answered_to_the_client(ada: Browser, db: Database, sample: SampleData) -> None:
    token, target = ada.get_csrf_token(), f"new-{sample.full_project.id}"
    data = {"csrf_token": token, "decision": "allow", "target": target, "name": "x"}
    for changed, error in _WRONG_REQUESTS:
        path = authorization_path(**changed)
        # Also if the form is sent without the page.
        for page in (ada.get(path), ada.post(path, data=data)):
            answer = read_answer(page)
            assert (answer["error"], answer["state"], answer["iss"]) == (error, "s-1", BASE_URL), changed
            assert "code" not in answer
    assert _connected(db, sample) == []


def test_an_error_leads_to_another_site_only_with_a_click(ada: Browser) -> None:
    page = ada.get(authorization_path(redirect_uri="https://app.example/callback", code_challenge=None))
    assert read_return_url(page).startswith("https://app.example/callback?error=")
    assert 'http-equiv="refresh"' not in page.text
    assert 'http-equiv="refresh"' in ada.get(authorization_path(code_challenge=None)).text


def test_repeated_parameters_are_refused(ada: Browser) -> None:
    assert ada.get(f"{authorization_path()}&redirect_uri=https%3A%2F%2Fattacker.example").status_code == 400
    for name in ("response_type", "client_id", "state", "code_challenge", "code_challenge_method"):
        assert "error" in read_answer(ada.get(f"{authorization_path()}&{name}=x")), name
    answer = ada.post(
        "/oauth/token", data="grant_type=refresh_token&grant_type=x", content_type="application/x-www-form-urlencoded"
    )
    assert (answer.status_code, answer.get_json()["error"]) == (400, "invalid_request")


_STOLEN: tuple[tuple[dict[str, str | None], str], ...] = (
    ({"code_verifier": None}, "invalid_request"),
    ({"code_verifier": "other-" + "x" * 43}, "invalid_grant"),
    ({"redirect_uri": "http://127.0.0.1:49153/callback"}, "invalid_grant"),
    ({"redirect_uri": None}, "invalid_grant"),
    ({"client_id": "https://other.example/client.json"}, "invalid_grant"),
    ({"client_id": None}, "invalid_client"),
    ({"client_secret": "x"}, "invalid_client"),
    ({"resource": "https://other.example/mcp"}, "invalid_target"),
    ({"code": "x"}, "invalid_grant"),
    ({"code": None}, "invalid_request"),
    ({"grant_type": "password"}, "unsupported_grant_type"),
    ({"grant_type": 'p"é'}, "unsupported_grant_type"),
)


def test_a_stolen_code_gives_nothing(ada: Browser, stranger: Browser) -> None:
    code = read_answer(consent(ada))["code"]
    for changed, error in _STOLEN:
        answer = exchange(stranger, code, **changed)
        assert (answer.status_code, answer.get_json()["error"]) == (400, error), changed
        assert "access_token" not in answer.get_json()
    # It is still good for the client that it was made for.
    assert exchange(stranger, code).status_code == 200


def test_a_replayed_code_revokes_what_it_gave(ada: Browser, stranger: Browser, db: Database) -> None:
    code = read_answer(consent(ada))["code"]
    issued = exchange(ada, code).get_json()
    assert exchange(stranger, code).get_json() == {
        "error": "invalid_grant",
        "error_description": "Invalid 'code' in request.",
    }
    assert _actor(db, issued["access_token"]) is None
    assert refresh(ada, issued["refresh_token"]).status_code == 400


def test_a_replayed_refresh_token_revokes_the_family(ada: Browser, stranger: Browser, db: Database) -> None:
    first = connect(ada)
    second = refresh(ada, first["refresh_token"]).get_json()
    assert _actor(db, second["access_token"]) is not None
    # The one before the newest is given the newest again for a minute.
    third = refresh(ada, second["refresh_token"]).get_json()
    assert refresh(stranger, first["refresh_token"]).get_json() == {"error": "invalid_grant"}
    for issued in (first, second, third):
        assert _actor(db, issued["access_token"]) is None
        assert refresh(ada, issued["refresh_token"]).status_code == 400


def test_a_refresh_token_belongs_to_its_client_and_resource(ada: Browser) -> None:
    issued = connect(ada)
    cases: tuple[tuple[dict[str, str | None], str], ...] = (
        ({"client_id": "https://other.example/client.json"}, "invalid_grant"),
        ({"resource": "https://other.example/mcp"}, "invalid_target"),
        ({"refresh_token": None}, "invalid_request"),
    )
    for changed, error in cases:
        answer = refresh(ada, issued["refresh_token"], **changed)
        assert (answer.status_code, answer.get_json()["error"]) == (400, error), changed
    assert refresh(ada, issued["refresh_token"]).status_code == 200


@pytest.mark.parametrize("kind", ["access_token", "refresh_token"])
def test_a_client_revokes_its_tokens(ada: Browser, db: Database, sample: SampleData, kind: str) -> None:
    issued = connect(ada)
    other = {"token": issued[kind], "client_id": "https://other.example/client.json"}
    assert ada.post("/oauth/revoke", data=other).status_code == 400
    assert _actor(db, issued["access_token"]) is not None
    for _ in range(2):
        answer = ada.post("/oauth/revoke", data={"token": issued[kind], "client_id": CLIENT_ID})
        assert (answer.status_code, answer.get_json()) == (200, {})
    assert _actor(db, issued["access_token"]) is None
    # An access token ends alone, a refresh token with the connection.
    assert len(_connected(db, sample)) == (kind == "access_token")
    assert ada.post("/oauth/revoke", data={"token": "unknown", "client_id": CLIENT_ID}).status_code == 200


def test_a_participant_of_another_owner_cannot_be_chosen(ada: Browser, db: Database, sample: SampleData) -> None:
    with db.transaction() as conn:
        foreign = make_project(conn)
        agent = make_agent(conn, foreign)
    for target in (str(agent.ctx.participation_id), f"new-{foreign.id}", "new-", "new-x", "", "999999"):
        page = consent(ada, target=target)
        assert page.status_code == 400, target
        assert 'http-equiv="refresh"' not in page.text
    assert _connected(db, sample) == []


def test_a_consent_needs_the_form_of_this_browser(
    ada: Browser, stranger: Browser, db: Database, sample: SampleData
) -> None:
    with db.connection() as conn:
        before = database_checksum(conn)
    data = {"decision": "allow", "target": f"new-{sample.full_project.id}", "name": "x"}
    assert ada.post(authorization_path(), data=data).status_code == 400
    assert ada.post(authorization_path(), data={**data, "csrf_token": "x"}).status_code == 400
    token = ada.get_csrf_token()
    headers = {"Sec-Fetch-Site": "cross-site"}
    assert ada.post(authorization_path(), data={**data, "csrf_token": token}, headers=headers).status_code == 403
    assert stranger.post(authorization_path(), data=data).status_code == 400
    with db.connection() as conn:
        assert database_checksum(conn) == before


def test_a_name_is_required_and_must_be_free(ada: Browser, sample: SampleData) -> None:
    target = f"new-{sample.full_project.id}"
    assert "A new participant needs a name." in consent(ada, target=target, name="").text
    assert "is in this project already" in consent(ada, target=target, name="review-agent").text
    assert "must not contain" in consent(ada, target=target, name="a/b").text


def test_an_owner_without_a_project_is_told_to_create_one(site: WebApp, db: Database) -> None:
    with db.transaction() as conn:
        owner = owners.add(conn, "new@example.org", handle="new", actor="cli")
    with db.connection() as conn:
        browser = site.new_browser().sign_in(conn, owner)
    assert "No projects yet" in browser.get(authorization_path()).text


def test_archived_projects_are_not_offered(ada: Browser, db: Database, sample: SampleData) -> None:
    with db.transaction() as conn:
        projects.archive(conn, sample.full_project.id, actor="cli")
    assert f'value="new-{sample.full_project.id}"' not in ada.get(authorization_path()).text


def test_the_page_warns_of_what_cannot_be_verified(ada: Browser, db: Database) -> None:
    assert "Any program on this computer" in ada.get(authorization_path()).text
    plain = ada.get(authorization_path(redirect_uri="https://app.example/callback"))
    assert 'class="alert warning"' not in plain.text
    store_client(db, CLIENT_ID, "https://elsewhere.example/x", "cursor://callback", name="<b>App</b>")
    elsewhere = ada.get(authorization_path(redirect_uri="https://elsewhere.example/x"))
    assert "is not verified" in elsewhere.text
    assert "&lt;b&gt;App&lt;/b&gt;" in elsewhere.text
    assert "Any app can claim" in ada.get(authorization_path(redirect_uri="cursor://callback")).text


def test_requests_are_limited(make_web: Callable[..., WebApp], db: Database, sample: SampleData) -> None:
    web = make_web(OAUTH_PER_MINUTE="2")
    browser = web.new_browser()
    assert [request_token(browser).status_code for _ in range(3)] == [400, 400, 429]
    with db.connection() as conn:
        owner = web.new_browser().sign_in(conn, sample.owner)
    assert [owner.get(authorization_path()).status_code for _ in range(3)] == [200, 200, 429]
    assert [browser.post("/oauth/register", json={}).status_code for _ in range(11)] == [400] * 10 + [429]


def test_only_hashes_are_stored(ada: Browser, db: Database) -> None:
    code = read_answer(consent(ada))["code"]
    issued = exchange(ada, code).get_json()
    secrets = (code, issued["access_token"], issued["refresh_token"], VERIFIER)
    with db.connection() as conn:
        for table in ("client_grant", "token", "audit", "oauth_client"):
            for (row,) in conn.fetch_all(f"SELECT t::text FROM {table} t"):
                assert not any(secret in row for secret in secrets), table
                assert not any(re.search(re.escape(secret.encode().hex()), row) for secret in secrets), table


def test_no_secret_is_logged(ada: Browser, stranger: Browser, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        code = read_answer(consent(ada))["code"]
        first = exchange(stranger, code).get_json()
        second = refresh(stranger, first["refresh_token"]).get_json()
        refresh(stranger, first["refresh_token"])
        # The replay is refused.
        exchange(stranger, code)
    logged = caplog.text + "".join(str(vars(record)) for record in caplog.records)
    assert "/oauth/" in logged
    for secret in (code, VERIFIER, *first.values(), *second.values()):
        if isinstance(secret, str) and secret != "Bearer":
            assert secret not in logged


def test_the_redirect_uri_may_have_any_port_on_this_machine_only(ada: Browser) -> None:
    assert ada.get(authorization_path(redirect_uri=REDIRECT_URI.replace("49152", "1"))).status_code == 200
    assert ada.get(authorization_path(redirect_uri="http://127.0.0.1/callback")).status_code == 200
