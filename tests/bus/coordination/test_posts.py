"""Posts and acks: addressing, one delivery per recipient, one ack per recipient."""

import pytest

from bus.coordination import posts
from bus.db import Connection
from bus.tenancy import participations
from bus.tenancy.projects import Project
from tests import factories
from tests.assertions import assert_ledger_consistent, assert_refused, database_checksum, list_event_types, list_events
from tests.factories import Agent


def _inbox(conn: Connection, agent: Agent) -> list[int]:
    return [post.post_id for post in posts.list_posts(conn, agent.ctx, to_me=True, unacked_only=True).posts]


def test_a_post_to_a_participant_is_delivered_and_recorded_without_its_body(
    conn: Connection, ada: Agent, bob: Agent
) -> None:
    posted = posts.create(
        conn, ada.ctx, "the secret body", to_actor="bob", subject="Review", ref="PR-7", tag="review",
        ack_within_seconds=60,
    )  # fmt: skip
    assert posted.recipients == 1
    assert list_events(conn, ada.ctx.project_id) == [
        (
            posted.post_id,
            "post",
            {
                "to_lane": None,
                "to_actor": bob.actor,
                "subject": "Review",
                "ref": "PR-7",
                "tag": "review",
                "reply_to": None,
                "recipients": 1,
            },
        )
    ]
    (post,) = posts.list_posts(conn, bob.ctx, to_me=True).posts
    assert (post.post_id, post.sender, post.to_actor, post.to_lane) == (
        posted.post_id,
        ada.actor,
        bob.actor,
        None,
    )
    assert (post.subject, post.body, post.ref, post.tag) == ("Review", "the secret body", "PR-7", "review")
    assert (post.reply_to, post.created_at, post.acked, post.acked_by) == (None, posted.created_at, False, [])
    (due,) = conn.fetch_one("SELECT ack_due_at - created_at FROM post WHERE id = %s AND project_id = %s",
                      (posted.post_id, ada.ctx.project_id))  # fmt: skip
    assert due.total_seconds() == 60


def test_the_id_of_a_post_is_the_number_of_its_event(conn: Connection, ada: Agent, bob: Agent) -> None:
    first = posts.create(conn, ada.ctx, "one", to_actor="bob").post_id
    posts.ack(conn, bob.ctx, [first])
    second = posts.create(conn, ada.ctx, "two", to_actor="bob").post_id
    assert (first, second) == (1, 3)
    assert list_event_types(conn, ada.ctx.project_id) == ["post", "ack", "post"]


@pytest.mark.parametrize("spelling", ["bob", "BOB", "Bob", "{handle}/bob", "{handle}/BOB", "ｂｏｂ"])
def test_a_recipient_is_named_by_label_or_qualified_name(
    conn: Connection, ada: Agent, bob: Agent, spelling: str
) -> None:
    posted = posts.create(conn, ada.ctx, "hello", to_actor=spelling.format(handle=bob.handle))
    assert _inbox(conn, bob) == [posted.post_id]


def test_an_unknown_recipient_is_refused_with_similar_names(conn: Connection, ada: Agent, project: Project) -> None:
    for name in ("builder-1", "builder-2", "builder-3", "builder-4", "builder-5", "builder-6", "unlike"):
        factories.make_agent(conn, project, name)
    before = database_checksum(conn)
    with assert_refused(conn, "unknown_recipient") as caught:
        posts.create(conn, ada.ctx, "hello", to_actor="buildr-1")
    assert "builder-1" in caught.value.message
    assert len(caught.value.data["near"]) == 5
    assert "names" not in caught.value.data
    assert "unlike" not in caught.value.data["near"]
    with assert_refused(conn, "unknown_recipient") as caught:
        posts.create(conn, ada.ctx, "hello", to_actor="zzzzzz")
    assert caught.value.data["near"] == []
    assert database_checksum(conn) == before


def test_a_wrong_handle_is_an_unknown_recipient(conn: Connection, ada: Agent, bob: Agent) -> None:
    other = factories.make_agent(conn, None, "bob")
    for name in (f"{other.handle}/bob", "no-such-handle/bob", "root/bob"):
        with assert_refused(conn, "unknown_recipient"):
            posts.create(conn, ada.ctx, "hello", to_actor=name)
    assert _inbox(conn, bob) == _inbox(conn, other) == []


