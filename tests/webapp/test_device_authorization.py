"""Device authorizations (RFC 8628): what a machine without a browser gets, and what those get who try to take it."""

from collections.abc import Callable
from typing import Any

import pytest
from authlib.oauth2.rfc8628 import DEVICE_CODE_GRANT_TYPE

from bus.db import Connection, Database
from bus.operations import retention
from bus.rules import token_format
from bus.rules.token_format import access_token_fingerprint
from bus.tenancy import client_consent, device_authorizations, oauth_clients, tokens
from tests.concurrency import run_numbered_concurrently
from tests.factories import make_agent, make_project
from tests.webapp.oauth_requests import (
    CLIENT_ID,
    RESOURCE,
    VERIFIER,
    authorization_path,
    consent,
    read_answer,
    refresh,
    request_token,
    store_client,
)
from tests.webapp.sample_data import SampleData
from tests.webapp.web_client import BASE_URL, Browser, WebApp

DEVICE_CLIENT = "https://device.example/oauth/client.json"


@pytest.fixture(autouse=True)
def _clients(db: Database) -> None:
    store_client(db)
    with db.transaction() as conn:
        oauth_clients.store_document(
            conn,
            DEVICE_CLIENT,
            "Build Machine",
            [],
            ttl=oauth_clients.REGISTRATION_TTL,
            uses_device_codes=True,
        )


def _begin(browser: Browser, **changed: str) -> dict[str, Any]:
    answer = browser.post("/oauth/device_authorization", data={"client_id": DEVICE_CLIENT, **changed})
    assert answer.status_code == 200, answer.text
    assert answer.headers["Cache-Control"] == "no-store"
    begun: dict[str, Any] = answer.get_json()
    return begun


def _path(begun: dict[str, Any]) -> str:
    return f"/oauth/device?user_code={begun['user_code']}"


def _poll(browser: Browser, begun: dict[str, Any], **changed: str | None) -> dict[str, Any]:
    fields = {"grant_type": DEVICE_CODE_GRANT_TYPE, "device_code": begun["device_code"], "client_id": DEVICE_CLIENT}
    answer = request_token(browser, **{**fields, **changed})
    assert answer.status_code == (200 if "access_token" in answer.get_json() else 400), answer.text
    polled: dict[str, Any] = answer.get_json()
    return polled


def _error(browser: Browser, begun: dict[str, Any], **changed: str | None) -> str:
    return str(_poll(browser, begun, **changed)["error"])


def _pass_time(db: Database, column: str = "polled_at", seconds: int = 3600) -> None:
    with db.transaction() as conn:
        conn.execute(
            f"UPDATE device_authorization SET {column} = {column} - make_interval(secs => %s)",
            (seconds,),
        )


def _actor(db: Database, access_token: str) -> str | None:
    with db.connection() as conn:
        ctx = tokens.find_caller(conn, access_token_fingerprint(access_token, RESOURCE))
        return None if ctx is None else conn.fetch_one("SELECT bus_participation_name(%s)", (ctx.participation_id,))[0]


def _connection_count(db: Database) -> int:
    with db.connection() as conn:
        (count,) = conn.fetch_one("SELECT count(*) FROM client_grant WHERE client_id = %s", (DEVICE_CLIENT,))
    return int(count)


def test_a_machine_without_a_browser_connects(
    ada: Browser, stranger: Browser, db: Database, sample: SampleData
) -> None:
    begun = _begin(stranger, scope="bus:read bus:write", resource=RESOURCE)
    assert begun["verification_uri"] == f"{BASE_URL}/oauth/device"
    assert begun["verification_uri_complete"] == f"{BASE_URL}{_path(begun)}"
    assert (begun["interval"], begun["expires_in"]) == (5, 600)
    assert _error(stranger, begun) == "authorization_pending"
    assert _error(stranger, begun) == "slow_down"
    page = ada.get("/oauth/device")
    assert "Code" in page.text
    # As a person types it.
    typed = begun["user_code"].lower().replace("-", " ")
    page = ada.get("/oauth/device", query_string={"user_code": typed})
    assert page.headers["Cache-Control"] == "no-store"
    for shown in ("Build Machine", "device.example", begun["user_code"], "If another person sent you the code"):
        assert shown in page.text
    assert 'value="admin"' not in page.text
    decided = consent(ada, _path(begun), target=f"new-{sample.full_project.id}")
    assert (decided.status_code, "is connected" in decided.text) == (200, True), decided.text
    _pass_time(db)
    issued = _poll(stranger, begun)
    assert issued["scope"] == "bus:read bus:write"
    assert _actor(db, issued["access_token"]) == "ada/build-machine"
    rotated = refresh(stranger, issued["refresh_token"], client_id=DEVICE_CLIENT).get_json()
    assert _actor(db, rotated["access_token"]) == "ada/build-machine"
    assert "Build Machine" in ada.get("/account/").text.partition('id="clients"')[2]


