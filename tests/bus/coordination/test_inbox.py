"""The inbox of an owner: what is listed, in which order, from which projects, and what reading it costs."""

from typing import Any

import pytest

from bus.coordination import inbox, leases, posts, surfacing, tasks
from bus.db import Connection
from bus.tenancy import owner_participation, owners, projects
from bus.tenancy.projects import Project
from tests import factories, servers
from tests.factories import Agent


def _make_overdue(conn: Connection, project: Project, post_id: int, minutes: int) -> None:
    conn.enter_all_projects()
    conn.execute(
        "UPDATE post SET ack_due_at = clock_timestamp() - make_interval(mins => %s) WHERE project_id = %s AND id = %s",
        (minutes, project.id, post_id),
    )


def test_overdue_posts_come_first_then_the_oldest_of_all_projects(
    conn: Connection, project: Project, ada: Agent, bob: Agent
) -> None:
    owner = owners.get(conn, project.owner)
    second = factories.make_project(conn, "second", owner)
    carol, dan = factories.make_agent(conn, second, "carol"), factories.make_agent(conn, second, "dan", kind="human")
    oldest = posts.create(conn, ada.ctx, "oldest", to_actor="bob").post_id
    other = posts.create(conn, dan.ctx, "second line\nmore", to_actor="carol", subject="other").post_id
    late = posts.create(conn, ada.ctx, "late", to_actor="bob", ack_within_seconds=60).post_id
    later = posts.create(conn, carol.ctx, "later", to_actor="dan", ack_within_seconds=60).post_id
    acked = posts.create(conn, ada.ctx, "acked", to_actor="bob", ack_within_seconds=60).post_id
    posts.ack(conn, bob.ctx, [acked])
    _make_overdue(conn, project, late, 5)
    _make_overdue(conn, second, later, 10)

    listed = inbox.list_posts(conn, owner.id, "unanswered")

    assert [(item.project_name, item.post_id) for item in listed] == [
        ("second", later),
        (project.name, late),
        (project.name, oldest),
        ("second", other),
    ]
    assert [item.is_overdue for item in listed] == [True, True, False, False]
    assert (listed[3].title, listed[3].excerpt, listed[3].sender_is_person) == ("other", "second line more", True)
    assert (listed[0].sender_is_person, listed[0].recipient_is_person) == (False, True)
    assert [item.post_id for item in inbox.list_posts(conn, owner.id, "overdue")] == [later, late]
    only = inbox.list_posts(conn, owner.id, "unanswered", project_id=second.id)
    assert [item.post_id for item in only] == [later, other]


@pytest.mark.parametrize(
    ("body", "title"),
    [
        ("**Login** answers `404` since **PR-41**", "Login answers 404 since PR-41"),
        ("2**3 and 4**5, ** no **, `", "2**3 and 4**5, ** no **, `"),
        ("  \n## Ready for review\nmore", "Ready for review"),
        ("#12 is done", "#12 is done"),
        ("x" * 80, "x" * 80),
        ("# " + "x" * 81, "x" * 79 + "…"),
    ],
)
def test_a_post_without_a_subject_has_its_first_line_as_title(
    conn: Connection, project: Project, ada: Agent, bob: Agent, body: str, title: str
) -> None:
    post_id = posts.create(conn, ada.ctx, body, to_actor="bob").post_id
    (item,) = inbox.list_posts(conn, owners.get(conn, project.owner).id, "unanswered")
    (post,) = posts.list_by_id(conn, ada.ctx, [post_id]).posts
    assert (item.title, post.title) == (title, title)


def test_the_inbox_lists_what_the_owner_has_not_acked(conn: Connection, project: Project, ada: Agent) -> None:
    owner = owners.get(conn, project.owner)
    me = owner_participation.get_or_create_owner_context(conn, owner.id, project.id)
    mine = posts.create(conn, ada.ctx, "for you", to_actor=owner.handle).post_id
    posts.create(conn, ada.ctx, "for an empty lane", to_lane="empty")

    (item,) = inbox.list_posts(conn, owner.id, "for_me")

    assert (item.post_id, item.is_for_me, item.is_new_to_me, item.was_seen) == (mine, True, True, False)
    assert item.my_participation_id == me.participation_id
    surfacing.mark_surfaced(conn, {(project.id, me.participation_id, mine): 0.0})
    (item,) = inbox.list_posts(conn, owner.id, "for_me")
    assert (item.is_new_to_me, item.was_seen) == (False, True)
    posts.ack(conn, me, [mine])
    assert inbox.list_posts(conn, owner.id, "for_me") == []
    assert [item.is_for_me for item in inbox.list_posts(conn, owner.id, "unanswered")] == [False]


