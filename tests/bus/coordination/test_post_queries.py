"""read_posts: filters, their combinations and pages, compared with a model in Python."""

import itertools
from typing import Any

import pytest

from bus import limits
from bus.coordination import posts, presence, surfacing
from bus.db import Connection
from bus.tenancy.projects import Project
from tests import factories
from tests.factories import Agent


class _SamplePosts:
    """Forty posts of every kind between three participants, some of them acked."""

    def __init__(self, conn: Connection, project: Project) -> None:
        self.ada = factories.make_agent(conn, project, "ada", lane="core")
        self.bob = factories.make_agent(conn, project, "bob", lane="core")
        self.eve = factories.make_agent(conn, project, "eve", lane="docs")
        agents = itertools.cycle([self.ada, self.bob, self.eve])
        self.sent: list[int] = []
        for number, agent in zip(range(40), agents, strict=False):
            to = [("core", None), (None, "ada"), ("docs", None), ("core", "eve"), (None, "bob")][number % 5]
            posted = posts.create(
                conn,
                agent.ctx,
                f"body {number}",
                to_lane=to[0],
                to_actor=to[1],
                tag=[None, "red", "blue"][number % 3],
                ref=[None, "PR-1"][number % 2],
                reply_to=self.sent[0] if number in (7, 14, 21) else None,
            )
            self.sent.append(posted.post_id)
        for agent, every in ((self.ada, 4), (self.bob, 6), (self.eve, 9)):
            posts.ack(conn, agent.ctx, self.sent[::every])


def _list_all(conn: Connection, agent: Agent, **filters: Any) -> list[posts.Post]:
    page = posts.list_posts(conn, agent.ctx, limit=200, **filters)
    assert page.next_before is None
    return page.posts


_FILTERS: list[dict[str, Any]] = [
    {},
    {"to_lane": "core"},
    {"tag": "red"},
    {"ref": "PR-1"},
    {"reply_to": 1},
    {"to_lane": "core", "tag": "blue"},
    {"tag": "red", "ref": "PR-1"},
    {"to_lane": "docs", "reply_to": 1},
    {"to_lane": "nowhere"},
    {"tag": "nothing"},
]
_SCOPES = [(False, False), (True, False), (False, True), (True, True)]


@pytest.mark.parametrize(("to_me", "unacked_only"), _SCOPES)
def test_every_combination_of_filters_returns_exactly_its_posts(
    conn: Connection, project: Project, to_me: bool, unacked_only: bool
) -> None:
    sample = _SamplePosts(conn, project)
    for agent in (sample.ada, sample.bob, sample.eve):
        all_posts = _list_all(conn, agent)
        assert [post.post_id for post in all_posts] == sample.sent[::-1]
        inbox = {
            post_id
            for (post_id,) in conn.fetch_all(
                "SELECT post_id FROM delivery WHERE project_id = %s AND participation_id = %s AND addressed",
                (project.id, agent.ctx.participation_id),
            )
        }
        for filters in _FILTERS:
            expected = [
                post
                for post in all_posts
                if all(getattr(post, name) == value for name, value in filters.items())
                and (not to_me or post.post_id in inbox)
                and (not unacked_only or not post.acked)
            ]
            listed = _list_all(conn, agent, to_me=to_me, unacked_only=unacked_only, **filters)
            assert listed == expected, (agent.label, filters)


@pytest.mark.parametrize(("to_me", "unacked_only"), _SCOPES)
@pytest.mark.parametrize("filters", [{}, {"to_lane": "core"}, {"tag": "red"}, {"ref": "PR-1"}])
def test_pages_contain_every_post_once(
    conn: Connection, project: Project, to_me: bool, unacked_only: bool, filters: dict[str, Any]
) -> None:
    sample = _SamplePosts(conn, project)
    expected = _list_all(conn, sample.bob, to_me=to_me, unacked_only=unacked_only, **filters)
    assert expected
    for limit in (1, 3, len(expected), len(expected) + 1):
        paged: list[posts.Post] = []
        before = None
        # Bounded, because a page that repeats a post would never end.
        for _ in range(len(expected)):
            page = posts.list_posts(
                conn,
                sample.bob.ctx,
                to_me=to_me,
                unacked_only=unacked_only,
                before=before,
                limit=limit,
                **filters,
            )
            assert len(page.posts) <= limit
            paged += page.posts
            before = page.next_before
            if before is None:
                break
            assert before == page.posts[-1].post_id
        assert paged == expected