def test_a_denial_and_the_end_of_time_reach_the_machine(ada: Browser, stranger: Browser, db: Database) -> None:
    denied, late = _begin(stranger), _begin(stranger)
    page = consent(ada, _path(denied), decision="deny")
    assert "Build Machine got no access." in page.text
    assert _error(stranger, denied) == "access_denied"
    _pass_time(db, "expires_at")
    assert _error(stranger, late) == "expired_token"
    assert ada.get(_path(late)).status_code == 404
    with db.transaction() as conn:
        conn.execute("UPDATE device_authorization SET expires_at = clock_timestamp() - interval '2 hours'")
        assert retention.prune_batch(conn, "device_codes") == 2
    assert _error(stranger, late) == "invalid_grant"
    assert _connection_count(db) == 0


def test_who_polls_too_often_has_to_wait_longer_each_time(stranger: Browser, db: Database) -> None:
    begun = _begin(stranger)
    assert _error(stranger, begun) == "authorization_pending"
    for interval in (10, 15, 20):
        assert _error(stranger, begun) == "slow_down"
        with db.connection() as conn:
            assert conn.fetch_one("SELECT interval_seconds FROM device_authorization") == (interval,)
    _pass_time(db, seconds=19)
    assert _error(stranger, begun) == "slow_down"
    _pass_time(db, seconds=26)
    assert _error(stranger, begun) == "authorization_pending"


def test_a_code_works_once_and_its_replay_revokes_what_it_gave(ada: Browser, stranger: Browser, db: Database) -> None:
    begun = _begin(stranger)
    consent(ada, _path(begun))
    issued = _poll(stranger, begun)
    assert _error(stranger, begun) == "invalid_grant"
    assert refresh(stranger, issued["refresh_token"], client_id=DEVICE_CLIENT).get_json()["error"] == "invalid_grant"
    # The other code is used up as well.
    assert ada.get(_path(begun)).status_code == 404
    assert _connection_count(db) == 1


def test_the_code_of_another_client_is_of_no_use(ada: Browser, stranger: Browser, db: Database) -> None:
    begun = _begin(stranger)
    assert _error(stranger, begun, client_id=CLIENT_ID) == "unauthorized_client"
    consent(ada, _path(begun))
    assert _error(stranger, begun, client_id=CLIENT_ID) == "unauthorized_client"
    assert _error(stranger, begun, client_id="client-unknown") == "unauthorized_client"
    # It was not used up by that.
    assert "access_token" in _poll(stranger, begun)


def test_a_device_code_is_no_authorization_code_and_the_other_way_round(
    ada: Browser, stranger: Browser, db: Database
) -> None:
    begun = _begin(stranger)
    consent(ada, _path(begun))
    for verifier in (None, VERIFIER, ""):
        answer = request_token(
            stranger,
            grant_type="authorization_code",
            code=begun["device_code"],
            client_id=DEVICE_CLIENT,
            redirect_uri="",
            code_verifier=verifier,
        )
        assert answer.get_json()["error"] in ("invalid_grant", "invalid_request"), answer.text
    assert "access_token" in _poll(stranger, begun)
    code = read_answer(consent(ada, authorization_path()))["code"]
    assert _error(stranger, {"device_code": code}, client_id=CLIENT_ID) == "invalid_grant"
    # A client without redirect URIs cannot send a person anywhere.
    assert ada.get(authorization_path(client_id=DEVICE_CLIENT)).status_code == 400


def test_guessing_codes_leads_nowhere(ada: Browser, stranger: Browser, db: Database) -> None:
    begun = _begin(stranger)
    for guess in ("", "x", begun["device_code"][:-1], begun["user_code"], "A" * 5000, "é\0"):
        assert _error(stranger, {"device_code": guess}) in ("invalid_grant", "invalid_request")
    statuses = [ada.get(f"/oauth/device?user_code=BBBB-BBB{letter}").status_code for letter in "BCDFGHJKLMNP"]
    assert statuses == [404] * 10 + [429] * 2
    # Also the right code, until the minute is over.
    assert ada.get(_path(begun)).status_code == 429
    assert _connection_count(db) == 0


def test_malformed_user_codes_are_answered_like_unknown_ones(ada: Browser, db: Database) -> None:
    for typed in ("1234-5678", "BBBBBBBB BBBB", "AEIO-UAEI", "é", "<script>alert(1)</script>"):
        page = ada.get("/oauth/device", query_string={"user_code": typed})
        assert page.status_code == 404
        assert "No machine waits with this code." in page.text
        assert "<script>alert" not in page.text


def test_a_visitor_signs_in_first_and_a_forged_post_is_refused(
    ada: Browser, stranger: Browser, db: Database, sample: SampleData
) -> None:
    begun = _begin(stranger)
    assert stranger.get(_path(begun)).location.startswith("/sign-in?next=/oauth/device")
    forged = ada.post(_path(begun), data={"decision": "allow", "target": f"new-{sample.full_project.id}", "name": "x"})
    assert forged.status_code == 400
    page = ada.get(_path(begun))
    assert "frame-ancestors 'none'" in page.headers["Content-Security-Policy"]
    assert _error(stranger, begun) == "authorization_pending"


