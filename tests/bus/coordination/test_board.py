"""The live board: its content, its limits, and the changes of its version."""

from datetime import timedelta

import pytest

from bus.coordination import (
    board,
    board_activity,
    board_rails,
    leases,
    posts,
    presence,
    sequences,
    sessions,
    surfacing,
    tasks,
)
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

    rails = board_rails.build_rails(shown).shown
    assert [rail.lane for rail in rails] == ["core", "docs", ""]
    active, absent, other = (rail.riders[0].participant for rail in rails)
    assert (active.actor, active.status, active.is_active) == (ada.actor, "moving prices", True)
    assert (other.actor, other.is_active, absent.last_seen, shown.participant_count) == (bob.actor, False, None, 3)
    assert [rail.riders[0].doing for rail in rails] == ["moving prices", "", "editing src/a.py"]
    assert (shown.active_count, shown.contended_count) == (1, 2)
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
    surfacing.mark_surfaced(conn, {(project.id, bob.ctx.participation_id, sent): 0.0})
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

    assert [lease.surface for lease in shown[:3]] == [
        "src/contended.py",
        "src/contended.py",
        f"docs/{board.MAX_LEASES - 1}.md",
    ]
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


def test_a_handoff_rests_on_the_rail_of_its_recipient(
    conn: Connection, project: Project, ada: Agent, bob: Agent
) -> None:
    presence.register(conn, bob.ctx, "review")
    to_bob = posts.create(conn, ada.ctx, "for bob", to_actor="bob").post_id
    to_lane = posts.create(conn, bob.ctx, "for an empty lane", to_lane="docs").post_id
    to_ada = posts.create(conn, bob.ctx, "for ada", to_actor="ada").post_id
    posts.ack(conn, ada.ctx, [to_ada])

    rails = {rail.lane: rail for rail in board_rails.build_rails(board.get_board(conn, project.id)).shown}

    assert {lane: [post.post_id for post in rail.stops] for lane, rail in rails.items()} == {
        "": [to_ada],
        "docs": [to_lane],
        "review": [to_bob],
    }
    assert [rider.participant.actor for rider in rails["review"].riders] == [bob.actor]
    assert rails["docs"].riders == []
    assert list(rails) == ["docs", "review", ""]


def test_rails_are_limited_and_those_with_handoffs_stay(
    conn: Connection, project: Project, ada: Agent, bob: Agent
) -> None:
    for number in range(board_rails.MAX_RAILS + 2):
        factories.make_agent(conn, project, f"worker-{number}", lane=f"lane-{number:02}")
    last = f"lane-{board_rails.MAX_RAILS + 1:02}"
    for number in range(board_rails.MAX_STOPS + 2):
        posts.create(conn, ada.ctx, f"note {number}", to_lane=last)

    rails = board_rails.build_rails(board.get_board(conn, project.id))

    assert len(rails.shown) == board_rails.MAX_RAILS
    assert len(rails.quiet_lanes) == 3
    (busy,) = [rail for rail in rails.shown if rail.lane == last]
    assert [post.title for post in busy.stops] == [f"note {number}" for number in range(board_rails.MAX_STOPS)]
    assert busy.stop_count == board_rails.MAX_STOPS + 2


def test_the_last_hour_has_the_acks_conflicts_and_shipped_tasks(
    conn: Connection, project: Project, ada: Agent, bob: Agent
) -> None:
    empty = board_activity.get_activity(conn, project.id, 0)
    assert (empty.active, empty.unacked) == ([0] * board_activity.STEP_COUNT, [0] * board_activity.STEP_COUNT)
    assert (empty.median_ack_seconds, empty.shipped_last_day) == (None, 0)
    first = posts.create(conn, ada.ctx, "first", to_actor="bob").post_id
    posts.create(conn, ada.ctx, "second", to_actor="bob")
    posts.ack(conn, bob.ctx, [first])
    # An ack by the sender is not an answer.
    posts.ack(conn, ada.ctx, [first + 1])
    leases.acquire(conn, ada.ctx, "src/a.py")
    leases.acquire(conn, bob.ctx, "src/a.py")
    done = tasks.create(conn, ada.ctx, "work").task_id
    tasks.start(conn, ada.ctx, done)
    tasks.ship(conn, ada.ctx, done)

    shown = board.get_board(conn, project.id).activity

    assert (shown.active[-1], shown.unacked[-1], shown.contended[-1], shown.shipped[-1]) == (2, 1, 1, 1)
    assert (shown.unacked[-2], shown.contended[-2], shown.active[-2]) == (0, 0, 0)
    assert shown.shipped_last_day == 1
    assert shown.median_ack_seconds == shown.ack_seconds[-1]
    assert shown.median_ack_seconds is not None
    assert 0 <= shown.median_ack_seconds < 60


def test_the_last_hour_is_read_from_the_end_of_the_ledger(
    conn: Connection, project: Project, ada: Agent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(board_activity, "MAX_EVENTS", 3)
    for _ in range(5):
        sequences.claim(conn, ada.ctx, "adr")
    shown = board_activity.get_activity(conn, project.id, 0)
    # Earlier steps are unknown rather than empty.
    assert shown.active == [None] * (board_activity.STEP_COUNT - 1) + [1]
