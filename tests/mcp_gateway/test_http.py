"""HTTP checks before the protocol: hosts, origins, methods, sizes, tokens and malformed bodies."""

import json
from collections.abc import Callable
from typing import Any

import httpx2
import pytest

from bus import __version__
from bus.db import Database
from bus.rules.token_format import generate_token
from bus.tenancy import owners
from mcp_gateway.tools import all_tools
from tests.assertions import database_checksum
from tests.mcp_gateway.conftest import Team, make_team
from tests.mcp_gateway.mcp_client import McpClient
from tests.mcp_gateway.processes import GatewayProcess, running_gateways

Connect = Callable[..., McpClient]
both_protocols = pytest.mark.parametrize("modern", [True, False], ids=["modern", "legacy"])
# The gateways write the activity of agents of other tests here at any time.
_ACTIVITY_TABLES = {"agent_session", "delivery", "presence", "seen_delivery", "session_post", "token"}


def test_healthz_reports_the_service_and_its_version(gateways: list[GatewayProcess]) -> None:
    base = gateways[0].url.removesuffix("/mcp")
    assert httpx2.get(f"{base}/healthz").json() == {"ok": True, "service": "llm-bus", "version": __version__}
    ready = httpx2.get(f"{base}/readyz")
    assert (ready.status_code, ready.json()["ok"]) == (200, True)


def test_other_paths_are_404(gateways: list[GatewayProcess]) -> None:
    base = gateways[0].url.removesuffix("/mcp")
    # Protected-resource metadata would make clients ignore their configured header.
    for path in (
        "/",
        "/mcp/x",
        "/.well-known/oauth-protected-resource",
        "/.well-known/oauth-protected-resource/mcp",
    ):
        assert httpx2.get(base + path).status_code == 404


@pytest.mark.parametrize("method", ["GET", "DELETE", "PUT", "OPTIONS", "HEAD"])
def test_methods_other_than_post_get_405(connect: Connect, team: Team, method: str) -> None:
    client = connect(team.alice)
    response = client.send(b"", {"Authorization": f"Bearer {team.alice.token}", "Accept": "text/event-stream"}, method)
    assert (response.status, response.headers["allow"]) == (405, "POST")
    for authorization in ({}, {"Authorization": f"Bearer {generate_token()}"}, {"Authorization": "Bearer x"}):
        response = client.send(b"", authorization, method)
        assert (response.status, response.headers["www-authenticate"]) == (401, "Bearer")


def test_an_unknown_host_gets_421_and_an_unknown_origin_403(connect: Connect, team: Team) -> None:
    client = connect(team.alice)
    body = json.dumps(client.body("tools/list", {})).encode()
    headers = client.headers("tools/list")
    assert client.send(body, {**headers, "Host": "evil.example"}).status == 421
    assert client.send(body, {**headers, "Origin": "https://evil.example"}).status == 403
    assert client.send(body, {**headers, "Origin": "http://localhost:5173"}).status == 200


@both_protocols
@pytest.mark.parametrize(
    "authorization",
    [None, "", "Bearer", "Basic YTpi", "Bearer lbus_short", "Bearer not-a-token", "Token lbus_x"],
)
def test_a_missing_or_malformed_token_gets_401(connect: Connect, authorization: str | None, modern: bool) -> None:
    client = connect(None, modern=modern)
    headers = client.headers("tools/call", "whoami")
    if authorization is not None:
        headers["Authorization"] = authorization
    body = json.dumps(client.body("tools/call", {"name": "whoami", "arguments": {}})).encode()
    response = client.send(body, headers)
    assert (response.status, response.headers["www-authenticate"]) == (401, "Bearer")


@both_protocols
def test_a_token_that_was_never_minted_is_refused_for_every_method(connect: Connect, modern: bool) -> None:
    client = connect(None, modern=modern)
    client.token = generate_token()
    methods = ["tools/list", "resources/list", "prompts/list"]
    methods += ["server/discover"] if modern else ["initialize", "ping"]
    for method in methods:
        assert client.request(method).status == 401
    assert client.call("whoami").status == 401


@both_protocols
def test_a_suspended_owner_gets_the_stable_message(
    connect: Connect, team: Team, gateway_db: Database, modern: bool
) -> None:
    client = connect(team.bob, modern=modern)
    assert client.call("whoami").status == 200
    with gateway_db.transaction() as conn:
        owners.suspend(conn, team.owner_id, reason="test", actor="test")
    for response in (client.call("whoami"), client.request("tools/list"), client.request("resources/list")):
        assert response.status == 403
        assert json.loads(response.body) == {"error": "suspended due to non-payment"}


@both_protocols
def test_no_tool_answers_a_suspended_owner(connect: Connect, team: Team, gateway_db: Database, modern: bool) -> None:
    """Whatever its arguments: a new tool is covered as it is registered."""
    client = connect(team.alice, modern=modern)
    assert client.call("whoami").status == 200
    with gateway_db.transaction() as conn:
        owners.suspend(conn, team.owner_id, reason="test", actor="test")
    assert {name: client.call(name).status for name in all_tools()} == dict.fromkeys(all_tools(), 403)


