"""Whatever is sent to a tool: the documented error, never a 5xx, no SQL, and nothing changed."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from bus.db import Database
from mcp_gateway.tool_registry import Tool
from mcp_gateway.tools import all_tools
from tests.mcp_gateway.conftest import Team
from tests.mcp_gateway.mcp_client import McpClient, McpResponse

_GOOD: dict[str, Any] = {
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
    "7",
    True,
    None.__class__.__name__,
    [],
    {},
]
_FREE_TEXT = {"body", "detail", "note", "reason", "status", "subject", "title"}
_SQL = ("psycopg", "SELECT", "INSERT", "Traceback", "constraint", "relation", "LBUS", "bus_")


def _call(wire: McpClient, tool: str, arguments: dict[str, Any]) -> McpResponse:
    """Send what json.dumps refuses too: lone surrogates and non-finite numbers, as a hostile client would."""
    content = json.dumps(wire.body("tools/call", {"name": tool, "arguments": arguments}))
    return wire.send(content.encode(), wire.headers("tools/call", tool))


def _check(reply: McpResponse, what: object) -> None:
    assert reply.status in (200, 400), (what, reply)
    for word in _SQL:
        assert word not in reply.body, (what, reply)
    message = reply.message
    if "error" in message:
        # The message as such was broken: the protocol's own errors.
        assert message["error"]["code"] in (-32700, -32602, -32600), (what, reply)
    else:
        assert reply.error["code"] in ("invalid_argument", "unknown_recipient", "not_found"), (what, reply)


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


def _required(tool: Tool) -> dict[str, Any]:
    wanted = {argument.name: _GOOD[argument.name] for argument in tool.arguments if argument.required}
    return wanted | ({"to_actor": "bob"} if tool.name == "post" else {})


def _hostile(tool: Tool) -> list[dict[str, Any]]:
    """Calls that are right but for one argument."""
    calls: list[dict[str, Any]] = [{"no_such_argument": 1}, {"project": "other"}, {"\ud800": 1}]
    for argument in tool.arguments:
        kind = argument.schema["type"]
        if kind == "string":
            values: list[Any] = list(_HOSTILE_TEXT)
            if argument.name == "before":
                values.remove("")
            if argument.name in ("status", "prefix") and "enum" not in argument.schema:
                values.remove("")
            if argument.name not in _FREE_TEXT:
                values += _HOSTILE_NAMES
            if argument.name == "surface":
                # A file may be called that.
                values.remove("zero\u200bwidth")
        elif kind == "integer":
            values = list(_HOSTILE_NUMBERS)
        elif kind == "boolean":
            values = ["true", 1, 0, "", []]
        else:
            values = [{}, "x", [[]], [-1], ["x"], [2**53], [1] * 101]
        calls += [{argument.name: value} for value in values]
    return calls


@pytest.mark.parametrize("modern", [True, False], ids=["modern", "legacy"])
@pytest.mark.parametrize("tool", all_tools().values(), ids=lambda tool: tool.name)
def test_hostile_arguments_get_a_clear_error_and_change_nothing(
    connect: Callable[..., McpClient], team: Team, gateway_db: Database, tool: Tool, modern: bool
) -> None:
    wire = connect(team.alice, modern=modern)
    before = _fingerprint(gateway_db, team)
    for hostile in _hostile(tool):
        _check(_call(wire, tool.name, {**_required(tool), **hostile}), (tool.name, hostile))
    for argument in tool.arguments:
        if argument.required:
            without = {name: value for name, value in _required(tool).items() if name != argument.name}
            assert f"needs {argument.name}" in _call(wire, tool.name, without).error["message"]
    for arguments in ([], "text", 7):
        reply = _call(wire, tool.name, arguments)  # type: ignore[arg-type]
        assert reply.status in (200, 400)
        assert reply.message["error"]["code"] == -32602
    assert _fingerprint(gateway_db, team) == before


def test_an_error_names_the_argument_and_says_what_to_send(connect: Callable[..., McpClient], team: Team) -> None:
    wire = connect(team.alice)
    for arguments, sentence in (
        ({"sequence": "ADR"}, "sequence must be text that matches ^[a-z0-9_-]{1,64}$."),
        ({"sequence": 7}, "sequence must be text that matches ^[a-z0-9_-]{1,64}$."),
        ({}, "claim needs sequence: text that matches ^[a-z0-9_-]{1,64}$."),
        (
            {"sequence": "adr", "nope": 1},
            "claim takes no argument nope; it takes: sequence, note, idempotency_key.",
        ),
        ({"sequence": "adr", "note": "x" * 501}, "note must be text of 1 to 500 characters."),
    ):
        assert wire.call("claim", **arguments).error["message"] == sentence
    assert wire.call("whats_new", limit=0).error["message"] == "limit must be a whole number from 1 to 500."
    assert wire.call("lease", surface="a", mode="x").error["message"] == "mode must be one of: exclusive, shared."
    assert ".." in wire.call("lease", surface="../etc").error["message"]


def test_null_means_absent(connect: Callable[..., McpClient], team: Team) -> None:
    claim = connect(team.alice).call("claim", sequence="adr", note=None, idempotency_key=None).structured_content
    assert claim == {"sequence": "adr", "number": 1, "formatted": "1", "note": None}


def test_an_unknown_tool_is_invalid_params(connect: Callable[..., McpClient], team: Team) -> None:
    for name in ("no_such_tool", "CLAIM", "", "x" * 5000):
        message = connect(team.alice, modern=False).call(name).message
        assert message["error"]["code"] == -32602


def test_a_body_of_the_greatest_length_arrives_whole(connect: Callable[..., McpClient], team: Team) -> None:
    body = "é\n\t😀" * 2000
    connect(team.alice).call("post", to_actor="bob", body=body).structured_content  # noqa: B018
    (post,) = connect(team.bob).call("read_posts", to_me=True).structured_content["posts"]
    assert post["body"] == body
