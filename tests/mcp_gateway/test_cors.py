"""Pages of allowed origins may call the gateway from a browser: preflights, and headers on every answer."""

import json
from collections.abc import Callable

import pytest

from mcp_gateway.cors import ALLOWED_REQUEST_HEADERS, EXPOSED_RESPONSE_HEADERS
from tests.mcp_gateway.conftest import Team
from tests.mcp_gateway.mcp_client import McpClient, McpResponse

Connect = Callable[..., McpClient]
_ORIGIN = "http://localhost:5173"


def _preflight(client: McpClient, origin: str, **headers: str) -> McpResponse:
    sent = {"Origin": origin, "Access-Control-Request-Method": "POST"}
    return client.send(b"", {**sent, **{name.replace("_", "-"): value for name, value in headers.items()}}, "OPTIONS")


@pytest.mark.parametrize("origin", [_ORIGIN, "http://127.0.0.1:6274", "http://localhost", "HTTP://LOCALHOST:1"])
def test_a_preflight_of_an_allowed_origin_needs_no_token(connect: Connect, origin: str) -> None:
    requested = "authorization,content-type,mcp-protocol-version,mcp-param-sequence"
    response = _preflight(connect(None), origin, Access_Control_Request_Headers=requested)
    assert (response.status, response.body) == (204, "")
    assert "content-length" not in response.headers
    assert "transfer-encoding" not in response.headers
    assert response.headers["access-control-allow-origin"] == origin
    assert response.headers["access-control-allow-methods"] == "POST"
    allowed = {name.strip().lower() for name in response.headers["access-control-allow-headers"].split(",")}
    assert set(requested.split(",")) <= allowed
    assert {name.strip().lower() for name in ALLOWED_REQUEST_HEADERS.split(",")} <= allowed
    assert response.headers["access-control-max-age"] == "7200"
    assert response.headers["vary"] == "Origin"
    assert "access-control-allow-credentials" not in response.headers


def test_a_preflight_allows_no_other_header(connect: Connect) -> None:
    response = _preflight(connect(None), _ORIGIN, Access_Control_Request_Headers="cookie, x-evil, mcp-param-a b")
    assert response.headers["access-control-allow-headers"] == ALLOWED_REQUEST_HEADERS


def test_a_preflight_for_a_private_network_is_allowed_when_asked_for(connect: Connect) -> None:
    name = "access-control-allow-private-network"
    assert name not in _preflight(connect(None), _ORIGIN).headers
    assert _preflight(connect(None), _ORIGIN, Access_Control_Request_Private_Network="true").headers[name] == "true"


@pytest.mark.parametrize(
    "origin",
    ["https://evil.example", "http://localhost.evil.example", "http://evil.example:5173", "null", "localhost", ""],
)
def test_another_origin_gets_no_cors_header(connect: Connect, team: Team, origin: str) -> None:
    client = connect(team.alice)
    call = json.dumps(client.body("tools/call", {"name": "whoami", "arguments": {}})).encode()
    for response in (
        _preflight(client, origin),
        client.send(call, {**client.headers("tools/call", "whoami"), "Origin": origin}),
    ):
        assert response.status == 403
        assert not [name for name in response.headers if name.startswith("access-control")]


@pytest.mark.parametrize("modern", [True, False], ids=["modern", "legacy"])
def test_every_answer_to_an_allowed_origin_is_readable(connect: Connect, team: Team, modern: bool) -> None:
    client = connect(team.alice, modern=modern)
    call = json.dumps(client.body("tools/call", {"name": "whoami", "arguments": {}})).encode()
    tools = json.dumps(client.body("tools/list", {})).encode()
    wait = json.dumps(client.body("tools/call", {"name": "wait_for", "arguments": {"timeout_seconds": 1}})).encode()
    usual = client.headers("tools/call", "whoami")
    without_token = {name: value for name, value in usual.items() if name != "Authorization"}
    cases = [
        (200, call, usual, "POST"),
        (200, call, {**usual, "Accept": "application/json"}, "POST"),
        (200, call, {**usual, "Accept": "text/event-stream"}, "POST"),
        (200, tools, client.headers("tools/list"), "POST"),
        (200, wait, client.headers("tools/call", "wait_for"), "POST"),
        (400, b"{", usual, "POST"),
        (401, call, without_token, "POST"),
        (405, b"", usual, "GET"),
        (406, call, {**usual, "Accept": "text/html"}, "POST"),
        (413, b"x" * 2_000_000, usual, "POST"),
        (415, call, {**usual, "Content-Type": "text/plain"}, "POST"),
    ]
    for status, content, headers, method in cases:
        response = client.send(content, {**headers, "Origin": _ORIGIN}, method)
        assert response.status == status, response
        assert response.headers["access-control-allow-origin"] == _ORIGIN
        assert response.headers["access-control-expose-headers"] == EXPOSED_RESPONSE_HEADERS
        assert response.headers["vary"] == "Origin"
        assert "x-request-id" in response.headers


def test_a_request_without_an_origin_gets_no_cors_header(connect: Connect, team: Team) -> None:
    client = connect(team.alice)
    for response in (client.call("whoami"), client.send(b"", {"Access-Control-Request-Method": "POST"}, "OPTIONS")):
        assert response.status in (200, 401)
        assert "vary" not in response.headers
        assert not [name for name in response.headers if name.startswith("access-control")]
