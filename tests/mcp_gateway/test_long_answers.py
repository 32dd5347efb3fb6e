"""Long answers say less, and say how to get the rest; fields of the original service are always there."""

import json
from collections.abc import Callable

from bus.db import Database
from mcp_gateway.render import CUT_BODIES_HINT
from tests.mcp_gateway.conftest import Team, make_team
from tests.mcp_gateway.mcp_client import McpClient

Connect = Callable[..., McpClient]
_ORIGINAL_POST_FIELDS = {
    "post_id",
    "from",
    "to_lane",
    "to_actor",
    "subject",
    "body",
    "ref",
    "tag",
    "created_at",
    "acked",
}


def test_a_long_list_of_posts_says_how_to_get_whole_bodies(connect: Connect, team: Team) -> None:
    alice, bob = connect(team.alice), connect(team.bob)
    body = 'A "long" text\n' * 40
    for _ in range(20):
        alice.call("post", body=body, to_actor="bob")
    answer = bob.call("read_posts", to_me=True, unacked_only=True)
    page = answer.structured_content
    assert json.loads(answer.result["content"][0]["text"]) == page
    assert page["hint"] == CUT_BODIES_HINT
    assert all(post["body"] == body[:200] + "…" and post["body_length"] == len(body) for post in page["posts"])
    newest = page["posts"][0]["post_id"]
    by_id = bob.call("read_posts", post_ids=[newest]).structured_content
    assert [(post["post_id"], post["body"]) for post in by_id["posts"]] == [(newest, body)]
    whole = bob.call("read_posts", to_me=True, whole=True).structured_content
    assert {post["body"] for post in whole["posts"]} == {body}
    for complete in (by_id, whole):
        assert "hint" not in complete
        assert all("body_length" not in post for post in complete["posts"])
    waited = bob.call("wait_for", kind="inbox").structured_content
    assert (waited["hint"], waited["posts"][0]["body"]) == (CUT_BODIES_HINT, body[:200] + "…")


def test_posts_of_another_project_are_not_read_by_id(connect: Connect, team: Team, gateway_db: Database) -> None:
    post_id = connect(team.alice).call("post", body="secret", to_actor="bob").structured_content["post_id"]
    stranger = connect(make_team(gateway_db).alice)
    for unknown in (post_id, 10**9):
        assert stranger.call("read_posts", post_ids=[unknown]).structured_content["posts"] == []


def test_only_fields_that_the_original_lacks_are_left_out(connect: Connect, team: Team) -> None:
    alice, bob = connect(team.alice), connect(team.bob)
    first = alice.call("post", body="hello", to_actor="bob").structured_content["post_id"]
    (post,) = bob.call("read_posts", to_me=True).structured_content["posts"]
    assert post.keys() == _ORIGINAL_POST_FIELDS
    assert (post["to_lane"], post["subject"], post["ref"], post["tag"]) == (None, None, None, None)
    bob.call("ack", post_id=first)
    bob.call("post", body="answer", to_actor="alice", reply_to=first)
    answer, sent = alice.call("read_posts").structured_content["posts"]
    assert answer.keys() == {*_ORIGINAL_POST_FIELDS, "reply_to"}
    assert sent.keys() == {*_ORIGINAL_POST_FIELDS, "acked_by", "deliveries"}
    alice.call("lease", surface="src/a.py")
    alice.call("lease", surface="src/b.py", mode="shared")
    shared, exclusive = bob.call("who_holds").structured_content["leases"]
    assert shared["mode"] == "shared"
    assert "mode" not in exclusive
    assert exclusive["note"] is None
    alice.call("task_create", title="usual")
    alice.call("task_create", title="urgent", priority=0)
    urgent, usual = bob.call("list_tasks").structured_content["tasks"]
    assert urgent["priority"] == 0
    assert "priority" not in usual
    assert (usual["lane"], usual["owner"], usual["blockers"]) == (None, None, [])


def test_whats_new_counts_what_it_leaves_out_and_since_returns_it(connect: Connect, team: Team) -> None:
    alice, bob = connect(team.alice), connect(team.bob)
    for _ in range(25):
        alice.call("post", body="hello", to_actor="bob")
    bob.call("claim", sequence="adr")
    news = bob.call("whats_new").structured_content
    assert news["events"] == []
    assert news["left_out"] == {"own": 1, "inbox": 25}
    assert news["unacked_posts"] == 25
    everything = bob.call("whats_new", since=news["since_event_id"]).structured_content
    assert [event["type"] for event in everything["events"]] == ["post"] * 25 + ["claim"]
    assert everything["events"][0]["payload"] == {
        "to_lane": None,
        "to_actor": team.bob.actor,
        "subject": None,
        "ref": None,
        "tag": None,
        "reply_to": None,
        "recipients": 1,
    }
    assert "left_out" not in everything
    alice.call("claim", sequence="adr")
    (event,) = bob.call("whats_new").structured_content["events"]
    assert event.keys() == {"id", "ts", "actor", "type", "payload"}
