"""Scopes of tokens: what a token that does not allow everything can do, on both roads to a tool."""

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import pytest

from bus.db import Database
from bus.scopes import SCOPES, Scope, includes
from bus.tenancy import projects, tokens
from mcp_gateway.tools import all_tools
from tests.factories import Agent, authenticate_agent
from tests.mcp_gateway.conftest import Team
from tests.mcp_gateway.mcp_client import McpClient, McpResponse

# Without these the tools refuse their arguments, also for a token that may call them.
_ARGUMENTS: dict[str, dict[str, Any]] = {
    "claim": {"sequence": "adr"},
    "query_events": {"limit": 1},
    "whats_new": {"advance_cursor": True},
    "who_holds": {"surface": "a.py"},
    "wait_for": {"kind": "inbox", "timeout_seconds": 1},
}
_TOOLS = all_tools()


def _issue(db: Database, team: Team, scope: Scope, label: str = "bob") -> Agent:
    with db.transaction() as conn:
        return authenticate_agent(conn, tokens.add(conn, team.project_id, label, scope=scope, actor="test"))


def _roads(client: McpClient, name: str, arguments: dict[str, Any]) -> list[McpResponse]:
    """Call a tool directly and, with a header that is repeated, through the SDK."""
    content = json.dumps(client.body("tools/call", {"name": name, "arguments": arguments})).encode()
    headers = list(client.headers("tools/call", name).items())
    return [client.send(content, headers), client.send(content, [*headers, ("Accept", "application/json")])]


def _assert_refused(response: McpResponse, needed: str) -> None:
    assert response.status == 403, response
    assert response.headers["www-authenticate"] == f'Bearer error="insufficient_scope", scope="{needed}"'
    assert (response.message["error"], response.message["scope"]) == ("insufficient_scope", needed)


@pytest.mark.parametrize("modern", [True, False])
@pytest.mark.parametrize("name", [tool.name for tool in _TOOLS.values() if tool.scope != "read"])
def test_a_read_only_token_is_refused_by_every_tool_that_writes(
    connect: Callable[..., McpClient], team: Team, gateway_db: Database, name: str, modern: bool
) -> None:
    client = connect(_issue(gateway_db, team, "read", "alice"), modern=modern)
    needed = "bus:read bus:write bus:admin" if _TOOLS[name].scope == "admin" else "bus:read bus:write"
    # Before any argument is judged.
    for arguments in ({}, {"no_such_argument": 1}, _ARGUMENTS.get(name, {})):
        for response in _roads(client, name, arguments):
            _assert_refused(response, needed)


@pytest.mark.parametrize("modern", [True, False])
@pytest.mark.parametrize("name", [tool.name for tool in _TOOLS.values() if tool.scope == "read"])
def test_a_read_only_token_may_call_every_tool_that_reads(
    connect: Callable[..., McpClient], team: Team, gateway_db: Database, name: str, modern: bool
) -> None:
    connect(team.alice).call("post", body="news", to_actor="bob")
    client = connect(_issue(gateway_db, team, "read"), modern=modern)
    arguments = _ARGUMENTS.get(name, {})
    for response in _roads(client, name, arguments)[: 1 if name == "wait_for" else 2]:
        assert response.status == 200
        assert not response.result.get("isError"), response.body


def test_only_reading_moves_the_marks_of_a_reader(
    connect: Callable[..., McpClient], team: Team, gateway_db: Database
) -> None:
    connect(team.alice).call("post", body="news", to_actor="bob")
    reader, bob = connect(_issue(gateway_db, team, "read")), connect(team.bob)
    before = _last_seq(gateway_db, team)
    assert reader.call("whats_new").structured_content["events"]
    assert reader.call("whats_new").structured_content["events"] == []
    (post,) = reader.call("read_posts", to_me=True, unacked_only=True).structured_content["posts"]
    _assert_refused(reader.call("ack", post_id=post["post_id"]), "bus:read bus:write")
    assert bob.call("read_posts", to_me=True, unacked_only=True).structured_content["posts"]
    assert _last_seq(gateway_db, team) == before


def test_waits_that_keep_others_waiting_need_more_than_reading(
    connect: Callable[..., McpClient], team: Team, gateway_db: Database
) -> None:
    task_id = connect(team.alice).call("task_create", title="t").structured_content["task_id"]
    reader = connect(_issue(gateway_db, team, "read"))
    for arguments in (
        {"kind": "task"},
        {"kind": "lease", "surface": "a.py"},
        {"take": True},
        {"kind": "task", "take": True},
        {"surface": "a.py"},
    ):
        for response in _roads(reader, "wait_for", {**arguments, "timeout_seconds": 1}):
            _assert_refused(response, "bus:read bus:write")
    assert reader.call("wait_for", timeout_seconds=1).structured_content == {"timed_out": True}
    with gateway_db.connection() as conn:
        assert conn.fetch_one("SELECT count(*) FROM waiter WHERE project_id = %s", (team.project_id,)) == (0,)
    # It was offered to no one.
    taken = connect(team.bob).call("wait_for", kind="task", take=True, timeout_seconds=1)
    assert taken.structured_content["task"]["task_id"] == task_id


def test_a_session_that_may_only_read_keeps_a_post_from_no_other_session(
    connect: Callable[..., McpClient], team: Team, gateway_db: Database
) -> None:
    reader, bob = connect(_issue(gateway_db, team, "read")), connect(team.bob)
    connect(team.alice).call("post", body="news", to_actor="bob")
    for client, session in ((reader, "reading-session"), (bob, "writing-session")):
        woken = client.call("wait_for", kind="inbox", timeout_seconds=20, _session=session).structured_content
        assert [post["body"] for post in woken["posts"]] == ["news"]
    # It was shown, so it does not wake the same session again.
    again = reader.call("wait_for", kind="inbox", timeout_seconds=1, _session="reading-session")
    assert again.structured_content == {"timed_out": True}


