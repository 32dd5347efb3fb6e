"""What mainstream clients send: headers, revisions and parameters in forms that have one meaning are served."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from mcp_types.version import KNOWN_PROTOCOL_VERSIONS

from mcp_gateway.content_negotiation import AcceptedForms, is_json_body, parse_accept
from tests.mcp_gateway.conftest import Team
from tests.mcp_gateway.mcp_client import ACCEPT, MODERN, McpClient, McpResponse

Connect = Callable[..., McpClient]
both_protocols = pytest.mark.parametrize("modern", [True, False], ids=["modern", "legacy"])
_JSON_ONLY = AcceptedForms(json=True, sse=False, prefers_sse=False)
_SSE_ONLY = AcceptedForms(json=False, sse=True, prefers_sse=True)
_JSON_FIRST = AcceptedForms(json=True, sse=True, prefers_sse=False)
_SSE_FIRST = AcceptedForms(json=True, sse=True, prefers_sse=True)
_NEITHER = AcceptedForms(json=False, sse=False, prefers_sse=False)


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        (None, _JSON_FIRST),
        ("", _JSON_FIRST),
        (" , ", _JSON_FIRST),
        ("*/*", _JSON_FIRST),
        ("text/html, */*;q=0.1", _JSON_FIRST),
        ("text/html, image/gif, image/jpeg, *; q=.2, */*; q=.2", _JSON_FIRST),
        ("*", _JSON_FIRST),
        ("text/event-stream;q=.2, application/json;q=.3", _JSON_FIRST),
        ("application/json", _JSON_ONLY),
        ("APPLICATION/Json", _JSON_ONLY),
        ("application/json; charset=utf-8", _JSON_ONLY),
        ("application/*", _JSON_ONLY),
        ("application/json, text/plain", _JSON_ONLY),
        ("application/json, text/event-stream;q=0", _JSON_ONLY),
        ("*/*, text/event-stream;q=0.0", AcceptedForms(json=True, sse=False, prefers_sse=False)),
        ("text/event-stream", _SSE_ONLY),
        ("Text/Event-Stream", _SSE_ONLY),
        ("text/*", _SSE_ONLY),
        ("text/event-stream, application/json;q=0", _SSE_ONLY),
        ("application/json, text/event-stream", _SSE_FIRST),
        ("text/event-stream,application/json", _SSE_FIRST),
        ("application/json;q=0.5, text/event-stream;q=0.9", _SSE_FIRST),
        ("application/json;q=0.9, text/event-stream;q=0.5", _JSON_FIRST),
        ("application/json;q=0.9,text/event-stream;q=0.900", _SSE_FIRST),
        ("application/json;Q=0.2 , text/event-stream", _SSE_FIRST),
        ("application/json, */*;q=0.8", _JSON_FIRST),
        ("text/event-stream, */*;q=0.8", _SSE_FIRST),
        ("application/json;q=high, text/event-stream", _SSE_FIRST),
        ("text/html", _NEITHER),
        ("*/*;q=0", _NEITHER),
        ("application/xml, text/html;q=0.5", _NEITHER),
        ("application", _NEITHER),
    ],
)
def test_the_accept_header_names_the_forms(accept: str | None, expected: AcceptedForms) -> None:
    assert parse_accept([] if accept is None else [accept.encode()]) == expected


def test_several_accept_headers_are_one_list() -> None:
    assert parse_accept([b"application/json", b"text/event-stream"]) == _SSE_FIRST


@pytest.mark.parametrize(
    ("content_type", "body", "expected"),
    [
        (None, b"{}", True),
        ("", b"{}", True),
        ("application/json", b"{}", True),
        ("APPLICATION/JSON", b"{}", True),
        ("application/json;charset=utf-8", "é".encode(), True),
        ('Application/Json ; Charset="UTF-8"', "é".encode(), True),
        ("application/json; charset=utf8", "é".encode(), True),
        ("application/json; charset=us-ascii", b"{}", True),
        ("application/json; charset=iso-8859-1", b"{}", True),
        ("application/json; charset=iso-8859-1", "é".encode("latin-1"), False),
        ("application/json; charset=utf-16", "{}".encode("utf-16-le"), False),
        ("application/json; profile=x", b"{}", True),
        ("application/json-rpc", b"{}", True),
        ("application/vnd.api+json", b"{}", True),
        ("application/jsonx", b"{}", False),
        ("text/plain", b"{}", False),
        ("text/json", b"{}", False),
        ("application/x-www-form-urlencoded", b"{}", False),
        ("multipart/form-data; boundary=x", b"{}", False),
    ],
)
def test_the_content_type_describes_json_in_utf_8(content_type: str | None, body: bytes, expected: bool) -> None:
    assert is_json_body([] if content_type is None else [content_type.encode()], body) is expected


def _send(client: McpClient, message: Any, **headers: str | None) -> McpResponse:
    """Send a message; a header that is None is left out."""
    params = message.get("params") or {}
    name = params.get("name", params.get("uri"))
    usual = client.headers(message["method"], name if isinstance(name, str) else None)
    changed = {name.replace("_", "-"): value for name, value in headers.items()}
    kept = {name: value for name, value in usual.items() if name.lower() not in {key.lower() for key in changed}}
    sent = {**kept, **{name: value for name, value in changed.items() if value is not None}}
    # httpx2 adds Accept: */* where there is none.
    client.http_client.headers.pop("accept", None)
    return client.send(json.dumps(message).encode(), sent)


@both_protocols
@pytest.mark.parametrize(
    ("accept", "legacy_form", "modern_form"),
    [
        (None, "json", "json"),
        ("", "json", "json"),
        ("*/*", "json", "json"),
        ("application/json", "json", "json"),
        ("APPLICATION/JSON", "json", "json"),
        ("text/event-stream", "sse", "sse"),
        ("TEXT/Event-Stream", "sse", "sse"),
        (ACCEPT, "sse", "json"),
        (ACCEPT.upper(), "sse", "json"),
        ("text/event-stream;q=0.1, application/json", "json", "json"),
        ("text/event-stream, application/json;q=0", "sse", "sse"),
    ],
)
def test_answers_have_a_form_that_the_client_accepts(
    connect: Connect, team: Team, modern: bool, accept: str | None, legacy_form: str, modern_form: str
) -> None:
    client = connect(team.alice, modern=modern)
    content_type = {"json": "application/json", "sse": "text/event-stream"}[modern_form if modern else legacy_form]
    requests = [
        client.body("tools/call", {"name": "whoami", "arguments": {}}),
        client.body("tools/call", {"name": "wait_for", "arguments": {"kind": "acks", "timeout_seconds": 1}}),
        client.body("tools/list", {}),
        client.body("resources/read", {"uri": "bus://guide"}),
    ]
    for message in requests:
        response = _send(client, message, Accept=accept)
        assert response.status == 200, response
        assert response.headers["content-type"] == content_type
        assert response.message["id"] == message["id"]
        assert "result" in response.message


@both_protocols
def test_a_client_that_accepts_neither_form_gets_406(connect: Connect, team: Team, modern: bool) -> None:
    client = connect(team.alice, modern=modern)
    for accept in ("text/html", "application/xml", "*/*;q=0"):
        response = _send(client, client.body("tools/list", {}), Accept=accept)
        assert response.status == 406
        assert json.loads(response.body)["message"] == (
            "Answers are application/json or text/event-stream; accept one of them."
        )


def test_a_subscription_needs_a_stream(connect: Connect, team: Team) -> None:
    client = connect(team.alice)
    message = client.body("subscriptions/listen", {"notifications": {"resourceSubscriptions": ["bus://inbox"]}})
    response = _send(client, message, Accept="application/json")
    assert response.status == 406
    assert "text/event-stream" in json.loads(response.body)["message"]


@both_protocols
def test_progress_of_a_long_poll_is_left_out_of_json(connect: Connect, team: Team, modern: bool) -> None:
    client = connect(team.alice, modern=modern)
    message = client.body("tools/call", {"name": "wait_for", "arguments": {"kind": "acks", "timeout_seconds": 1}})
    message["params"].setdefault("_meta", {})["progressToken"] = "p"
    response = _send(client, message, Accept="application/json")
    assert response.headers["content-type"] == "application/json"
    assert response.structured_content == {"timed_out": True}


@both_protocols
def test_bodies_are_json_in_utf_8(connect: Connect, team: Team, modern: bool) -> None:
    client = connect(team.alice, modern=modern)
    message = client.body("tools/call", {"name": "whoami", "arguments": {}})
    for content_type in (None, "APPLICATION/JSON", 'Application/Json; Charset="UTF-8"', "application/json-rpc"):
        assert _send(client, message, Content_Type=content_type).status == 200, content_type
    for content_type in ("text/plain", "application/x-www-form-urlencoded"):
        response = _send(client, message, Content_Type=content_type)
        assert response.status == 415, content_type
        assert json.loads(response.body)["message"] == (
            f"Send JSON in UTF-8 as Content-Type: application/json; {content_type} was sent."
        )


@both_protocols
@pytest.mark.parametrize("params", [None, []])
def test_params_that_are_null_or_empty_are_absent(
    connect: Connect, team: Team, modern: bool, params: list[Any] | None
) -> None:
    client = connect(team.alice, modern=modern)
    for method in ("tools/list", "prompts/list", "resources/list", "ping", "tools/call"):
        absent = {"jsonrpc": "2.0", "id": 1, "method": method}
        expected = _send(client, absent)
        response = _send(client, {**absent, "params": params})
        assert (response.status, response.message) == (expected.status, expected.message)
        if not modern and method != "tools/call":
            assert "result" in response.message
    notification = {"jsonrpc": "2.0", "method": "notifications/initialized", "params": params}
    assert _send(client, notification).status == 202


@pytest.mark.parametrize("version", ["2099-01-01", "1.0", "", "draft", MODERN, "2025-06-18"])
@pytest.mark.parametrize("header", [None, "2099-01-01", "draft", "", MODERN, "2025-06-18"])
def test_initialize_negotiates_every_revision(connect: Connect, team: Team, version: str, header: str | None) -> None:
    client = connect(team.alice, modern=False)
    params = {"protocolVersion": version, "capabilities": {}, "clientInfo": {"name": "x", "version": "1"}}
    response = _send(client, client.body("initialize", params), MCP_Protocol_Version=header)
    expected = version if version == "2025-06-18" else "2025-11-25"
    assert response.result["protocolVersion"] == expected


@pytest.mark.parametrize("version", ["2099-01-01", "1.0", "draft", "x" * 5000, "2025-06-18,2025-11-25"])
@pytest.mark.parametrize("method", ["tools/list", "tools/call", "ping", "no/such"])
def test_an_unknown_revision_gets_the_list_of_those_served(
    connect: Connect, team: Team, version: str, method: str
) -> None:
    client = connect(team.alice, modern=False)
    message = client.body(method, {"name": "whoami", "arguments": {}} if method == "tools/call" else {})
    response = _send(client, message, MCP_Protocol_Version=version)
    error = response.message["error"]
    assert (response.status, response.message["id"], error["code"]) == (400, message["id"], -32022)
    assert error["data"]["supported"] == list(reversed(KNOWN_PROTOCOL_VERSIONS))
    for served in KNOWN_PROTOCOL_VERSIONS:
        assert served in error["message"]
    assert version[:40] in error["message"]


def test_an_unknown_revision_in_header_and_envelope_gets_the_list_too(connect: Connect, team: Team) -> None:
    client = connect(team.alice)
    message = client.body("tools/list", {})
    message["params"]["_meta"]["io.modelcontextprotocol/protocolVersion"] = "2099-01-01"
    response = _send(client, message, MCP_Protocol_Version="2099-01-01")
    assert (response.status, response.message["error"]["code"]) == (400, -32022)
    assert MODERN in response.message["error"]["data"]["supported"]


def test_an_empty_revision_header_is_absent(connect: Connect, team: Team) -> None:
    client = connect(team.alice, modern=False)
    assert _send(client, client.body("tools/list", {}), MCP_Protocol_Version="").status == 200


@both_protocols
@pytest.mark.parametrize(
    ("method", "params", "sentence"),
    [
        ("tools/call", {}, "tools/call needs name: text, a name of the list."),
        ("tools/call", {"name": 7}, "name must be text, a name of the list; the number 7 was sent."),
        ("tools/call", {"name": None}, "name must be text, a name of the list; null was sent."),
        (
            "tools/call",
            {"name": "claim", "arguments": "adr"},
            'arguments must be an object; the text "adr" was sent. claim takes: sequence, note, idempotency_key.',
        ),
        (
            "tools/call",
            {"name": "claim", "arguments": ["adr"]},
            'arguments must be an object; the list ["adr"] was sent. claim takes: sequence, note, idempotency_key.',
        ),
        (
            "tools/call",
            {"name": ["claim"], "arguments": 7},
            'name must be text, a name of the list; the list ["claim"] ',
        ),
        (
            "tools/call",
            {"name": "lese", "arguments": {}},
            "Unknown tool: lese; send a name of tools/list, such as lease",
        ),
        (
            "tools/call",
            {"name": "mcp__llm-bus__claim", "arguments": {}},
            "Unknown tool: mcp__llm-bus__claim; send a name of tools/list, such as claim",
        ),
        ("tools/call", {"name": "whoami", "arguments": {}, "_meta": {"progressToken": []}}, "_meta.progressToken must"),
        (
            "prompts/get",
            {"name": "handoff", "arguments": {"to": 7}},
            "arguments.to must be text; the number 7 was sent.",
        ),
        ("prompts/get", {"name": "handoff"}, "handoff needs to: a lane or a participant."),
        (
            "prompts/get",
            {"name": "handoff", "arguments": {"x": "y"}},
            "handoff takes no argument x; it takes: ref, to.",
        ),
        ("prompts/get", {"name": "hand"}, "Unknown prompt: hand; send a name of prompts/list, such as handoff."),
        ("resources/read", {}, "resources/read needs uri: text, an address of resources/list."),
        ("resources/read", {"uri": 7}, "uri must be text, an address of resources/list; the number 7 was sent."),
        ("resources/read", {"uri": "bus://inbx"}, "such as bus://inbox"),
        ("tools/list", {"cursor": 7}, "cursor must be text; the number 7 was sent."),
        ("tools/list", {"cursor": "x"}, 'the text "x" was sent; this list has one page, leave cursor out.'),
    ],
)
def test_invalid_parameters_are_named_with_what_was_sent_and_what_to_send(
    connect: Connect, team: Team, modern: bool, method: str, params: dict[str, Any], sentence: str
) -> None:
    client = connect(team.alice, modern=modern)
    message = client.body(method, params)
    if "_meta" in params:
        message["params"]["_meta"] = {**message["params"]["_meta"], **params["_meta"]}
    response = _send(client, message)
    error = response.message["error"]
    if modern and isinstance(params.get("name", params.get("uri", "")), str):
        assert response.status == 400
    if modern and error["code"] == -32020:
        # A name that is no text cannot be in the header that mirrors it.
        assert "Mcp-Name" in error["message"] or "mcp-name" in error["message"]
        return
    assert error["code"] == -32602
    assert sentence in error["message"]


def test_initialize_names_each_missing_parameter(connect: Connect, team: Team) -> None:
    message = connect(team.alice, modern=False).request("initialize").message["error"]["message"]
    for name in ("protocolVersion", "capabilities", "clientInfo"):
        assert f"initialize needs {name}: " in message


@both_protocols
@pytest.mark.parametrize(
    "arguments", ['{"sequence": "adr"}', ' {"sequence": "adr"}\n', '"{\\"sequence\\": \\"adr\\"}"']
)
def test_arguments_as_json_text_are_the_object(connect: Connect, team: Team, modern: bool, arguments: str) -> None:
    client = connect(team.alice, modern=modern)
    response = client.request("tools/call", "claim", name="claim", arguments=arguments)
    assert response.structured_content["number"] == 1
    prompt = client.request("prompts/get", "handoff", name="handoff", arguments='{"to": "api"}').result
    assert "api" in prompt["messages"][0]["content"]["text"]


@both_protocols
@pytest.mark.parametrize("arguments", [None, [], {}, "", "{}", "null"])
def test_empty_arguments_are_absent(connect: Connect, team: Team, modern: bool, arguments: Any) -> None:
    client = connect(team.alice, modern=modern)
    assert (
        client.request("tools/call", "whoami", name="whoami", arguments=arguments).structured_content["label"]
        == "alice"
    )
    response = client.request("tools/call", "claim", name="claim", arguments=arguments)
    assert response.error["message"].startswith("claim needs sequence: ")


@both_protocols
@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"jsonrpc": "1.0"}, 'jsonrpc must be "2.0", and the text "1.0" was sent.'),
        ({"jsonrpc": None}, 'jsonrpc must be "2.0", and null was sent.'),
        ({"method": 7}, 'method must be text, such as "tools/list"; the number 7 was sent.'),
        ({"method": None}, 'method must be text, such as "tools/list"; null was sent.'),
        ({"id": 1.5}, "id must be text or a whole number; the number 1.5 was sent."),
        ({"id": None}, "id must be text or a whole number; null was sent."),
        ({"params": "x"}, 'params must be an object; the text "x" was sent.'),
        ({"params": [1]}, "params must be an object; the list [1] was sent."),
    ],
)
def test_a_malformed_message_is_named_by_its_member(
    connect: Connect, team: Team, modern: bool, change: dict[str, Any], sentence: str
) -> None:
    client = connect(team.alice, modern=modern)
    message = {**client.body("tools/list", {}), **change}
    response = client.send(json.dumps(message).encode(), client.headers("tools/list"))
    assert response.status == 400
    assert sentence in response.message["error"]["message"]
    assert response.message["id"] == (message["id"] if "id" not in change else None)
