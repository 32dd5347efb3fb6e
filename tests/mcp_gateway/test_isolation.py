"""Two tenants: what exists only in the other's project answers, as a whole response, like what exists nowhere."""

from collections.abc import Callable
from typing import Any

import pytest

from bus.db import Database
from tests.mcp_gateway.conftest import Team, make_team
from tests.mcp_gateway.mcp_client import McpClient, McpResponse

_NOWHERE = 4242


@pytest.fixture
def other(gateway_db: Database) -> Team:
    return make_team(gateway_db)


def _busy(wire: McpClient, peer: str, rounds: int) -> dict[str, list[int]]:
    """Work in a project so that it has ids of every kind; more rounds, more ids."""
    ids: dict[str, list[int]] = {"post": [], "task": []}
    for _ in range(rounds):
        ids["post"].append(
            wire.call("post", to_actor=peer, body="secret plan", ref="PR 1").structured_content["post_id"]
        )
        ids["task"].append(wire.call("task_create", title="secret task").structured_content["task_id"])
        wire.call("claim", sequence="adr")
        wire.call("lease", surface="src/secret.py")
    return ids


def _comparable(reply: McpResponse, replaced: int) -> Any:
    """A whole response without what names the request: its ids, the date and the number asked for."""
    own = ("date", "content-length", "x-request-id")
    headers = {name: value for name, value in reply.headers.items() if name not in own}
    body = reply.message | {"id": 0}
    return reply.status, headers, repr(body).replace(str(replaced), "N")


@pytest.mark.parametrize("modern", [True, False], ids=["modern", "legacy"])
def test_an_id_of_the_other_project_answers_like_one_that_exists_nowhere(
    connect: Callable[..., McpClient], team: Team, other: Team, modern: bool
) -> None:
    _busy(connect(other.alice), "bob", 6)
    theirs = _busy(connect(other.alice), "bob", 6)
    mine = connect(team.alice, modern=modern)
    probes: list[tuple[str, str, Callable[[int], dict[str, Any]]]] = [
        ("post", "ack", lambda n: {"post_id": n}),
        ("post", "ack", lambda n: {"post_ids": [n]}),
        ("post", "post", lambda n: {"to_actor": "bob", "body": "x", "reply_to": n}),
        ("post", "read_posts", lambda n: {"reply_to": n}),
        ("task", "task_start", lambda n: {"task_id": n}),
        ("task", "task_assign", lambda n: {"task_id": n, "owner": "bob"}),
        ("task", "task_block", lambda n: {"task_id": n, "reason": "x"}),
        ("task", "task_resolve", lambda n: {"task_id": n}),
        ("task", "task_ship", lambda n: {"task_id": n}),
        ("task", "task_create", lambda n: {"title": "x", "blocked_on": [n]}),
    ]
    for kind, tool, arguments in probes:
        foreign = max(theirs[kind])
        assert _comparable(mine.call(tool, **arguments(foreign)), foreign) == _comparable(
            mine.call(tool, **arguments(_NOWHERE)), _NOWHERE
        ), tool


def test_names_of_the_other_project_are_unknown(connect: Callable[..., McpClient], team: Team, other: Team) -> None:
    mine = connect(team.alice)
    foreign = other.bob.actor
    nowhere = "nobody-at-all/bob"
    for tool, argument, rest in (
        ("post", "to_actor", {"body": "x"}),
        ("query_events", "actor", {}),
        ("list_tasks", "owner", {}),
        ("task_create", "owner", {"title": "x"}),
        ("admin_rotate", "participant_name", {}),
        ("admin_revoke", "participant_name", {}),
    ):
        replies = [mine.call(tool, **rest, **{argument: name}).error | {"message": ""} for name in (foreign, nowhere)]
        assert replies[0] == replies[1], tool
        assert replies[0]["code"] == "unknown_recipient"
    # A handle that does not match is unknown, never silently one's own bob.
    assert connect(team.bob).call("read_posts", to_me=True).structured_content["posts"] == []


def test_reads_show_nothing_of_the_other_project(connect: Callable[..., McpClient], team: Team, other: Team) -> None:
    _busy(connect(other.alice), "bob", 3)
    mine = connect(team.alice)
    for tool, arguments in (
        ("whats_new", {"since": 0}),
        ("query_events", {}),
        ("query_events", {"ref": "PR 1"}),
        ("query_events", {"sequence": "adr", "number": 1}),
        ("read_posts", {}),
        ("read_posts", {"ref": "PR 1", "unacked_only": True}),
        ("latest_claims", {}),
        ("list_sequences", {}),
        ("who_holds", {"surface": "src/secret.py"}),
        ("list_tasks", {}),
        ("who_is_active", {}),
        ("list_participants", {}),
    ):
        reply = mine.call(tool, **arguments)
        assert "secret" not in reply.body, tool
        assert other.alice.handle not in reply.body, tool
    for uri in ("bus://inbox", "bus://ledger", "bus://leases", "bus://tasks", "bus://presence"):
        assert "secret" not in mine.request("resources/read", uri, uri=uri).body


def test_where_both_have_a_number_the_callers_own_row_comes_back(
    connect: Callable[..., McpClient], team: Team, other: Team
) -> None:
    mine, theirs = connect(team.alice), connect(other.alice)
    for wire, word in ((mine, "mine"), (theirs, "theirs")):
        assert wire.call("task_create", title=word).structured_content["task_id"] == 1
        assert wire.call("post", to_actor="bob", body=word).structured_content["post_id"] == 2
        assert wire.call("claim", sequence="adr").structured_content["number"] == 1
        wire.call("lease", surface="src/a.py", note=word)
    assert [task["title"] for task in mine.call("list_tasks").structured_content["tasks"]] == ["mine"]
    assert [post["body"] for post in mine.call("read_posts").structured_content["posts"]] == ["mine"]
    assert [lease["note"] for lease in mine.call("who_holds").structured_content["leases"]] == ["mine"]
    mine.call("task_start", task_id=1)
    assert [task["status"] for task in theirs.call("list_tasks").structured_content["tasks"]] == ["open"]
    connect(team.bob).call("ack", post_id=2)
    assert [post["acked"] for post in theirs.call("read_posts").structured_content["posts"]] == [False]