def test_new_posts_do_not_shift_the_pages(conn: Connection, ada: Agent, bob: Agent) -> None:
    sent = [posts.create(conn, ada.ctx, str(n), to_actor="bob").post_id for n in range(6)]
    first = posts.list_posts(conn, bob.ctx, to_me=True, unacked_only=True, limit=3)
    posts.create(conn, ada.ctx, "new", to_actor="bob")
    posts.ack(conn, bob.ctx, [first.posts[0].post_id])
    second = posts.list_posts(conn, bob.ctx, to_me=True, unacked_only=True, limit=3, before=first.next_before)
    assert [post.post_id for post in first.posts + second.posts] == sent[::-1]
    assert second.next_before is None


def test_reading_changes_nothing(conn: Connection, ada: Agent, bob: Agent) -> None:
    posts.create(conn, ada.ctx, "hello", to_actor="bob")
    first = posts.list_posts(conn, bob.ctx, to_me=True, unacked_only=True)
    assert posts.list_posts(conn, bob.ctx, to_me=True, unacked_only=True) == first
    assert first.unread == 1


def test_the_default_limit_is_fifty(conn: Connection, ada: Agent) -> None:
    sent = [posts.create(conn, ada.ctx, str(n), to_lane="core").post_id for n in range(51)]
    page = posts.list_posts(conn, ada.ctx)
    assert [post.post_id for post in page.posts] == sent[:0:-1]
    assert page.next_before == sent[1]


def test_acked_by_names_the_first_fifty(conn: Connection, project: Project, ada: Agent) -> None:
    members = [factories.make_agent(conn, project, lane="core") for _ in range(51)]
    posted = posts.create(conn, ada.ctx, "all hands", to_lane="core")
    assert posted.recipients == 51
    for member in members:
        posts.ack(conn, member.ctx, [posted.post_id])
    assert posts.list_posts(conn, ada.ctx).posts[0].acked_by == [member.actor for member in members[:50]]


def test_a_withdrawn_post_leaves_the_inbox_and_stays_in_the_project(conn: Connection, ada: Agent, bob: Agent) -> None:
    presence.register(conn, bob.ctx, "core")
    posted = posts.create(conn, ada.ctx, "hello", to_lane="core")
    presence.register(conn, bob.ctx, "docs")
    assert posts.list_posts(conn, bob.ctx, to_me=True).posts == []
    assert [post.post_id for post in posts.list_posts(conn, bob.ctx).posts] == [posted.post_id]


def test_a_page_is_bounded_by_the_bytes_of_its_bodies(conn: Connection, ada: Agent, bob: Agent) -> None:
    bodies = ["x" * 8000, "é" * 8000, "short", "y" * 8000, "😀" * 8000] * 8
    sent = [posts.create(conn, ada.ctx, body, to_actor="bob").post_id for body in bodies]
    listed: list[int] = []
    before = None
    # Bounded, because a page that repeats a post would never end.
    for _ in range(len(sent)):
        page = posts.list_posts(conn, bob.ctx, to_me=True, limit=200, before=before)
        sizes = [len(post.body.encode()) for post in page.posts]
        assert sum(sizes) <= limits.MAX_PAGE_BYTES
        listed += [post.post_id for post in page.posts]
        if page.next_before is None:
            break
        # The next post would not have fitted.
        following = posts.list_posts(conn, bob.ctx, to_me=True, limit=1, before=page.next_before).posts[0]
        assert sum(sizes) + len(following.body.encode()) > limits.MAX_PAGE_BYTES
        before = page.next_before
    assert listed == sent[::-1]


