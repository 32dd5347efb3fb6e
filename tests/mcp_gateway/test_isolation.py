"""Objects of another project get the same complete response as objects that do not exist."""

from collections.abc import Callable
from typing import Any

import pytest

from bus.db import Database
from tests.mcp_gateway.conftest import Team, make_team
from tests.mcp_gateway.mcp_client import McpClient, McpResponse

_UNUSED_ID = 4242


@pytest.fixture
def other(gateway_db: Database) -> Team:
    return make_team(gateway_db)


def _create_objects(client: McpClient, peer: str, rounds: int) -> dict[str, list[int]]:
    """Create objects of every kind in a project, and return the ids of posts and tasks."""
    ids: dict[str, list[int]] = {"post": [], "task": []}
    for _ in range(rounds):
        ids["post"].append(
            client.call("post", to_actor=peer, body="secret plan", ref="PR 1").structured_content["post_id"]
        )
        ids["task"].append(client.call("task_create", title="secret task").structured_content["task_id"])
        client.call("claim", sequence="adr")
        client.call("lease", surface="src/secret.py")
    return ids


def _comparable(response: McpResponse, replaced: int) -> Any:
    """A whole response without its ids, its date and the requested number."""
    varying = ("date", "content-length", "x-request-id")
    headers = {name: value for name, value in response.headers.items() if name not in varying}
    body = response.message | {"id": 0}
    return response.status, headers, repr(body).replace(str(replaced), "N")


@pytest.mark.parametrize("modern", [True, False], ids=["modern", "legacy"])
def test_an_id_of_another_project_gets_the_response_of_an_unknown_id(
    connect: Callable[..., McpClient], team: Team, other: Team, modern: bool
) -> None:
    _create_objects(connect(other.alice), "bob", 6)
    theirs = _create_objects(connect(other.alice), "bob", 6)
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
            mine.call(tool, **arguments(_UNUSED_ID)), _UNUSED_ID
        ), tool


def test_names_of_another_project_are_unknown(connect: Callable[..., McpClient], team: Team, other: Team) -> None:
    mine = connect(team.alice)
    foreign = other.bob.actor
    unknown = "no-such-handle/bob"
    for tool, argument, rest in (
        ("post", "to_actor", {"body": "x"}),
        ("query_events", "actor", {}),
        ("list_tasks", "owner", {}),
        ("task_create", "owner", {"title": "x"}),
        ("admin_rotate", "participant_name", {}),
        ("admin_revoke", "participant_name", {}),
    ):
        responses = [mine.call(tool, **rest, **{argument: name}).error | {"message": ""} for name in (foreign, unknown)]
        assert responses[0] == responses[1], tool
        assert responses[0]["code"] == "unknown_recipient"
    # A foreign handle is unknown and never resolves to the caller's own bob.
    assert connect(team.bob).call("read_posts", to_me=True).structured_content["posts"] == []


def test_reads_show_nothing_of_another_project(connect: Callable[..., McpClient], team: Team, other: Team) -> None:
    _create_objects(connect(other.alice), "bob", 3)
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
        response = mine.call(tool, **arguments)
        assert "secret" not in response.body, tool
        assert other.alice.handle not in response.body, tool
    for uri in ("bus://inbox", "bus://ledger", "bus://leases", "bus://tasks", "bus://presence"):
        assert "secret" not in mine.request("resources/read", uri, uri=uri).body


def test_a_number_that_two_projects_share_resolves_to_the_callers_row(
    connect: Callable[..., McpClient], team: Team, other: Team
) -> None:
    mine, theirs = connect(team.alice), connect(other.alice)
    for client, text in ((mine, "mine"), (theirs, "theirs")):
        assert client.call("task_create", title=text).structured_content["task_id"] == 1
        assert client.call("post", to_actor="bob", body=text).structured_content["post_id"] == 2
        assert client.call("claim", sequence="adr").structured_content["number"] == 1
        client.call("lease", surface="src/a.py", note=text)
    assert [task["title"] for task in mine.call("list_tasks").structured_content["tasks"]] == ["mine"]
    assert [post["body"] for post in mine.call("read_posts").structured_content["posts"]] == ["mine"]
    assert [lease["note"] for lease in mine.call("who_holds").structured_content["leases"]] == ["mine"]
    mine.call("task_start", task_id=1)
    assert [task["status"] for task in theirs.call("list_tasks").structured_content["tasks"]] == ["open"]
    connect(team.bob).call("ack", post_id=2)
    assert [post["acked"] for post in theirs.call("read_posts").structured_content["posts"]] == [False]