def test_other_owners_and_archived_projects_are_left_out(conn: Connection, project: Project, ada: Agent) -> None:
    owner = owners.get(conn, project.owner)
    stranger = factories.make_owner(conn, "stranger")
    posts.create(conn, ada.ctx, "hello", to_lane="core", ack_within_seconds=60)
    task_id = tasks.create(conn, ada.ctx, "blocked").task_id
    tasks.start(conn, ada.ctx, task_id)
    tasks.block(conn, ada.ctx, task_id, "waits")

    def numbers(owner_id: int, project_id: int | None = None) -> tuple[int, ...]:
        counts = inbox.get_counts(conn, owner_id, project_id=project_id)
        return counts.for_me, counts.unanswered, counts.overdue, counts.blocked, counts.conflicts

    assert numbers(owner.id) == (0, 1, 0, 1, 0)
    assert inbox.count_unanswered(conn, owner.id) == (1, 0)
    for project_id in (None, project.id):
        assert numbers(stranger.id, project_id) == (0, 0, 0, 0, 0)
        assert inbox.list_blocked_tasks(conn, stranger.id, project_id=project_id) == []
        for name in inbox.POST_LISTS:
            assert inbox.list_posts(conn, stranger.id, name, project_id=project_id) == []
    projects.archive(conn, project.id, actor=owner.handle)
    assert numbers(owner.id) == (0, 0, 0, 0, 0)
    assert inbox.list_posts(conn, owner.id, "unanswered") == []


def test_conflicts_and_counts(conn: Connection, project: Project, ada: Agent, bob: Agent) -> None:
    owner = owners.get(conn, project.owner)
    leases.acquire(conn, ada.ctx, "src/**")
    leases.acquire(conn, bob.ctx, "src/a.py")
    for number in range(inbox.COUNT_CAP + 5):
        posts.create(conn, ada.ctx, f"note {number}", to_actor="bob")

    counts = inbox.get_counts(conn, owner.id)

    assert (counts.unanswered, counts.conflicts) == (inbox.COUNT_CAP, 1)
    assert len(inbox.list_posts(conn, owner.id, "unanswered")) == inbox.MAX_ITEMS
    (conflict,) = inbox.list_conflicts(conn, owner.id)
    assert set(conflict.actors) == {ada.actor, bob.actor}


def test_reading_does_not_cost_more_with_more_posts(conn: Connection, project: Project, ada: Agent) -> None:
    owner = owners.get(conn, project.owner)
    posts.create(conn, ada.ctx, "one", to_lane="core")
    statements: list[tuple[str, Any]] = []

    class Recorder:
        def fetch_all_as(self, kind: Any, sql: str, params: Any) -> Any:
            statements.append((sql, params))
            return conn.fetch_all_as(kind, sql, params)

        def fetch_one(self, sql: str, params: Any) -> Any:
            statements.append((sql, params))
            return conn.fetch_one(sql, params)

    recorder: Any = Recorder()
    for name in inbox.POST_LISTS:
        inbox.list_posts(recorder, owner.id, name)
    inbox.count_unanswered(recorder, owner.id)

    def count_blocks_read() -> list[int]:
        plans = [conn.fetch_one(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {sql}", params) for sql, params in statements]
        return [plan[0]["Plan"]["Shared Hit Blocks"] + plan[0]["Plan"]["Shared Read Blocks"] for (plan,) in plans]

    def add_posts(first: int, last: int) -> None:
        conn.execute(
            "INSERT INTO post (project_id, id, participation_id, actor, to_lane, body, recipients, created_at,"
            "  ack_due_at, acked_at)"
            " SELECT %(project)s, n, %(me)s, 'x', 'core', 'body', 0, clock_timestamp(),"
            "  clock_timestamp() + interval '1 day' * (n %% 3 - 1),"
            "  CASE WHEN n %% 4 > 0 THEN clock_timestamp() END FROM generate_series(%(first)s::int, %(last)s) AS n",
            {"project": project.id, "me": ada.ctx.participation_id, "first": first, "last": last},
        )
        with servers.as_owner(conn):
            conn.execute("ANALYZE post")

    add_posts(1_000_001, 1_002_000)
    few = count_blocks_read()
    add_posts(1_002_001, 1_030_000)
    many = count_blocks_read()
    # Fifteen times as many posts, of which a quarter waits; an index may be one level deeper.
    assert all(after < 1.3 * before + 20 for before, after in zip(few, many, strict=True)), (few, many)