def test_a_single_post_is_never_cut(conn: Connection, ada: Agent, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_PAGE_BYTES", 10)
    for _ in range(3):
        posts.create(conn, ada.ctx, "x" * 8000, to_lane="docs")
    page = posts.list_posts(conn, ada.ctx)
    assert [len(post.body) for post in page.posts] == [8000]
    assert page.next_before == page.posts[0].post_id


def test_the_sender_sees_the_delivery_counts_of_its_post(
    conn: Connection, project: Project, ada: Agent, bob: Agent
) -> None:
    eve = factories.make_agent(conn, project, "eve", lane="docs")
    zoe = factories.make_agent(conn, project, "zoe", lane="docs")
    post_id = posts.create(conn, ada.ctx, "hello", to_lane="docs", to_actor="bob").post_id

    def seen() -> Any:
        (post,) = posts.list_posts(conn, ada.ctx).posts
        return post.deliveries

    def show(agent: Agent) -> None:
        (shown,) = posts.list_posts(conn, agent.ctx, to_me=True).surfacing
        surfacing.mark_surfaced(conn, {(project.id, agent.ctx.participation_id, shown): 0.5})

    assert seen() == posts.DeliveryCounts(queued=3, surfaced=0, acked=0)
    show(bob)
    assert seen() == posts.DeliveryCounts(queued=2, surfaced=1, acked=0)
    # A post is surfacing once only, and an ack counts without a prior sighting.
    assert posts.list_posts(conn, bob.ctx, to_me=True).surfacing == []
    posts.ack(conn, eve.ctx, [post_id])
    assert seen() == posts.DeliveryCounts(queued=1, surfaced=1, acked=1)
    posts.ack(conn, bob.ctx, [post_id])
    show(zoe)
    assert seen() == posts.DeliveryCounts(queued=0, surfaced=1, acked=2)
    # Only the sender sees the counts, and its own reads do not change them.
    (others,) = posts.list_posts(conn, bob.ctx).posts
    assert others.deliveries is None
    assert posts.list_posts(conn, ada.ctx).surfacing == []


def test_the_first_surfacing_stands(conn: Connection, ada: Agent, bob: Agent) -> None:
    post_id = posts.create(conn, ada.ctx, "hello", to_actor="bob").post_id
    key = (bob.ctx.project_id, bob.ctx.participation_id, post_id)
    surfacing.mark_surfaced(conn, {key: 5.0})
    first = conn.fetch_one("SELECT surfaced_at FROM delivery WHERE project_id = %s AND post_id = %s", (key[0], post_id))
    surfacing.mark_surfaced(conn, {key: 0.0, (key[0], key[1], 999_999): 0.0})
    assert (
        conn.fetch_one("SELECT surfaced_at FROM delivery WHERE project_id = %s AND post_id = %s", (key[0], post_id))
        == first
    )


def test_a_long_list_cuts_bodies_and_returns_them_whole_by_id(conn: Connection, ada: Agent, bob: Agent) -> None:
    bodies = ["é" * 1000, "y" * 150, *("x" * 400 for _ in range(20))]
    sent = [posts.create(conn, ada.ctx, body, to_actor="bob").post_id for body in bodies]
    page = posts.list_posts(conn, bob.ctx, to_me=True, whole_bodies=False)
    assert page.has_cut_bodies
    shown = {post.post_id: (post.body, post.body_length) for post in page.posts}
    assert shown[sent[0]] == ("é" * 200 + "…", 1000)
    assert shown[sent[1]] == ("y" * 150, None)
    assert shown[sent[2]] == ("x" * 200 + "…", 400)
    for whole in (
        posts.list_posts(conn, bob.ctx, post_ids=sent[:2]),
        posts.list_posts(conn, bob.ctx, to_me=True),
    ):
        assert not whole.has_cut_bodies
        assert {post.post_id: post.body for post in whole.posts}[sent[0]] == bodies[0]
    assert [post.post_id for post in posts.list_posts(conn, bob.ctx, post_ids=[*sent[:2], 10**6]).posts] == sent[1::-1]


def test_a_list_of_many_posts_cuts_bodies_further(conn: Connection, ada: Agent, bob: Agent) -> None:
    for _ in range(60):
        posts.create(conn, ada.ctx, "x" * 300, to_actor="bob")
    page = posts.list_posts(conn, bob.ctx, to_me=True, limit=60, whole_bodies=False)
    assert {len(post.body) for post in page.posts} == {limits.MIN_PREVIEW_LENGTH + 1}
    page = posts.list_posts(conn, bob.ctx, to_me=True, limit=40, whole_bodies=False)
    assert {len(post.body) for post in page.posts} == {limits.PREVIEW_BUDGET // 40 + 1}


def test_bodies_are_whole_up_to_the_length_of_one(conn: Connection, ada: Agent, bob: Agent) -> None:
    posts.create(conn, ada.ctx, "😀" * limits.MAX_BODY_LENGTH, to_actor="bob")
    assert not posts.list_posts(conn, bob.ctx, to_me=True, whole_bodies=False).has_cut_bodies
    posts.create(conn, ada.ctx, "short", to_actor="bob")
    assert posts.list_posts(conn, bob.ctx, to_me=True, whole_bodies=False).has_cut_bodies


def test_text_survives_the_json_of_postgresql(conn: Connection, ada: Agent, bob: Agent) -> None:
    text = '"quoted" \\ / \n\t\r\x7f \u2028 </script> {} % 😀 é'
    posts.create(conn, ada.ctx, text, to_actor="bob", subject=text.replace("\n", " "))
    (post,) = posts.list_posts(conn, bob.ctx).posts
    assert (post.body, post.subject) == (text, text.replace("\n", " "))
