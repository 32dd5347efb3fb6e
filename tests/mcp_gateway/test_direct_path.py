"""Direct calls and the SDK give the same responses to the same requests, valid and invalid, in every version."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mcp.server.lowlevel import Server

from bus.db import Database
from mcp_gateway.content_negotiation import parse_accept
from mcp_gateway.direct_call import DirectCallCodec
from mcp_gateway.tools import all_tools
from tests.concurrency import wait_until
from tests.factories import make_agent, make_owner, make_project
from tests.mcp_gateway.mcp_client import ACCEPT, MODERN, McpClient, McpResponse
from tests.mcp_gateway.processes import running_gateways
from tests.mcp_gateway.test_bad_input import hostile_arguments, required_arguments

_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
_SECRET = re.compile(r"lbus_\w+|inv_\w+")
_REMAINING_SECONDS = re.compile(r"(\\?\"expires_in_seconds\\?\":)\d+")
# Each gateway flushes surfaced posts within two seconds, at its own time.
_SESSIONS = re.compile(r'(\\?"sessions\\?":\[)([^\]]*)(\])')
_DELIVERY_COUNTS = re.compile(r"(\\?\"deliveries\\?\":\{\\?\"queued\\?\":)\d+(,\\?\"surfaced\\?\":)\d+")


@dataclass
class Pair:
    """The same team in two projects: one on a gateway with direct calls, one on a gateway with the SDK only."""

    direct: McpClient
    sdk: McpClient

    def send(self, body: Any, headers: list[tuple[str, str]]) -> tuple[Any, Any]:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        return tuple(
            _comparable(client.send(content, [*headers, ("Authorization", f"Bearer {client.token}")]))
            for client in (self.direct, self.sdk)
        )

    def assert_alike(self, tool: str, body: Any, headers: list[tuple[str, str]]) -> None:
        """Require the same response from both."""
        direct, sdk = self.send(body, headers)
        if tool == "who_is_active" and direct != sdk:
            # Each gateway writes what it has seen of sessions within two seconds, at its own time.
            wait_until(lambda: len({str(response) for response in self.send(body, headers)}) == 1)
        else:
            assert direct == sdk, (tool, body)


@pytest.fixture(scope="module")
def pair(shared_database_url: str) -> Iterator[Pair]:
    db = Database(shared_database_url, pool_size=1)
    with db.transaction() as conn:
        owner = make_owner(conn)
        tokens = []
        for name in ("project-direct", "project-sdk"):
            project = make_project(conn, name, owner)
            tokens.append(make_agent(conn, project, "alice", is_admin=True).token)
            make_agent(conn, project, "bob", lane="web")
    db.close()
    with (
        running_gateways(shared_database_url) as (direct,),
        running_gateways(shared_database_url, GATEWAY_FAST_PATH="0") as (sdk,),
    ):
        clients = Pair(McpClient(direct.url, tokens[0]), McpClient(sdk.url, tokens[1]))
        yield clients
        clients.direct.close()
        clients.sdk.close()


def _comparable(response: McpResponse) -> Any:
    """Status, headers and body, without the values that depend on the time and the project."""
    headers = {
        name: value
        for name, value in response.headers.items()
        if name not in ("date", "content-length", "x-request-id")
    }
    body = _REMAINING_SECONDS.sub(r"\g<1>0", _SECRET.sub("S", _TIME.sub("T", response.body)))
    body = _DELIVERY_COUNTS.sub(r"\g<1>0\g<2>0", body)
    body = _SESSIONS.sub(_sort_sessions, body.replace("project-direct", "project-sdk"))
    try:
        document: Any = json.loads(body)
    except ValueError:
        # A stream; the framing of its event is compared too.
        frame, _, data = body.partition("data: ")
        document = (frame, json.loads(data), data.endswith("\r\n\r\n")) if data else body
    return response.status, headers, document


def _sort_sessions(match: re.Match[str]) -> str:
    # They are listed by the time of their last call, which the two gateways record at different moments.
    sessions = sorted(re.findall(r"\{[^}]*\}", match[2]))
    return match[1] + ",".join(sessions) + match[3]


def _headers(version: str | None, tool: str) -> list[tuple[str, str]]:
    sent = [("Accept", ACCEPT), ("Content-Type", "application/json")]
    if version == MODERN:
        return [*sent, ("MCP-Protocol-Version", version), ("Mcp-Method", "tools/call"), ("Mcp-Name", tool)]
    return sent if version is None else [*sent, ("MCP-Protocol-Version", version)]


def _body(version: str | None, tool: str, arguments: Any) -> dict[str, Any]:
    params: dict[str, Any] = {"name": tool, "arguments": arguments}
    if version == MODERN:
        params["_meta"] = {
            "io.modelcontextprotocol/protocolVersion": MODERN,
            "io.modelcontextprotocol/clientCapabilities": {},
            "io.modelcontextprotocol/clientInfo": {"name": "test", "version": "1"},
        }
    return {"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": params}


_VERSIONS = [MODERN, None, "2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"]
_ACCEPTS = [
    "*/*",
    "",
    ACCEPT,
    ACCEPT.upper(),
    "text/event-stream, application/json",
    "application/json",
    "Application/JSON;charset=utf-8",
    "text/event-stream",
    "TEXT/*",
    "application/json;q=1, text/*",
    "application/json;q=0.9, text/event-stream;q=0.1",
    "application/json;q=0.1, text/event-stream",
    "application/json;q=0, text/event-stream",
    "text/html",
    "*/*;q=0",
]
_CONTENT_TYPES = [
    "application/json",
    "application/json; charset=utf-8",
    'APPLICATION/JSON;Charset="UTF-8"',
    "application/json; charset=latin-1",
    "application/json-rpc",
    "text/plain",
    "application/jsonx",
    "",
]
# A day's work in an order that reaches most kinds of results; both projects run it.
_WORKDAY: list[tuple[str, dict[str, Any]]] = [
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


@pytest.mark.parametrize("version", _VERSIONS)
def test_a_days_work_gets_identical_responses(pair: Pair, version: str | None) -> None:
    for tool, arguments in _WORKDAY:
        body, headers = _body(version, tool, arguments), _headers(version, tool)
        if tool == "who_is_active":
            # Each process records within two seconds which sessions the tests before this one used.
            wait_until(lambda: len({str(answer) for answer in pair.send(body, headers)}) == 1)  # noqa: B023
        direct, sdk = pair.send(body, headers)
        assert direct == sdk, (tool, arguments)


@pytest.mark.parametrize("version", [MODERN, "2025-06-18"])
def test_a_day_of_two_sessions_gets_identical_responses(pair: Pair, version: str) -> None:
    # Labels differ in length only if the keys differ between the two projects.
    by_header = [("X-Bus-Session", f"session-{version}")]
    by_meta = {"llm-bus/session": f"other-{version}"}
    for tool, arguments in [*_WORKDAY, ("lease", {"surface": "src/a.py"}), ("whats_new", {})]:
        pair.assert_alike(tool, _body(version, tool, arguments), [*_headers(version, tool), *by_header])
        body = _body(version, tool, arguments)
        body["params"]["_meta"] = {**body["params"].get("_meta", {}), **by_meta}
        pair.assert_alike(tool, body, _headers(version, tool))


@pytest.mark.parametrize("version", [MODERN, None])
def test_long_answers_are_identical(pair: Pair, version: str | None) -> None:
    for number in range(25):
        body = _body(version, "post", {"to_actor": "alice", "body": f'"{number}" é\n' * 60, "subject": "\\ 😀"})
        pair.send(body, _headers(version, "post"))
    for tool, arguments in (
        ("read_posts", {"to_me": True, "unacked_only": True}),
        ("read_posts", {"to_me": True, "whole": True}),
        ("read_posts", {"post_ids": [1, 2]}),
        ("whats_new", {"advance_cursor": False}),
        ("query_events", {"type": "post"}),
    ):
        direct, sdk = pair.send(_body(version, tool, arguments), _headers(version, tool))
        assert direct == sdk, (tool, arguments)


@pytest.mark.parametrize("accept", [ACCEPT, "text/event-stream"])
@pytest.mark.parametrize("version", [MODERN, None])
def test_no_character_within_an_event_ends_a_line(pair: Pair, version: str | None, accept: str) -> None:
    """Clients in Python split a stream by splitlines(), which knows more line ends than the format of streams."""
    text = "a\u0085b\u2028c\u2029d é…"
    for client in (pair.direct, pair.sdk):
        post = client.call("post", to_actor="alice", body=text, subject="lines").structured_content
        headers = [
            *_headers(version, "read_posts")[1:],
            ("Accept", accept),
            ("Authorization", f"Bearer {client.token}"),
        ]
        body = _body(version, "read_posts", {"post_ids": [post["post_id"]]})
        response = client.send(json.dumps(body).encode(), headers)
        if response.headers["content-type"].startswith("text/event-stream"):
            (data,) = [line for line in response.body.splitlines() if line.startswith("data:")]
            assert json.loads(data[5:]) == response.message
        else:
            assert (version, accept) == (MODERN, ACCEPT)
        assert response.structured_content["posts"][0]["body"] == text


@pytest.mark.parametrize("tool", all_tools().values(), ids=lambda tool: tool.name)
def test_hostile_arguments_get_identical_responses(pair: Pair, tool: Any) -> None:
    # Tools share the kinds of arguments, so each begins with another value.
    first = list(all_tools()).index(tool.name) % 4
    _assert_hostile_arguments_are_answered_alike(pair, tool, list(hostile_arguments(tool))[first::4], MODERN)


@pytest.mark.exhaustive
@pytest.mark.parametrize("version", [MODERN, None])
@pytest.mark.parametrize("tool", all_tools().values(), ids=lambda tool: tool.name)
def test_all_hostile_arguments_get_identical_responses(pair: Pair, tool: Any, version: str | None) -> None:
    _assert_hostile_arguments_are_answered_alike(pair, tool, list(hostile_arguments(tool)), version)


def _assert_hostile_arguments_are_answered_alike(
    pair: Pair, tool: Any, values: list[dict[str, Any]], version: str | None
) -> None:
    for hostile in values:
        arguments = {**required_arguments(tool), **hostile}
        direct, sdk = pair.send(_body(version, tool.name, arguments), _headers(version, tool.name))
        assert direct == sdk, (tool.name, hostile)


def _unusual(version: str | None) -> Iterator[tuple[Any, list[tuple[str, str]]]]:
    """Requests that differ from the usual form in one point."""
    headers = _headers(version, "whoami")
    body = _body(version, "whoami", {})
    yield body, headers
    ids: tuple[Any, ...] = (0, -1, "", "a\u00e9", 2**53, 2**64, 1.5, True, None, [], {})
    for id_ in ids:
        yield {**body, "id": id_}, headers
    changes: tuple[dict[str, Any], ...] = (
        {"jsonrpc": "1.0"},
        {"method": "tools/Call"},
        {"method": "ping"},
        {"extra": 1},
        {"params": []},
    )
    for change in changes:
        yield {**body, **change}, headers
    for name in ("nope", "", 7, None, "WHOAMI"):
        yield {**body, "params": {**body["params"], "name": name}}, headers
    for arguments in (None, [], "", "{}", "x", "[1]", 7, True, ["x"], {"a": 2**70}, {"a": 1e300}):
        yield {**body, "params": {**body["params"], "arguments": arguments}}, headers
    yield {**body, "params": {**body["params"], "task": {"ttl": 1}}}, headers
    metas: tuple[Any, ...] = (
        None,
        [],
        {},
        {"progressToken": 1},
        {"progressToken": []},
        {"io.modelcontextprotocol/x": 1},
    )
    for meta in metas:
        yield {**body, "params": {**body["params"], "_meta": meta}}, headers
    known = body["params"].get("_meta", {})
    for key in known:
        values: tuple[Any, ...] = (None, 7, "2099-01-01", [], {"roots": 7})
        for value in values:
            yield {**body, "params": {**body["params"], "_meta": {**known, key: value}}}, headers
        yield {**body, "params": {**body["params"], "_meta": {k: v for k, v in known.items() if k != key}}}, headers
    for accept in _ACCEPTS:
        yield body, [("Accept", accept), *headers[1:]]
    for kind in _CONTENT_TYPES:
        yield body, [headers[0], ("Content-Type", kind), *headers[2:]]
    for name, value in headers:
        yield body, [*headers, (name, value)]
        yield body, [(n, v) for n, v in headers if n != name]
    for value in ("1999-01-01", MODERN, "2025-06-18", ""):
        yield body, [*[(n, v) for n, v in headers if n != "MCP-Protocol-Version"], ("MCP-Protocol-Version", value)]
    yield body, [*headers, ("Mcp-Param-Sequence", "adr")]
    yield body, [*headers, ("Mcp-Session-Id", "abc")]
    for key in ("s1", "s1/a2", "x" * 128, "x" * 129, "", "a b", "\x7f"):
        yield body, [*headers, ("X-Bus-Session", key)]
    for meta in (
        {"llm-bus/session": "s1"},
        {"llm-bus/session": "a b"},
        {"llm-bus/session": 7},
        {"x-codex-turn-metadata": {"session_id": "s1"}},
        {"x-codex-turn-metadata": {"session_id": ["s1"]}},
        {"x-codex-turn-metadata": '{"session_id": "s1"}'},
        {"x-codex-turn-metadata": "{"},
        {"x-codex-turn-metadata": {}, "llm-bus/session": "s2"},
    ):
        with_meta = {**body, "params": {**body["params"], "_meta": {**known, **meta}}}
        yield with_meta, headers
        yield with_meta, [*headers, ("X-Bus-Session", "s9")]
    text = json.dumps(body)
    for content in (text + " ", "\ufeff" + text, text[:-1], text.replace("whoami", "whoam\\u0069"), f"[{text}]"):
        yield content.encode(), headers
    yield text.replace('"id": 7', '"id": 7, "id": 8').encode(), headers
    yield text.replace('"arguments": {}', '"arguments": {"a": NaN}').encode(), headers
    yield text.replace('"arguments": {}', '"arguments": {"\\ud800": 1}').encode(), headers
    yield text.encode("utf-16"), headers
    yield {k: v for k, v in body.items() if k != "id"}, headers


@pytest.mark.parametrize("version", _VERSIONS)
def test_unusual_requests_get_identical_responses(pair: Pair, version: str | None) -> None:
    for body, headers in _unusual(version):
        direct, sdk = pair.send(body, headers)
        assert direct == sdk, (body, headers)


_JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**54), 2**54)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8)
    | st.sampled_from(["600", "true", "null", "[1,2]", "1,2", "1.0", "src/a.py:10", "a.py b.py", '"7"', " 7 "]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=2),
    max_leaves=4,
)


@st.composite
def _requests(draw: st.DrawFn) -> tuple[bytes, list[tuple[str, str]]]:
    """A call whose arguments, envelope and headers are spelled as clients and models spell them."""
    version = draw(st.sampled_from(_VERSIONS))
    tool = draw(st.sampled_from([tool for tool in all_tools().values() if not tool.is_long_poll]))
    arguments: Any = required_arguments(tool)
    for argument in draw(st.lists(st.sampled_from(tool.arguments), max_size=3) if tool.arguments else st.just([])):
        value = draw(_JSON_VALUES)
        arguments[argument.name] = draw(st.sampled_from([value, str(value), json.dumps(value)]))
    arguments = draw(st.sampled_from([arguments, json.dumps(arguments), json.dumps(json.dumps(arguments)), [], None]))
    body = _body(version, tool.name, arguments)
    if draw(st.booleans()):
        del body["params"]["arguments"]
    if draw(st.integers(0, 9)) == 0:
        body["params"] = draw(st.sampled_from([None, [], {}, "x", 7]))
    if draw(st.integers(0, 9)) == 0:
        body["id"] = draw(_JSON_VALUES)
    headers = dict(_headers(version, tool.name))
    headers["Accept"] = draw(st.sampled_from(_ACCEPTS))
    headers["Content-Type"] = draw(st.sampled_from(_CONTENT_TYPES))
    if draw(st.integers(0, 4)) == 0:
        headers["MCP-Protocol-Version"] = draw(st.sampled_from(["", "1999-01-01", "draft", MODERN, "2025-06-18"]))
    if draw(st.integers(0, 4)) == 0:
        headers["Origin"] = "http://localhost:5173"
    for name in draw(st.sets(st.sampled_from(["Accept", "Content-Type", "MCP-Protocol-Version"]), max_size=1)):
        headers.pop(name, None)
    return json.dumps(body).encode(), list(headers.items())


@pytest.mark.parametrize("count", [100, pytest.param(2000, marks=pytest.mark.exhaustive)])
def test_generated_requests_get_identical_responses(pair: Pair, count: int) -> None:
    @settings(max_examples=count, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(_requests())
    def compare(request: tuple[bytes, list[tuple[str, str]]]) -> None:
        direct, sdk = pair.send(*request)
        assert direct == sdk

    compare()


def test_usual_spellings_are_answered_directly() -> None:
    """Otherwise the test above would compare the SDK with itself."""
    codec = DirectCallCodec(all_tools(), Server("llm-bus", version="1"))
    for accept in _ACCEPTS:
        headers = [(b"content-type", b"APPLICATION/json; charset=UTF-8"), (b"accept", accept.encode())]
        protocol = codec.parse_headers(headers)
        assert (protocol is None) == (accept in ("text/html", "*/*;q=0")), accept
        if protocol is not None:
            call = codec.parse_call(protocol, json.dumps(_body(None, "ack", {"post_id": "7"})).encode())
            assert call is not None
            assert call.is_json == (parse_accept([accept.encode()]).answer_is_json(False))


def test_a_long_poll_with_progress_is_answered_directly() -> None:
    codec = DirectCallCodec(all_tools(), Server("llm-bus", version="1"))
    for token in ("p", 7):
        body = _body(None, "wait_for", {})
        body["params"]["_meta"] = {"progressToken": token}
        protocol = codec.parse_headers([(b"content-type", b"application/json"), (b"accept", ACCEPT.encode())])
        assert protocol is not None
        call = codec.parse_call(protocol, json.dumps(body).encode())
        assert call is not None
        assert call.progress_token_json == json.dumps(token).encode()


def test_a_usual_call_is_answered_directly() -> None:
    """Otherwise the tests above would compare the SDK with itself."""
    codec = DirectCallCodec(all_tools(), Server("llm-bus", version="1"))
    for version in _VERSIONS:
        for tool, arguments in _WORKDAY:
            headers = [(name.lower().encode(), value.encode()) for name, value in _headers(version, tool)]
            protocol = codec.parse_headers(headers)
            assert protocol is not None, (version, tool)
            call = codec.parse_call(protocol, json.dumps(_body(version, tool, arguments)).encode())
            assert call is not None, (version, tool)
            assert (call.tool.name, call.arguments, call.is_modern) == (tool, arguments, version == MODERN)
