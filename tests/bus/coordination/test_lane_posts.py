"""Lane posts: delivered to present and joining members, and withdrawn from leaving ones."""

from typing import Any

import pytest

from bus.coordination import posts, presence
from bus.db import Connection
from bus.tenancy import participations, token_store, tokens
from bus.tenancy.projects import Project
from tests import factories
from tests.assertions import assert_ledger_consistent, list_event_types
from tests.factories import Agent


def _inbox(conn: Connection, agent: Agent) -> list[int]:
    return [post.post_id for post in posts.list_posts(conn, agent.ctx, to_me=True, unacked_only=True, limit=200).posts]


def _to_lane(conn: Connection, agent: Agent, lane: str = "core", **more: Any) -> posts.CreatedPost:
    return posts.create(conn, agent.ctx, "hello", to_lane=lane, **more)


def test_a_lane_post_goes_to_its_members_but_not_to_the_sender(conn: Connection, project: Project) -> None:
    inside = [factories.make_agent(conn, project, lane="core") for _ in range(3)]
    outside = [factories.make_agent(conn, project, lane="docs"), factories.make_agent(conn, project)]
    posted = _to_lane(conn, inside[0])
    assert posted.recipients == 2
    assert [_inbox(conn, agent) for agent in inside] == [[], [posted.post_id], [posted.post_id]]
    assert [_inbox(conn, agent) for agent in outside] == [[], []]


def test_the_registered_lane_takes_precedence_over_the_granted_one(conn: Connection, project: Project) -> None:
    sender = factories.make_agent(conn, project)
    moved = factories.make_agent(conn, project, lane="core")
    came = factories.make_agent(conn, project, lane="docs")
    presence.register(conn, moved.ctx, "docs")
    presence.register(conn, came.ctx, "core")
    posted = _to_lane(conn, sender)
    assert (posted.recipients, _inbox(conn, moved), _inbox(conn, came)) == (1, [], [posted.post_id])


def test_a_sighting_does_not_change_the_lane(conn: Connection, project: Project) -> None:
    """With a presence row without a lane the granted lane applies."""
    sender = factories.make_agent(conn, project)
    granted = factories.make_agent(conn, project, lane="core")
    presence.record_seen(conn, {granted.ctx.participation_id: 0.0})
    assert _to_lane(conn, sender).recipients == 1


def test_a_post_to_a_lane_and_its_member_is_delivered_once(conn: Connection, project: Project) -> None:
    sender = factories.make_agent(conn, project)
    member = factories.make_agent(conn, project, "member", lane="core")
    other = factories.make_agent(conn, project, "other", lane="docs")
    twice = _to_lane(conn, sender, to_actor="member")
    assert (twice.recipients, _inbox(conn, member)) == (1, [twice.post_id])
    both = _to_lane(conn, sender, to_actor="other")
    assert (both.recipients, _inbox(conn, other), _inbox(conn, member)) == (
        2,
        [both.post_id],
        [both.post_id, twice.post_id],
    )


def test_a_post_to_an_empty_lane_is_delivered_to_a_joining_member(conn: Connection, ada: Agent, bob: Agent) -> None:
    posted = _to_lane(conn, ada, "empty")
    assert posted.recipients == 0
    assert _inbox(conn, bob) == []
    registered = presence.register(conn, bob.ctx, "empty")
    assert registered.unread == 1
    assert _inbox(conn, bob) == [posted.post_id]
    # The event has the number of deliveries at the time of the post.
    assert conn.fetch_one("SELECT recipients FROM post WHERE project_id = %s", (ada.ctx.project_id,)) == (0,)


def test_a_granted_lane_is_joined_at_once(conn: Connection, ada: Agent, project: Project) -> None:
    posted = _to_lane(conn, ada, "docs")
    assert _inbox(conn, factories.make_agent(conn, project, lane="docs")) == [posted.post_id]
    assert _inbox(conn, factories.make_agent(conn, project)) == []


def test_a_joining_member_receives_only_unacked_posts(conn: Connection, ada: Agent, bob: Agent, root: Agent) -> None:
    presence.register(conn, bob.ctx, "core")
    done, waiting = _to_lane(conn, ada), _to_lane(conn, ada)
    posts.ack(conn, bob.ctx, [done.post_id])
    presence.register(conn, root.ctx, "core")
    assert _inbox(conn, root) == [waiting.post_id]


def test_a_joining_member_does_not_receive_its_own_posts(conn: Connection, ada: Agent, bob: Agent) -> None:
    _to_lane(conn, bob)
    theirs = _to_lane(conn, ada)
    presence.register(conn, bob.ctx, "core")
    assert _inbox(conn, bob) == [theirs.post_id]


def test_a_joining_member_receives_the_newest_hundred(conn: Connection, ada: Agent, bob: Agent) -> None:
    sent = [_to_lane(conn, ada).post_id for _ in range(103)]
    presence.register(conn, bob.ctx, "core")
    assert _inbox(conn, bob) == sent[:2:-1]