def test_a_read_only_token_reads_resources_and_subscribes_and_ends_no_session(
    connect: Callable[..., McpClient], team: Team, gateway_db: Database
) -> None:
    reader = connect(_issue(gateway_db, team, "read"))
    for name in ("inbox", "ledger", "leases", "tasks", "presence"):
        assert reader.request("resources/read", f"bus://{name}", uri=f"bus://{name}").status == 200
    connect(team.bob).call("lease", surface="a.py", session="s1-0123456789")
    headers = [("Authorization", f"Bearer {reader.token}"), ("X-Bus-Session", "s1-0123456789")]
    session = McpClient(f"{reader.url}/session", reader.token, http_client=reader.http_client)
    assert session.send(b"", headers).status == 200
    _assert_refused(session.send(b"", headers, "DELETE"), "bus:read bus:write")


def test_in_a_batch_only_the_calls_that_are_beyond_their_scope_are_refused(
    connect: Callable[..., McpClient], team: Team, gateway_db: Database
) -> None:
    reader, bob = _issue(gateway_db, team, "read"), team.bob
    clients = [connect(agent) for agent in (reader, bob) * 8]
    with ThreadPoolExecutor(len(clients)) as pool:
        barrier = Barrier(len(clients))

        def claim(client: McpClient) -> McpResponse:
            barrier.wait()
            return client.call("claim", sequence="batch")

        responses = list(pool.map(claim, clients))
    assert [response.status for response in responses] == [403, 200] * 8
    numbers = sorted(response.structured_content["number"] for response in responses[1::2])
    assert numbers == list(range(1, 9))


def test_a_token_without_the_scope_of_admins_makes_its_project_admin_none(
    connect: Callable[..., McpClient], team: Team, gateway_db: Database
) -> None:
    writer = connect(_issue(gateway_db, team, "write", "alice"))
    for name in (name for name, tool in _TOOLS.items() if tool.scope == "admin"):
        for response in _roads(writer, name, {}):
            _assert_refused(response, "bus:read bus:write bus:admin")
    assert writer.call("claim", sequence="adr").status == 200
    assert writer.call("seed_sequence", sequence="adr", current=50).error["code"] == "forbidden"
    assert writer.call("whoami").structured_content["is_admin"] is False
    assert connect(team.alice).call("seed_sequence", sequence="adr", current=50).status == 200


def test_a_wider_scope_would_not_help_a_participant_that_is_not_project_admin(
    connect: Callable[..., McpClient], team: Team, gateway_db: Database
) -> None:
    writer = connect(_issue(gateway_db, team, "write"))
    assert writer.call("admin_revoke", participant_name="alice").error["code"] == "forbidden"
    assert connect(team.bob).call("admin_revoke", participant_name="alice").error["code"] == "forbidden"


def test_what_an_archived_project_forbids_is_not_asked_for_as_a_scope(
    connect: Callable[..., McpClient], team: Team, gateway_db: Database
) -> None:
    reader = connect(_issue(gateway_db, team, "read"))
    _assert_refused(reader.call("claim", sequence="adr"), "bus:read bus:write")
    with gateway_db.transaction() as conn:
        projects.archive(conn, team.project_id, actor="test")
    for response in _roads(reader, "claim", {"sequence": "adr"}):
        assert response.error["code"] == "forbidden"
    assert reader.call("whoami").status == 200


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("label", ["alice", "bob"])
def test_the_list_of_tools_has_what_the_token_may_call(
    connect: Callable[..., McpClient], team: Team, gateway_db: Database, label: str, scope: Scope
) -> None:
    listed = connect(_issue(gateway_db, team, scope, label)).request("tools/list").result["tools"]
    allowed = scope if label == "alice" or scope == "read" else "write"
    assert [tool["name"] for tool in listed] == [t.name for t in _TOOLS.values() if includes(allowed, t.scope)]


def test_a_revoked_token_is_unauthenticated_before_its_scope_is_judged(
    connect: Callable[..., McpClient], team: Team, gateway_db: Database
) -> None:
    reader = connect(_issue(gateway_db, team, "read"))
    assert reader.call("claim", sequence="adr").status == 403
    with gateway_db.transaction() as conn:
        tokens.revoke_all(conn, team.project_id, "bob", actor="test")
    assert [response.status for response in _roads(reader, "claim", {"sequence": "adr"})] == [401, 401]


def test_rotation_keeps_the_scope_of_what_it_replaces(
    connect: Callable[..., McpClient], team: Team, gateway_db: Database
) -> None:
    alice = connect(team.alice)
    issued = alice.call("admin_provision", participant_name="monitor", read_only=True).structured_content
    reader = connect(None)
    reader.token = issued["token"]
    assert reader.call("whoami").structured_content["scope"] == "bus:read"
    reader.token = alice.call("admin_rotate", participant_name="monitor").structured_content["token"]
    assert reader.call("whoami").structured_content["scope"] == "bus:read"
    alice.call("admin_revoke", participant_name="monitor")
    reader.token = alice.call("admin_rotate", participant_name="monitor").structured_content["token"]
    assert reader.call("whoami").structured_content["scope"] == "bus:read"
    _issue(gateway_db, team, "write", "monitor")
    reader.token = alice.call("admin_rotate", participant_name="monitor").structured_content["token"]
    assert reader.call("whoami").structured_content["scope"] == "bus:read bus:write"


def _last_seq(db: Database, team: Team) -> int:
    with db.connection() as conn:
        (seq,) = conn.fetch_one("SELECT last_seq FROM project_clock WHERE project_id = %s", (team.project_id,))
    return int(seq)