@both_protocols
def test_nothing_else_answers_a_suspended_owner(
    connect: Connect, team: Team, gateway_db: Database, modern: bool
) -> None:
    client = connect(team.alice, modern=modern)
    (resource, *_), (prompt, *_) = (client.request(f"{kind}/list").result[kind] for kind in ("resources", "prompts"))
    with gateway_db.transaction() as conn:
        owners.suspend(conn, team.owner_id, reason="test", actor="test")
        before = database_checksum(conn)
    requests: dict[str, dict[str, Any]] = {
        **{method: {} for method in ("tools/list", "resources/list", "resources/templates/list", "prompts/list")},
        "resources/read": {"uri": resource["uri"]},
        "prompts/get": {"name": prompt["name"]},
        "subscriptions/listen": {},
        **{method: {} for method in (["server/discover"] if modern else ["initialize", "ping"])},
    }
    statuses = {
        method: client.request(method, next(iter(params.values()), None), **params).status
        for method, params in requests.items()
    }
    assert statuses == dict.fromkeys(requests, 403)
    headers = {**client.headers("tools/list"), "X-Bus-Session": "s1"}
    for url in (client.url, f"{client.url}/session"):
        for method in ("GET", "POST", "DELETE"):
            response = client.http_client.request(method, url, content=b"{}", headers=headers)
            assert response.status_code == 403, (method, url, response.text)
    with gateway_db.connection() as conn:
        after = database_checksum(conn)
        (session_count,) = conn.fetch_one(
            "SELECT count(*) FROM agent_session WHERE participation_id = %s", (team.alice.ctx.participation_id,)
        )
    assert {name for name in before if before[name] != after[name]} <= _ACTIVITY_TABLES
    assert session_count == 0


@both_protocols
def test_broken_bodies_get_400_and_change_nothing(connect: Connect, team: Team, modern: bool) -> None:
    client = connect(team.alice, modern=modern)
    headers = client.headers("tools/call", "claim")
    call = client.body("tools/call", {"name": "claim", "arguments": {"sequence": "adr"}})
    for content in (
        b"",
        b"{",
        b"null",
        b"42",
        b'"text"',
        b"\xff\xfe",
        b"[]",
        json.dumps([call, call]).encode(),
        json.dumps({**call, "jsonrpc": "1.0"}).encode(),
        json.dumps({**call, "method": 7}).encode(),
        # Without a valid id the older revisions treat it as a notification, which is accepted and does nothing.
        *([json.dumps({**call, "id": {"a": 1}}).encode()] if modern else []),
        b"[" * 50_000,
    ):
        response = client.send(content, headers)
        assert response.status == 400, (content[:60], response)
        assert "Traceback" not in response.body
    assert client.call("latest_claims").structured_content["sequences"] == []


@both_protocols
def test_a_body_of_two_megabytes_is_too_large(connect: Connect, team: Team, modern: bool) -> None:
    client = connect(team.alice, modern=modern)
    assert client.call("post", to_actor="bob", body="x" * 2_000_000).status == 413
    # The limit also applies without a declared length.
    chunks = (b"x" * 65_536 for _ in range(32))
    response = client.http_client.post(client.url, content=chunks, headers=client.headers("tools/call", "post"))
    assert response.status_code == 413


def test_duplicate_headers_are_refused(connect: Connect, team: Team) -> None:
    client = connect(team.alice)
    body = json.dumps(client.body("tools/call", {"name": "whoami", "arguments": {}})).encode()
    once = list(client.headers("tools/call", "whoami").items())
    twice = [
        ("Authorization", f"Bearer {team.bob.token}"),
        ("Mcp-Method", "tools/call"),
        ("Mcp-Name", "whoami"),
    ]
    for extra in twice:
        assert client.send(body, [*once, extra]).status == 400


@both_protocols
def test_a_client_that_does_not_accept_the_content_type_gets_406(connect: Connect, team: Team, modern: bool) -> None:
    client = connect(team.alice, modern=modern)
    body = json.dumps(client.body("tools/list", {})).encode()
    assert client.send(body, {**client.headers("tools/list"), "Accept": "text/html"}).status == 406


def test_headers_that_disagree_with_the_body_are_refused(connect: Connect, team: Team) -> None:
    client = connect(team.alice)
    body = json.dumps(client.body("tools/call", {"name": "claim", "arguments": {"sequence": "adr"}})).encode()
    assert client.send(body, client.headers("tools/call", "whoami")).status == 400
    assert (
        client.send(body, {**client.headers("tools/call", "claim"), "MCP-Protocol-Version": "2099-01-01"}).status == 400
    )
    assert client.call("latest_claims").structured_content["sequences"] == []


def test_too_many_calls_get_429_with_retry_after(database_url: str) -> None:
    db = Database(database_url, pool_size=1)
    team = make_team(db)
    db.close()
    with running_gateways(database_url, RATE_PER_MINUTE="60") as (process,):
        noisy, quiet = McpClient(process.url, team.alice.token), McpClient(process.url, team.bob.token)
        responses = [noisy.call("whoami") for _ in range(30)]
        limited = [response for response in responses if response.status == 429]
        assert limited
        assert int(limited[0].headers["retry-after"]) >= 1
        assert quiet.call("whoami").status == 200
        noisy.close()
        quiet.close()


def test_a_notification_is_accepted_without_an_answer(connect: Connect, team: Team) -> None:
    client = connect(team.alice, modern=False)
    message = {"jsonrpc": "2.0", "method": "notifications/initialized"}
    assert client.send(json.dumps(message).encode(), client.headers("")).status == 202