def test_a_participant_of_another_owner_cannot_be_chosen(ada: Browser, stranger: Browser, db: Database) -> None:
    with db.transaction() as conn:
        foreign = make_agent(conn, make_project(conn)).ctx.participation_id
    begun = _begin(stranger)
    refused = consent(ada, _path(begun), target=str(foreign))
    assert refused.status_code == 400
    assert _connection_count(db) == 0
    # The scope that was asked for limits what can be chosen.
    limited = _begin(stranger, scope="bus:read")
    assert consent(ada, _path(limited), scope="write").status_code == 400
    assert _error(stranger, limited) == "authorization_pending"


def test_what_may_not_begin(stranger: Browser, make_web: Callable[..., WebApp], db: Database) -> None:
    def error(**fields: str) -> str:
        answer = stranger.post("/oauth/device_authorization", data=fields)
        assert answer.status_code == 400, answer.text
        return str(answer.get_json()["error"])

    # Its document does not list the grant type.
    assert error(client_id=CLIENT_ID) == "unauthorized_client"
    assert error(client_id="client-unknown") == "invalid_client"
    assert error() == "invalid_client"
    assert error(client_id=DEVICE_CLIENT, resource="https://other.example/mcp") == "invalid_target"
    assert error(client_id=DEVICE_CLIENT, scope="x" * 1001) == "invalid_scope"
    begun = _begin(stranger)
    assert _error(stranger, begun, resource="https://other.example/mcp") == "invalid_target"
    off = make_web(OAUTH_SERVER="0").new_browser()
    assert off.post("/oauth/device_authorization", data={"client_id": DEVICE_CLIENT}).status_code == 404


def test_requests_are_limited_for_each_address(stranger: Browser) -> None:
    statuses = [
        stranger.post("/oauth/device_authorization", data={"client_id": DEVICE_CLIENT}).status_code for _ in range(12)
    ]
    assert statuses == [200] * 10 + [429] * 2


def test_a_client_registers_for_device_codes_alone(ada: Browser, stranger: Browser, db: Database) -> None:
    registered = stranger.post(
        "/oauth/register", json={"client_name": "Cron", "grant_types": [DEVICE_CODE_GRANT_TYPE, "refresh_token"]}
    ).get_json()
    assert registered["grant_types"] == [DEVICE_CODE_GRANT_TYPE, "refresh_token"]
    begun = _begin(stranger, client_id=registered["client_id"])
    page = ada.get(_path(begun))
    assert "nothing: it registered itself" in page.text
    consent(ada, _path(begun))
    assert "access_token" in _poll(stranger, begun, client_id=registered["client_id"])
    invalid: list[dict[str, list[str]]] = [
        {"grant_types": [DEVICE_CODE_GRANT_TYPE, "authorization_code"]},
        {"grant_types": ["refresh_token"]},
        {"redirect_uris": []},
    ]
    for refused in invalid:
        assert stranger.post("/oauth/register", json=refused).status_code == 400
    both = stranger.post(
        "/oauth/register",
        json={"redirect_uris": ["http://127.0.0.1/cb"], "grant_types": ["authorization_code", DEVICE_CODE_GRANT_TYPE]},
    ).get_json()
    assert both["grant_types"] == ["authorization_code", DEVICE_CODE_GRANT_TYPE, "refresh_token"]


def test_codes_are_stored_as_hashes(stranger: Browser, db: Database) -> None:
    begun = _begin(stranger)
    with db.connection() as conn:
        (row,) = conn.fetch_one("SELECT to_jsonb(a)::text FROM device_authorization a")
        hashes = conn.fetch_one("SELECT device_sha256, user_code_sha256 FROM device_authorization")
    assert begun["device_code"] not in row
    assert begun["user_code"] not in row
    # The second is short, so it has a slow hash.
    assert tuple(map(bytes, hashes)) == (
        token_format.fingerprint(begun["device_code"]),
        token_format.user_code_fingerprint(begun["user_code"]),
    )


def test_of_two_decisions_at_once_one_counts(stranger: Browser, db: Database, sample: SampleData) -> None:
    begun = _begin(stranger)

    def decide(conn: Connection, number: int) -> bool:
        waiting = device_authorizations.lock_by_user_code(conn, begun["user_code"])
        if waiting is None:
            return False
        request = client_consent.ConsentRequest(
            DEVICE_CLIENT, "Build Machine", None, RESOURCE, None, "read", waiting.device_sha256
        )
        client_consent.connect_new_participant(
            conn, sample.owner.id, sample.full_project.id, f"m-{number}", None, request, ttl=None, actor="test"
        )
        device_authorizations.decide(conn, waiting, allow=True)
        return True

    assert sorted(run_numbered_concurrently(db, 4, decide)) == [False, False, False, True]
    assert _connection_count(db) == 1