def test_a_removed_participant_receives_nothing(conn: Connection, ada: Agent, bob: Agent, project: Project) -> None:
    participations.remove(conn, project.id, "bob", actor="cli")
    with assert_refused(conn, "unknown_recipient") as caught:
        posts.create(conn, ada.ctx, "hello", to_actor="bob")
    assert caught.value.data["near"] == []


def test_a_post_needs_an_address(conn: Connection, ada: Agent) -> None:
    with assert_refused(conn, "invalid_argument"):
        posts.create(conn, ada.ctx, "hello")


def test_a_reply_refers_to_a_post_of_the_project(conn: Connection, ada: Agent, bob: Agent) -> None:
    first = posts.create(conn, ada.ctx, "question", to_actor="bob").post_id
    reply = posts.create(conn, bob.ctx, "answer", to_actor="ada", reply_to=first).post_id
    assert [(p.post_id, p.reply_to) for p in posts.list_posts(conn, ada.ctx, reply_to=first).posts] == [(reply, first)]
    assert list_events(conn, ada.ctx.project_id)[1][2]["reply_to"] == first
    before = database_checksum(conn)
    for missing in (reply + 1, 2**53 - 1):
        with assert_refused(conn, "not_found"):
            posts.create(conn, bob.ctx, "answer", to_actor="ada", reply_to=missing)
    assert database_checksum(conn) == before


def test_the_number_of_another_event_is_not_a_post(conn: Connection, ada: Agent, bob: Agent) -> None:
    post = posts.create(conn, ada.ctx, "hello", to_actor="bob").post_id
    posts.ack(conn, bob.ctx, [post])
    with assert_refused(conn, "not_found"):
        posts.ack(conn, bob.ctx, [post + 1])
    with assert_refused(conn, "not_found"):
        posts.create(conn, bob.ctx, "answer", to_actor="ada", reply_to=post + 1)


def test_the_first_ack_stands_and_a_repeated_one_adds_nothing(conn: Connection, ada: Agent, bob: Agent) -> None:
    post = posts.create(conn, ada.ctx, "hello", to_actor="bob").post_id
    (first,) = posts.ack(conn, bob.ctx, [post])
    before = database_checksum(conn)
    assert posts.ack(conn, bob.ctx, [post]) == [first]
    assert posts.ack(conn, bob.ctx, [post, post]) == [first]
    assert database_checksum(conn) == before
    assert list_events(conn, ada.ctx.project_id)[1] == (2, "ack", {"post_id": post})
    (seen,) = posts.list_posts(conn, ada.ctx).posts
    assert seen.acked
    assert seen.acked_by == [bob.actor]
    assert conn.fetch_one("SELECT acked_at FROM post WHERE project_id = %s AND id = %s",
                    (ada.ctx.project_id, post)) == (first.acked_at,)  # fmt: skip


def test_one_call_acks_several_posts_with_one_event_each(conn: Connection, ada: Agent, bob: Agent) -> None:
    sent = [posts.create(conn, ada.ctx, str(n), to_actor="bob").post_id for n in range(4)]
    posts.ack(conn, bob.ctx, [sent[1]])
    acked = posts.ack(conn, bob.ctx, [sent[3], sent[0], sent[1], sent[3]])
    assert [ack.post_id for ack in acked] == [sent[3], sent[0], sent[1]]
    assert acked[0].acked_at == acked[1].acked_at > acked[2].acked_at or acked[0].acked_at >= acked[2].acked_at
    events = [(payload["post_id"]) for _, kind, payload in list_events(conn, ada.ctx.project_id) if kind == "ack"]
    assert sorted(events) == [sent[0], sent[1], sent[3]]
    assert len(events) == 3
    assert assert_ledger_consistent(conn, ada.ctx.project_id) == 7
    assert _inbox(conn, bob) == [sent[2]]


def test_acks_are_all_or_none(conn: Connection, ada: Agent, bob: Agent) -> None:
    post = posts.create(conn, ada.ctx, "hello", to_actor="bob").post_id
    before = database_checksum(conn)
    with assert_refused(conn, "not_found") as caught:
        posts.ack(conn, bob.ctx, [post, 99, 98])
    assert "98, 99" in caught.value.message
    assert database_checksum(conn) == before


