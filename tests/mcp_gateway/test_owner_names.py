"""The owner who acts in the web appears to agents under the handle alone, which tools accept as an argument."""

from collections.abc import Callable

from bus.coordination import posts
from bus.ctx import Ctx
from bus.db import Database
from bus.tenancy import owner_participation
from tests.mcp_gateway.conftest import Team
from tests.mcp_gateway.mcp_client import McpClient


def _owner(db: Database, team: Team) -> Ctx:
    with db.transaction() as conn:
        return owner_participation.get_or_create_owner_context(conn, team.owner_id, team.project_id)


def test_the_name_of_the_owner_round_trips_through_every_tool(
    gateway_db: Database, team: Team, connect: Callable[..., McpClient]
) -> None:
    ctx = _owner(gateway_db, team)
    with gateway_db.transaction() as conn:
        question = posts.create(conn, ctx, "how far are you?", to_actor="bob")
    bob = connect(team.bob)
    (seen,) = bob.call("read_posts", to_me=True).structured_content["posts"]
    handle = team.bob.handle
    assert seen["from"] == handle
    reply = bob.call("post", body="done", to_actor=seen["from"], reply_to=question.post_id).structured_content
    assert reply["recipients"] == 1
    (sent,) = bob.call("read_posts", reply_to=question.post_id).structured_content["posts"]
    assert sent["to_actor"] == handle
    created = bob.call("task_create", title="approve it", owner=sent["to_actor"]).structured_content
    (task,) = bob.call("list_tasks", owner=handle).structured_content["tasks"]
    assert (task["task_id"], task["owner"], created["status"]) == (created["task_id"], handle, "assigned")
    assert bob.call("task_assign", task_id=created["task_id"], owner=handle).structured_content["owner"] == handle
    events = bob.call("query_events", actor=handle).structured_content["events"]
    assert [(event["type"], event["actor"]) for event in events] == [("post", handle)]
    participants = {
        participant["actor"]: participant
        for participant in bob.call("list_participants").structured_content["participants"]
    }
    assert participants[handle]["name"] == handle
    assert participants[handle]["token_active"] is True
    # The same in the handshake protocol, through the other process.
    other = connect(team.bob, modern=False, process=1)
    assert other.call("post", body="again", to_actor=participants[handle]["name"]).structured_content["recipients"] == 1


def test_the_owner_is_a_recipient_only_after_acting_in_the_project(
    gateway_db: Database, team: Team, connect: Callable[..., McpClient]
) -> None:
    bob = connect(team.bob)
    handle = team.bob.handle
    assert bob.call("post", body="hello", to_actor=handle).error["code"] == "unknown_recipient"
    _owner(gateway_db, team)
    assert bob.call("post", body="hello", to_actor=handle).structured_content["recipients"] == 1
    error = bob.call("post", body="hello", to_actor=f"{handle}x").error
    assert handle in error["near"]
    # A foreign handle is unknown, even if another owner has it.
    assert bob.call("post", body="hello", to_actor="another-handle").error["code"] == "unknown_recipient"


def test_a_project_admin_cannot_administer_the_owner(
    gateway_db: Database, team: Team, connect: Callable[..., McpClient]
) -> None:
    _owner(gateway_db, team)
    alice = connect(team.alice)
    for tool in ("admin_rotate", "admin_revoke"):
        assert alice.call(tool, participant_name=team.alice.handle).error["code"] == "forbidden"
    assert alice.call("admin_provision", participant_name=team.alice.handle).error["code"] == "conflict"
    assert alice.call("create_invite", participant_name=team.alice.handle).error["code"] == "conflict"
