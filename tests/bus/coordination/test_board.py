"""The live board: its content, its limits, and the changes of its version."""

from datetime import timedelta

from bus.coordination import board, leases, posts, presence, sequences, sessions, tasks
from bus.db import Connection
from bus.tenancy import participations
from bus.tenancy.projects import Project
from tests import factories
from tests.factories import Agent


def test_the_board_shows_participants_leases_claims_and_tasks(
    conn: Connection, project: Project, ada: Agent, bob: Agent
) -> None:
    presence.register(conn, ada.ctx, "core", status="moving prices")
    factories.make_agent(conn, project, "never-came", lane="docs")
    first = leases.acquire(conn, ada.ctx, "src/**").fence
    leases.acquire(conn, bob.ctx, "src/a.py", ttl=timedelta(minutes=5))
    leases.acquire(conn, bob.ctx, "docs", mode="shared")
    leases.release(conn, bob.ctx, "docs")
    sequences.claim(conn, ada.ctx, "adr")
    sequences.seed(conn, ada.ctx, "migration", 7)
    blocked = tasks.create(conn, ada.ctx, "waits").task_id
    tasks.start(conn, ada.ctx, blocked)
    tasks.block(conn, ada.ctx, blocked, "the vendor sleeps")
    for title in ("first", "second"):
        done = tasks.create(conn, ada.ctx, title).task_id
        tasks.start(conn, ada.ctx, done)
        tasks.ship(conn, ada.ctx, done)

    shown = board.get_board(conn, project.id)

    assert [lane for lane, _ in shown.participants_by_lane] == ["core", "docs", ""]
    ((_, (active,)), (_, (absent,)), (_, (other,))) = shown.participants_by_lane
    assert (active.actor, active.status, active.is_active) == (ada.actor, "moving prices", True)
    assert (other.actor, other.is_active, absent.last_seen, shown.participant_count) == (bob.actor, False, None, 3)
    assert [(one.surface, one.contending_actors) for one in shown.leases] == [
        ("src/a.py", (ada.actor,)),
        ("src/**", (bob.actor,)),
    ]
    assert shown.leases[1].fence == first
    assert round((shown.leases[0].expires_at - shown.leases[0].acquired_at).total_seconds()) == 300
    # A sequence that was only seeded has no latest claim.
    assert [(one.sequence, one.formatted, one.claimed_by) for one in shown.latest_claims] == [("adr", "1", ada.actor)]
    columns = {one.status: one for one in shown.task_columns}
    assert [one.title for one in columns["done"].tasks] == ["second", "first"]
    assert [(one.title, one.blocker_summary) for one in columns["blocked"].tasks] == [("waits", "the vendor sleeps")]
    assert [columns[status].count for status in columns] == [0, 0, 0, 1, 2]


def test_the_board_shows_the_progress_of_a_post(conn: Connection, project: Project, ada: Agent, bob: Agent) -> None:
    carol = factories.make_agent(conn, project, "carol", lane="core")
    presence.register(conn, bob.ctx, "core")
    sent = posts.create(conn, ada.ctx, "Look at this.", to_lane="core", subject="Review", ref="PR 7").post_id
    (one,) = board.get_board(conn, project.id).posts
    assert (one.addressed_to, one.title, one.ref, one.recipient_count, one.surfaced_count, one.acked_count) == (
        "lane core",
        "Review",
        "PR 7",
        2,
        0,
        0,
    )
    assert board.get_board(conn, project.id).unacked_count == 1
    posts.mark_surfaced(conn, {(project.id, bob.ctx.participation_id, sent): 0.0})
    (one,) = board.get_board(conn, project.id).posts
    assert (one.surfaced_count, one.acked_at, one.is_overdue) == (1, None, False)
    conn.execute(
        "UPDATE post SET ack_due_at = clock_timestamp() WHERE project_id = %s AND id = %s",
        (project.id, sent),
    )
    assert board.get_board(conn, project.id).posts[0].is_overdue
    posts.ack(conn, carol.ctx, [sent])
    posts.ack(conn, bob.ctx, [sent])
    shown = board.get_board(conn, project.id)
    (one,) = shown.posts
    assert (one.acked_by, one.acked_count, one.surfaced_count, one.is_overdue, shown.unacked_count) == (
        carol.actor,
        2,
        2,
        False,
        0,
    )
    assert one.time_to_ack is not None
    assert timedelta() < one.time_to_ack < timedelta(minutes=1)