def test_at_most_a_hundred_posts_are_acked_at_once(conn: Connection, ada: Agent, bob: Agent) -> None:
    sent = [posts.create(conn, ada.ctx, str(n), to_actor="bob").post_id for n in range(101)]
    with assert_refused(conn, "invalid_argument"):
        posts.ack(conn, bob.ctx, sent)
    with assert_refused(conn, "invalid_argument"):
        posts.ack(conn, bob.ctx, [])
    assert len(posts.ack(conn, bob.ctx, sent[:100])) == 100
    assert _inbox(conn, bob) == sent[100:]
    assert assert_ledger_consistent(conn, ada.ctx.project_id) == 201


def test_a_post_to_others_can_be_acked(conn: Connection, ada: Agent, bob: Agent, root: Agent) -> None:
    post = posts.create(conn, ada.ctx, "hello", to_actor="bob").post_id
    posts.ack(conn, root.ctx, [post])
    (seen,) = posts.list_posts(conn, ada.ctx).posts
    assert (seen.acked, seen.acked_by) == (True, [root.actor])
    # It was not delivered to root, so it is not in root's inbox; it is still in bob's.
    assert posts.list_posts(conn, root.ctx, to_me=True).posts == []
    assert _inbox(conn, bob) == [post]
    (his,) = posts.list_posts(conn, bob.ctx).posts
    assert not his.acked
    posts.ack(conn, bob.ctx, [post])
    assert posts.list_posts(conn, ada.ctx).posts[0].acked_by == [root.actor, bob.actor]


def test_an_ack_by_the_sender_confirms_nothing(conn: Connection, ada: Agent, bob: Agent) -> None:
    post = posts.create(conn, ada.ctx, "hello", to_lane="core").post_id
    posts.ack(conn, ada.ctx, [post])
    assert not posts.list_posts(conn, bob.ctx).posts[0].acked
    assert conn.fetch_one("SELECT acked_at FROM post WHERE project_id = %s", (ada.ctx.project_id,)) == (None,)
    # The sender sees its ack with every filter.
    assert posts.list_posts(conn, ada.ctx).posts[0].acked
    assert posts.list_posts(conn, ada.ctx, unacked_only=True).posts == []
    assert [p.post_id for p in posts.list_posts(conn, bob.ctx, unacked_only=True).posts] == [post]


def test_a_post_to_its_sender_is_delivered_and_confirmed_by_its_ack(conn: Connection, ada: Agent) -> None:
    """Sub-agents share an identity, so a post between two of them is addressed to its sender."""
    post = posts.create(conn, ada.ctx, "for my next session", to_actor="ada", ack_within_seconds=60)
    assert post.recipients == 1
    assert _inbox(conn, ada) == [post.post_id]
    (ack,) = posts.ack(conn, ada.ctx, [post.post_id])
    assert _inbox(conn, ada) == []
    assert posts.list_posts(conn, ada.ctx).posts[0].acked
    assert posts.list_posts(conn, ada.ctx, unacked_only=True).posts == []
    assert conn.fetch_one("SELECT acked_at FROM post WHERE project_id = %s", (ada.ctx.project_id,)) == (ack.acked_at,)


def test_results_have_the_unread_count_up_to_a_hundred(conn: Connection, ada: Agent, bob: Agent) -> None:
    for number in range(1, 103):
        posted = posts.create(conn, ada.ctx, str(number), to_actor="bob")
        assert posted.unread == 0
        assert posts.list_posts(conn, bob.ctx, limit=1).unread == min(number, 100)
    posts.ack(conn, bob.ctx, [post.post_id for post in posts.list_posts(conn, bob.ctx, limit=50).posts])
    assert posts.list_posts(conn, bob.ctx, limit=1).unread == 52


@pytest.mark.parametrize("body", ["x", "x" * 8000, "𝕏" * 8000, "a\nb\tc\r\n", "\u202eעברית", "{}", "%s %(x)s", "'; --"])
def test_a_body_is_returned_unchanged(conn: Connection, ada: Agent, body: str) -> None:
    posts.create(conn, ada.ctx, body, to_lane="core", subject=body[:200])
    (post,) = posts.list_posts(conn, ada.ctx).posts
    assert (post.body, post.subject) == (body, body[:200])
