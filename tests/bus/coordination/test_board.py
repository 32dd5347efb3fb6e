"""The live board: what is on it, how little it reads, and when its mark moves."""

from datetime import timedelta

from bus.coordination import board, leases, posts, presence, sequences, tasks
from bus.db import Connection
from bus.tenancy import participations
from bus.tenancy.projects import Project
from tests import factories
from tests.factories import Agent


def test_the_board_shows_who_is_here_and_what_they_do(
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
    held = tasks.create(conn, ada.ctx, "waits").task_id
    tasks.start(conn, ada.ctx, held)
    tasks.block(conn, ada.ctx, held, "the vendor sleeps")
    for title in ("first", "second"):
        done = tasks.create(conn, ada.ctx, title).task_id
        tasks.start(conn, ada.ctx, done)
        tasks.ship(conn, ada.ctx, done)

    found = board.get_board(conn, project.id)

    assert [lane for lane, _ in found.participants_by_lane] == ["core", "docs", ""]
    ((_, (here,)), (_, (absent,)), (_, (other,))) = found.participants_by_lane
    assert (here.actor, here.status, here.is_active) == (ada.actor, "moving prices", True)
    assert (other.actor, other.is_active, absent.last_seen, found.participant_count) == (bob.actor, False, None, 3)
    assert [(one.surface, one.contending_actors) for one in found.leases] == [
        ("src/a.py", (ada.actor,)),
        ("src/**", (bob.actor,)),
    ]
    assert found.leases[1].fence == first
    assert round((found.leases[0].expires_at - found.leases[0].acquired_at).total_seconds()) == 300
    # A sequence that was only seeded has no latest number.
    assert [(one.sequence, one.formatted, one.claimed_by) for one in found.latest_claims] == [("adr", "1", ada.actor)]
    columns = {one.status: one for one in found.task_columns}
    assert [one.title for one in columns["done"].tasks] == ["second", "first"]
    assert [(one.title, one.blocker_summary) for one in columns["blocked"].tasks] == [("waits", "the vendor sleeps")]
    assert [columns[status].count for status in columns] == [0, 0, 0, 1, 2]


def test_a_handoff_is_followed_from_the_post_to_its_ack(
    conn: Connection, project: Project, ada: Agent, bob: Agent
) -> None:
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
    found = board.get_board(conn, project.id)
    (one,) = found.posts
    assert (one.acked_by, one.acked_count, one.surfaced_count, one.is_overdue, found.unacked_count) == (
        carol.actor,
        2,
        2,
        False,
        0,
    )
    assert one.time_to_ack is not None
    assert timedelta() < one.time_to_ack < timedelta(minutes=1)


def test_the_mark_moves_with_every_event_and_with_whoever_is_seen(
    conn: Connection, project: Project, ada: Agent, bob: Agent
) -> None:
    def mark() -> str:
        # Without its turn, which moves by the clock.
        return board.get_version(conn, project.id).rpartition(".")[0]

    presence.register(conn, ada.ctx, "core")
    before = mark()
    assert mark() == before
    sequences.claim(conn, bob.ctx, "adr")
    claimed = mark()
    assert claimed != before
    conn.execute("UPDATE presence SET last_seen = last_seen + interval '15 s' WHERE project_id = %s", (project.id,))
    assert mark() != claimed
    # The board bears the mark of before it was read.
    assert board.get_board(conn, project.id).version.rpartition(".")[0] == mark()


def test_the_board_of_another_project_and_of_the_removed_is_empty(
    conn: Connection, project: Project, ada: Agent, bob: Agent
) -> None:
    other = factories.make_project(conn, "other")
    leases.acquire(conn, ada.ctx, "src")
    posts.create(conn, ada.ctx, "hello", to_actor="bob")
    participations.remove(conn, project.id, "bob", actor="cli")
    assert [one.actor for one in board.get_board(conn, project.id).participants] == [ada.actor]
    found = board.get_board(conn, other.id)
    assert (found.participants, found.posts, found.leases, found.latest_claims, found.last_seq) == ([], [], [], [], 0)
    assert all(not one.tasks for one in found.task_columns)


def test_the_board_is_cut_and_says_how_much_there_is(
    conn: Connection, project: Project, ada: Agent, bob: Agent
) -> None:
    for number in range(board.MAX_LEASES + 2):
        leases.acquire(conn, ada.ctx, f"src/{number}.py")
    for number in range(board.MAX_POSTS + 3):
        posts.create(conn, ada.ctx, f"note {number}", to_actor="bob")
    for number in range(board.MAX_TASKS_PER_COLUMN + 1):
        tasks.create(conn, ada.ctx, f"task {number}")
    found = board.get_board(conn, project.id)
    assert (len(found.leases), found.lease_count) == (board.MAX_LEASES, board.MAX_LEASES + 2)
    assert (len(found.posts), found.unacked_count) == (board.MAX_POSTS, board.MAX_POSTS + 3)
    assert found.posts[0].title == f"note {board.MAX_POSTS + 2}"
    (column,) = [one for one in found.task_columns if one.status == "open"]
    assert (len(column.tasks), column.count) == (board.MAX_TASKS_PER_COLUMN, board.MAX_TASKS_PER_COLUMN + 1)
