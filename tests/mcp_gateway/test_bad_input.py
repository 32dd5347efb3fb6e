"""Invalid input to a tool gets the documented error, never a 5xx or SQL text, and changes nothing."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from bus.db import Database
from mcp_gateway.tool_registry import Tool
from mcp_gateway.tools import all_tools
from tests.mcp_gateway.conftest import Team
from tests.mcp_gateway.mcp_client import McpClient, McpResponse

_VALID_ARGUMENTS: dict[str, Any] = {
    "body": "text",
    "to_actor": "bob",
    "sequence": "adr",
    "current": 5,
    "surface": "src/a.py",
    "title": "title",
    "task_id": 1,
    "owner": "bob",
    "reason": "reason",
    "lane": "api",
    "participant_name": "carol",
    "post_id": 1,
}
_HOSTILE_TEXT = [
    "",
    "\x00",
    "a\x00b",
    "x" * 8001,
    "\ud800",
    "a\udfffb",
    7,
    1.5,
    True,
    [],
    {},
    ["x"],
]
_HOSTILE_NAMES = ["\x07bell", "line\nbreak", "\u202egnp.exe", "\u2066x", " padded ", "zero\u200bwidth"]
_HOSTILE_NUMBERS = [
    -1,
    2**53,
    2**64,
    -(2**70),
    1.5,
    1e400,
    float("nan"),
    "seven",
    "1,000",
    True,
    None.__class__.__name__,
    [],
    {},
]
_FREE_TEXT_ARGUMENTS = {"body", "detail", "note", "reason", "status", "subject", "text", "title"}
_INTERNAL_WORDS = ("psycopg", "SELECT", "INSERT", "Traceback", "constraint", "relation", "LBUS", "bus_")


def _call(client: McpClient, tool: str, arguments: dict[str, Any]) -> McpResponse:
    """Send arguments as a hostile client does, with lone surrogates and non-finite numbers."""
    content = json.dumps(client.body("tools/call", {"name": tool, "arguments": arguments}))
    return client.send(content.encode(), client.headers("tools/call", tool))


def _check(response: McpResponse, case: object) -> None:
    assert response.status in (200, 400), (case, response)
    for word in _INTERNAL_WORDS:
        assert word not in response.body, (case, response)
    message = response.message
    if "error" in message:
        # The JSON-RPC message is invalid, so the error is the protocol's.
        assert message["error"]["code"] in (-32700, -32602, -32600), (case, response)
    else:
        assert response.error["code"] in ("invalid_argument", "unknown_recipient", "not_found"), (case, response)


def _fingerprint(db: Database, team: Team) -> tuple[Any, ...]:
    tables = ("event", "post", "delivery", "lease", "task", "sequence", "idempotency")
    counts = ", ".join(f"(SELECT count(*) FROM {table} WHERE project_id = %(p)s)" for table in tables)
    with db.connection() as conn:
        return conn.fetch_one(
            f"SELECT {counts}, (SELECT count(*) FROM participation WHERE project_id = %(p)s),"
            " (SELECT count(*) FROM invite WHERE project_id = %(p)s),"
            " (SELECT last_seq FROM project_clock WHERE project_id = %(p)s)",
            {"p": team.project_id},
        )


def required_arguments(tool: Tool) -> dict[str, Any]:
    required = {argument.name: _VALID_ARGUMENTS[argument.name] for argument in tool.arguments if argument.required}
    return required | ({"to_actor": "bob"} if tool.name == "post" else {})


def hostile_arguments(tool: Tool) -> list[dict[str, Any]]:
    """Arguments of calls that are valid except for one argument."""
    calls: list[dict[str, Any]] = [{"no_such_argument": 1}, {"project": "other"}, {"\ud800": 1}]
    for argument in tool.arguments:
        kind = argument.schema["type"]
        if kind == "string":
            values: list[Any] = list(_HOSTILE_TEXT)
            if argument.name == "before":
                values.remove("")
            if argument.name in ("status", "prefix") and "enum" not in argument.schema:
                values.remove("")
            if argument.name not in _FREE_TEXT_ARGUMENTS:
                values += _HOSTILE_NAMES
        elif kind == "integer":
            values = list(_HOSTILE_NUMBERS)
        elif kind == "boolean":
            values = ["yes", 1, 0, "", []]
        else:
            values = [{}, "x", [[]], [-1], ["x"], [2**53], [1] * 101]
        calls += [{argument.name: value} for value in values]
    return calls


@pytest.mark.parametrize("modern", [True, False], ids=["modern", "legacy"])
@pytest.mark.parametrize("tool", all_tools().values(), ids=lambda tool: tool.name)
def test_hostile_arguments_get_a_clear_error_and_change_nothing(
    connect: Callable[..., McpClient], team: Team, gateway_db: Database, tool: Tool, modern: bool
) -> None:
    client = connect(team.alice, modern=modern)
    before = _fingerprint(gateway_db, team)
    for hostile in hostile_arguments(tool):
        _check(_call(client, tool.name, {**required_arguments(tool), **hostile}), (tool.name, hostile))
    for argument in tool.arguments:
        if argument.required:
            without = {name: value for name, value in required_arguments(tool).items() if name != argument.name}
            assert f"needs {argument.name}" in _call(client, tool.name, without).error["message"]
    for arguments in (["x"], "text", 7):
        response = _call(client, tool.name, arguments)  # type: ignore[arg-type]
        assert response.status in (200, 400)
        assert response.message["error"]["code"] == -32602
        assert "arguments must be an object" in response.message["error"]["message"]
    assert _fingerprint(gateway_db, team) == before


def test_an_error_names_the_argument_and_says_what_to_send(connect: Callable[..., McpClient], team: Team) -> None:
    client = connect(team.alice)
    for arguments, sentence in (
        ({"sequence": "ADR"}, 'sequence must be text that matches ^[a-z0-9_-]{1,64}$; the text "ADR" was sent.'),
        (
            {"sequence": 7},
            'sequence must be text that matches ^[a-z0-9_-]{1,64}$; the number 7 was sent. Send "sequence": "7".',
        ),
        ({}, "claim needs sequence: text that matches ^[a-z0-9_-]{1,64}$."),
        ({"sequence": None}, "claim needs sequence: text that matches ^[a-z0-9_-]{1,64}$."),
        (
            {"sequence": "adr", "nope": 1},
            "claim takes no argument nope; it takes: sequence, note, idempotency_key.",
        ),
        (
            {"sequence": "adr", "note": "x" * 501},
            "note must be text of 1 to 500 characters; text of 501 characters was sent.",
        ),
    ):
        assert client.call("claim", **arguments).error["message"] == sentence
    assert client.call("whats_new", limit=0).error["message"] == (
        'limit must be a whole number from 1 to 500; the number 0 was sent. Send "limit": 100.'
    )
    assert client.call("lease", surface="a", mode="x").error["message"] == (
        'mode must be one of: exclusive, shared; the text "x" was sent.'
    )
    assert ".." in client.call("lease", surface="../etc").error["message"]


def test_null_means_absent(connect: Callable[..., McpClient], team: Team) -> None:
    claim = connect(team.alice).call("claim", sequence="adr", note=None, idempotency_key=None).structured_content
    assert claim == {"sequence": "adr", "number": 1, "formatted": "1", "note": None}


def test_an_unknown_tool_is_invalid_params(connect: Callable[..., McpClient], team: Team) -> None:
    for name in ("no_such_tool", "CLAIM", "", "x" * 5000):
        message = connect(team.alice, modern=False).call(name).message
        assert message["error"]["code"] == -32602


def test_a_body_of_the_maximum_length_arrives_complete(connect: Callable[..., McpClient], team: Team) -> None:
    body = "é\n\t😀" * 2000
    connect(team.alice).call("post", to_actor="bob", body=body).structured_content  # noqa: B018
    (post,) = connect(team.bob).call("read_posts", to_me=True).structured_content["posts"]
    assert post["body"] == body