def test_leaving_a_lane_withdraws_unacked_posts(conn: Connection, ada: Agent, bob: Agent) -> None:
    presence.register(conn, bob.ctx, "core")
    acked, waiting = _to_lane(conn, ada), _to_lane(conn, ada)
    named = _to_lane(conn, ada, to_actor="bob")
    direct = posts.create(conn, ada.ctx, "you", to_actor="bob")
    docs = _to_lane(conn, ada, "docs")
    posts.ack(conn, bob.ctx, [acked.post_id])
    registered = presence.register(conn, bob.ctx, "docs")
    # Posts addressed to bob by name stay, also with a lane; those of the new lane are delivered.
    assert _inbox(conn, bob) == [docs.post_id, direct.post_id, named.post_id]
    assert registered.unread == 3
    assert [p.post_id for p in posts.list_posts(conn, bob.ctx, to_me=True).posts] == [
        docs.post_id, direct.post_id, named.post_id, acked.post_id,
    ]  # fmt: skip
    # Rejoining delivers the posts that are still unacked.
    presence.register(conn, bob.ctx, "core")
    assert _inbox(conn, bob) == [direct.post_id, named.post_id, waiting.post_id]


def test_leaving_the_granted_lane_withdraws_posts_too(conn: Connection, ada: Agent, project: Project) -> None:
    member = factories.make_agent(conn, project, lane="core")
    _to_lane(conn, ada)
    assert len(_inbox(conn, member)) == 1
    presence.register(conn, member.ctx, "docs")
    assert _inbox(conn, member) == []


def test_a_change_of_status_moves_no_posts(conn: Connection, ada: Agent, bob: Agent) -> None:
    presence.register(conn, bob.ctx, "core")
    posted = _to_lane(conn, ada)
    presence.register(conn, bob.ctx, "core", status="busy")
    assert _inbox(conn, bob) == [posted.post_id]
    assert list_event_types(conn, ada.ctx.project_id) == ["register", "post", "register"]


def test_registering_the_granted_lane_delivers_nothing_twice(conn: Connection, ada: Agent, project: Project) -> None:
    member = factories.make_agent(conn, project, lane="core")
    posted = _to_lane(conn, ada)
    posts.ack(conn, member.ctx, [posted.post_id])
    presence.register(conn, member.ctx, "core")
    assert _inbox(conn, member) == []


@pytest.mark.parametrize("how", ["revoked", "expired", "removed", "participant removed"])
def test_a_participant_without_access_is_in_no_lane(conn: Connection, ada: Agent, project: Project, how: str) -> None:
    member = factories.make_agent(conn, project, "member", lane="core")
    if how == "revoked":
        tokens.revoke_all(conn, project.id, "member", actor="cli")
    elif how == "removed":
        participations.remove(conn, project.id, "member", actor="cli")
    else:
        table, column, row = (
            ("token", "expires_at", member.ctx.token_id)
            if how == "expired"
            else ("participant", "removed_at", member.ctx.participant_id)
        )
        conn.execute(f"UPDATE {table} SET {column} = clock_timestamp() WHERE id = %s", (row,))
    assert _to_lane(conn, ada).recipients == 0


def test_a_new_token_restores_membership_of_the_lane(conn: Connection, ada: Agent, project: Project) -> None:
    member = factories.make_agent(conn, project, "member", lane="docs")
    presence.register(conn, member.ctx, "core")
    before = _to_lane(conn, ada)
    tokens.revoke_all(conn, project.id, "member", actor="cli")
    missed = _to_lane(conn, ada)
    elsewhere = _to_lane(conn, ada, "docs")
    assert (missed.recipients, elsewhere.recipients) == (0, 0)
    back = factories.authenticate_agent(conn, tokens.rotate(conn, project.id, "member", actor="cli"))
    assert _inbox(conn, back) == [missed.post_id, before.post_id]
    assert _to_lane(conn, ada).recipients == 1


def test_one_live_token_of_two_keeps_a_member_in_its_lane(conn: Connection, ada: Agent, project: Project) -> None:
    member = factories.make_agent(conn, project, "member", lane="core")
    second = token_store.generate(conn, member.ctx.participation_id)
    token_store.revoke_all(conn, [member.ctx.participation_id], except_token_id=second.id)
    assert _to_lane(conn, ada).recipients == 1


def test_the_first_ack_confirms_a_lane_post_and_others_can_still_ack(
    conn: Connection, ada: Agent, project: Project
) -> None:
    one = factories.make_agent(conn, project, lane="core")
    two = factories.make_agent(conn, project, lane="core")
    posted = _to_lane(conn, ada)
    (first,) = posts.ack(conn, one.ctx, [posted.post_id])
    assert _inbox(conn, two) == [posted.post_id]
    assert not posts.list_posts(conn, two.ctx).posts[0].acked
    assert [p.post_id for p in posts.list_posts(conn, two.ctx, unacked_only=True).posts] == [posted.post_id]
    assert posts.list_posts(conn, one.ctx, unacked_only=True).posts == []
    posts.ack(conn, two.ctx, [posted.post_id])
    (post,) = posts.list_posts(conn, ada.ctx).posts
    assert post.acked_by == [one.actor, two.actor]
    assert conn.fetch_one("SELECT acked_at FROM post WHERE project_id = %s", (project.id,)) == (first.acked_at,)
    assert assert_ledger_consistent(conn, project.id) == 3


def test_lanes_are_compared_in_nfc(conn: Connection, ada: Agent, bob: Agent) -> None:
    presence.register(conn, bob.ctx, "cafe\u0301")
    assert _to_lane(conn, ada, "caf\u00e9").recipients == 1