def test_the_version_changes_with_every_event_and_every_sighting(
    conn: Connection, project: Project, ada: Agent, bob: Agent
) -> None:
    def version() -> str:
        # Without the last part, which changes with time.
        return board.get_version(conn, project.id).rpartition(".")[0]

    presence.register(conn, ada.ctx, "core")
    before = version()
    assert version() == before
    sequences.claim(conn, bob.ctx, "adr")
    claimed = version()
    assert claimed != before
    conn.execute("UPDATE presence SET last_seen = last_seen + interval '15 s' WHERE project_id = %s", (project.id,))
    assert version() != claimed
    # The board has the version from before it was read.
    assert board.get_board(conn, project.id).version.rpartition(".")[0] == version()


def test_a_board_shows_neither_other_projects_nor_removed_participants(
    conn: Connection, project: Project, ada: Agent, bob: Agent
) -> None:
    other = factories.make_project(conn, "other")
    leases.acquire(conn, ada.ctx, "src")
    posts.create(conn, ada.ctx, "hello", to_actor="bob")
    participations.remove(conn, project.id, "bob", actor="cli")
    assert [one.actor for one in board.get_board(conn, project.id).participants] == [ada.actor]
    shown = board.get_board(conn, other.id)
    assert (
        shown.participants,
        shown.posts,
        shown.leases,
        shown.latest_claims,
        shown.last_seq,
    ) == ([], [], [], [], 0)
    assert all(not one.tasks for one in shown.task_columns)


def test_long_lists_are_cut_and_counted(conn: Connection, project: Project, ada: Agent, bob: Agent) -> None:
    for number in range(board.MAX_LEASES + 2):
        leases.acquire(conn, ada.ctx, f"src/{number}.py")
    for number in range(board.MAX_POSTS + 3):
        posts.create(conn, ada.ctx, f"note {number}", to_actor="bob")
    for number in range(board.MAX_TASKS_PER_COLUMN + 1):
        tasks.create(conn, ada.ctx, f"task {number}")
    shown = board.get_board(conn, project.id)
    assert (len(shown.leases), shown.lease_count) == (board.MAX_LEASES, board.MAX_LEASES + 2)
    assert (len(shown.posts), shown.unacked_count) == (board.MAX_POSTS, board.MAX_POSTS + 3)
    # What waits longest is not cut.
    assert shown.posts[0].title == "note 0"
    (column,) = [one for one in shown.task_columns if one.status == "open"]
    assert (len(column.tasks), column.count) == (board.MAX_TASKS_PER_COLUMN, board.MAX_TASKS_PER_COLUMN + 1)


def test_the_board_shows_what_waits_before_what_is_new(
    conn: Connection, project: Project, ada: Agent, bob: Agent
) -> None:
    waiting = [posts.create(conn, ada.ctx, f"waiting {number}", to_actor="bob").post_id for number in range(2)]
    late = posts.create(conn, ada.ctx, "late\nwith more", to_actor="bob", ack_within_seconds=60).post_id
    conn.execute(
        "UPDATE post SET ack_due_at = clock_timestamp() - interval '1 hour' WHERE project_id = %s AND id = %s",
        (project.id, late),
    )
    acked = [
        posts.create(conn, ada.ctx, f"acked {number}", to_actor="bob").post_id for number in range(board.MAX_POSTS)
    ]
    posts.ack(conn, bob.ctx, acked)

    shown = board.get_board(conn, project.id).posts

    assert [post.post_id for post in shown] == [late, *waiting, *acked[: -board.MAX_POSTS + 2 : -1]]
    assert [post.title for post in shown[:2]] == ["late", "waiting 0"]


def test_contended_leases_come_first_then_those_that_end_soonest(
    conn: Connection, project: Project, ada: Agent, bob: Agent
) -> None:
    leases.acquire(conn, ada.ctx, "src/contended.py", ttl=timedelta(hours=5))
    leases.acquire(conn, bob.ctx, "src/contended.py", ttl=timedelta(hours=6))
    for number in range(board.MAX_LEASES):
        leases.acquire(conn, ada.ctx, f"docs/{number}.md", ttl=timedelta(minutes=60 - number))

    shown = board.get_board(conn, project.id).leases

    assert [lease.surface for lease in shown[:3]] == ["src/contended.py", "src/contended.py", "docs/29.md"]
    assert len(shown) == board.MAX_LEASES


def test_the_board_shows_how_a_participant_can_be_woken(conn: Connection, project: Project, ada: Agent) -> None:
    def wake() -> str | None:
        (participant,) = board.get_board(conn, project.id).participants
        return participant.wake

    assert wake() is None
    session = ada.ctx.with_session("one")
    sessions.look(conn, session, hooks=True)
    assert wake() == "hooks"
    sessions.report_wake(conn, [sessions.WakeReport((session.participation_id, "one"), waiting=True, listening=True)])
    assert wake() == "waiting"
    sessions.end(conn, session)
    assert wake() is None
