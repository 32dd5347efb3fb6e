"""The fast path and the SDK give the same answer: the same requests through both, good and bad, in both eras."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from bus.db import Database
from mcp_gateway.direct_call import DirectCallCodec
from mcp_gateway.tools import all_tools
from tests.factories import make_agent, make_owner, make_project
from tests.mcp_gateway.mcp_client import ACCEPT, MODERN, McpClient, McpResponse
from tests.mcp_gateway.processes import running_gateways
from tests.mcp_gateway.test_bad_input import _hostile, _required

_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
_SECRET = re.compile(r"lbus_\w+|inv_\w+")
_LEFT = re.compile(r"(\\?\"expires_in_seconds\\?\":)\d+")
# What was shown is written within two seconds, at a moment of each gateway's own.
_SHOWN = re.compile(r"(\\?\"deliveries\\?\":\{\\?\"queued\\?\":)\d+(,\\?\"surfaced\\?\":)\d+")


@dataclass
class Pair:
    """The same team in two projects: one behind the fast path, one behind the SDK alone."""

    fast: McpClient
    slow: McpClient

    def both(self, body: Any, headers: list[tuple[str, str]]) -> tuple[Any, Any]:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        return tuple(
            _comparable(wire.send(content, [*headers, ("Authorization", f"Bearer {wire.token}")]))
            for wire in (self.fast, self.slow)
        )


@pytest.fixture(scope="module")
def pair(shared_database_url: str) -> Iterator[Pair]:
    db = Database(shared_database_url, pool_size=1)
    with db.transaction() as conn:
        owner = make_owner(conn)
        tokens = []
        for name in ("project-fast", "project-slow"):
            project = make_project(conn, name, owner)
            tokens.append(make_agent(conn, project, "alice", is_admin=True).token)
            make_agent(conn, project, "bob", lane="web")
    db.close()
    with (
        running_gateways(shared_database_url) as (fast,),
        running_gateways(shared_database_url, GATEWAY_FAST_PATH="0") as (slow,),
    ):
        wires = Pair(McpClient(fast.url, tokens[0]), McpClient(slow.url, tokens[1]))
        yield wires
        wires.fast.close()
        wires.slow.close()


def _comparable(reply: McpResponse) -> Any:
    """Status, headers and body, without what differs between two moments and two projects."""
    headers = {
        name: value for name, value in reply.headers.items() if name not in ("date", "content-length", "x-request-id")
    }
    body = _LEFT.sub(r"\g<1>0", _SECRET.sub("S", _TIME.sub("T", reply.body)))
    body = _SHOWN.sub(r"\g<1>0\g<2>0", body)
    body = body.replace("project-fast", "project-slow")
    try:
        document: Any = json.loads(body)
    except ValueError:
        # A stream: what frames the event belongs to the answer.
        frame, _, data = body.partition("data: ")
        document = (frame, json.loads(data), data.endswith("\r\n\r\n")) if data else body
    return reply.status, headers, document


def _headers(era: str | None, tool: str) -> list[tuple[str, str]]:
    sent = [("Accept", ACCEPT), ("Content-Type", "application/json")]
    if era == MODERN:
        return [*sent, ("MCP-Protocol-Version", era), ("Mcp-Method", "tools/call"), ("Mcp-Name", tool)]
    return sent if era is None else [*sent, ("MCP-Protocol-Version", era)]


def _body(era: str | None, tool: str, arguments: Any) -> dict[str, Any]:
    params: dict[str, Any] = {"name": tool, "arguments": arguments}
    if era == MODERN:
        params["_meta"] = {
            "io.modelcontextprotocol/protocolVersion": MODERN,
            "io.modelcontextprotocol/clientCapabilities": {},
            "io.modelcontextprotocol/clientInfo": {"name": "test", "version": "1"},
        }
    return {"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": params}


_ERAS = [MODERN, None, "2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"]
# A day's work in an order that reaches most answers; both projects go through it alike.
_STORY: list[tuple[str, dict[str, Any]]] = [
    ("whoami", {}),
    ("register", {"lane": "api", "status": "bé😀"}),
    ("seed_sequence", {"sequence": "adr", "current": 41, "prefix": "ADR-", "pad": 4}),
    ("claim", {"sequence": "adr", "note": 'naïve\n\t"quoted" \u2028'}),
    ("claim", {"sequence": "adr", "idempotency_key": "k"}),
    ("claim", {"sequence": "adr", "idempotency_key": "k"}),
    ("claim", {"sequence": "adr", "note": "other", "idempotency_key": "k"}),
    ("lease", {"surface": "./src//api/**", "ttl_seconds": 60, "note": "x"}),
    ("lease", {"surface": "src/api/**"}),
    ("post", {"to_actor": "alice", "body": "to myself", "ref": "PR 1"}),
    ("post", {"to_actor": "bobb", "body": "x"}),
    ("who_holds", {"surface": "src/api/a.py"}),
    ("read_posts", {"to_me": True, "unacked_only": True}),
    ("task_create", {"title": "one"}),
    ("task_create", {"title": "two", "blocked_on": [1], "owner": "bob"}),
    ("task_start", {"task_id": 2}),
    ("task_next", {}),
    ("task_ship", {"task_id": 1, "ref": "PR 2"}),
    ("list_tasks", {"ready": True}),
    ("latest_claims", {}),
    ("list_sequences", {}),
    ("list_participants", {}),
    ("who_is_active", {"within_seconds": 86400}),
    ("query_events", {"sequence": "adr", "number": 42}),
    ("whats_new", {"since": 0, "limit": 500}),
    ("release", {"surface": "*"}),
    ("admin_provision", {"participant_name": "bob"}),
    ("create_invite", {"ttl_hours": 1}),
]


@pytest.mark.parametrize("era", _ERAS)
def test_a_days_work_is_answered_alike(pair: Pair, era: str | None) -> None:
    for tool, arguments in _STORY:
        fast, slow = pair.both(_body(era, tool, arguments), _headers(era, tool))
        assert fast == slow, (tool, arguments)


@pytest.mark.parametrize("era", [MODERN, None])
@pytest.mark.parametrize("tool", all_tools().values(), ids=lambda tool: tool.name)
def test_hostile_arguments_are_answered_alike(pair: Pair, tool: Any, era: str | None) -> None:
    for hostile in _hostile(tool):
        arguments = {**_required(tool), **hostile}
        fast, slow = pair.both(_body(era, tool.name, arguments), _headers(era, tool.name))
        assert fast == slow, (tool.name, hostile)


def _unusual(era: str | None) -> Iterator[tuple[Any, list[tuple[str, str]]]]:
    """Requests that differ from a usual one in one thing."""
    headers = _headers(era, "whoami")
    body = _body(era, "whoami", {})
    yield body, headers
    for id_ in (0, -1, "", "a\u00e9", 2**53, 2**64, 1.5, True, None, [], {}):
        yield {**body, "id": id_}, headers
    for change in ({"jsonrpc": "1.0"}, {"method": "tools/Call"}, {"method": "ping"}, {"extra": 1}, {"params": []}):
        yield {**body, **change}, headers
    for name in ("nope", "", 7, None, "WHOAMI"):
        yield {**body, "params": {**body["params"], "name": name}}, headers
    for arguments in (None, [], "x", 7, {"a": 2**70}, {"a": 1e300}):
        yield {**body, "params": {**body["params"], "arguments": arguments}}, headers
    yield {**body, "params": {**body["params"], "task": {"ttl": 1}}}, headers
    for meta in (None, [], {}, {"progressToken": 1}, {"progressToken": []}, {"io.modelcontextprotocol/x": 1}):
        yield {**body, "params": {**body["params"], "_meta": meta}}, headers
    known = body["params"].get("_meta", {})
    for key in known:
        for value in (None, 7, "2099-01-01", [], {"roots": 7}):
            yield {**body, "params": {**body["params"], "_meta": {**known, key: value}}}, headers
        yield {**body, "params": {**body["params"], "_meta": {k: v for k, v in known.items() if k != key}}}, headers
    for accept in ("*/*", "application/json", "text/event-stream", "application/json;q=1, text/*", "text/html", ""):
        yield body, [("Accept", accept), *headers[1:]]
    for kind in ("application/json; charset=utf-8", "APPLICATION/JSON", "text/plain", "application/jsonx", ""):
        yield body, [headers[0], ("Content-Type", kind), *headers[2:]]
    for name, value in headers:
        yield body, [*headers, (name, value)]
        yield body, [(n, v) for n, v in headers if n != name]
    for value in ("1999-01-01", MODERN, "2025-06-18", ""):
        yield body, [*[(n, v) for n, v in headers if n != "MCP-Protocol-Version"], ("MCP-Protocol-Version", value)]
    yield body, [*headers, ("Mcp-Param-Sequence", "adr")]
    yield body, [*headers, ("Mcp-Session-Id", "abc")]
    text = json.dumps(body)
    for content in (text + " ", "\ufeff" + text, text[:-1], text.replace("whoami", "whoam\\u0069"), f"[{text}]"):
        yield content.encode(), headers
    yield text.replace('"id": 7', '"id": 7, "id": 8').encode(), headers
    yield text.replace('"arguments": {}', '"arguments": {"a": NaN}').encode(), headers
    yield text.replace('"arguments": {}', '"arguments": {"\\ud800": 1}').encode(), headers
    yield text.encode("utf-16"), headers
    yield {k: v for k, v in body.items() if k != "id"}, headers


@pytest.mark.parametrize("era", _ERAS)
def test_unusual_requests_are_answered_alike(pair: Pair, era: str | None) -> None:
    for body, headers in _unusual(era):
        fast, slow = pair.both(body, headers)
        assert fast == slow, (body, headers)


def test_a_usual_call_takes_the_fast_path() -> None:
    """Else the tests above would compare the SDK with itself."""
    from mcp.server.lowlevel import Server

    path = DirectCallCodec(all_tools(), Server("llm-bus", version="1"))
    for era in _ERAS:
        for tool, arguments in _STORY:
            headers = [(name.lower().encode(), value.encode()) for name, value in _headers(era, tool)]
            spoken = path.parse_headers(headers)
            assert spoken is not None, (era, tool)
            call = path.parse_call(spoken, json.dumps(_body(era, tool, arguments)).encode())
            assert call is not None, (era, tool)
            assert (call.tool.name, call.arguments, call.is_modern) == (tool, arguments, era == MODERN)
