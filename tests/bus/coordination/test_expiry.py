"""Time-based expiry: at its time, recorded once under concurrency, and never for a participant that is present."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

import pytest

from bus.coordination import escalation, expiry, leases, ledger, posts, presence, task_queries, tasks
from bus.db import Connection, Database
from bus.tenancy import invite_redemption, invites, projects
from bus.tenancy.projects import Project
from tests.concurrency import run_concurrently, run_numbered_concurrently, successes
from tests.factories import Agent, make_agent, make_project


def _events(conn: Connection, agent: Agent, kind: str) -> list[ledger.Event]:
    return ledger.query_events(conn, agent.ctx, type=kind).events


def _expire_all_leases(conn: Connection, project_id: int) -> None:
    conn.execute(
        "UPDATE lease SET expires_at = clock_timestamp() - interval '1 second' WHERE project_id = %s",
        (project_id,),
    )


def _set_last_seen_hours_ago(conn: Connection, agent: Agent, hours: float = 5) -> None:
    presence.record_seen(conn, {agent.ctx.participation_id: 0})
    conn.execute(
        "UPDATE presence SET last_seen = clock_timestamp() - make_interval(secs => %s * 3600)"
        " WHERE participation_id = %s",
        (hours, agent.ctx.participation_id),
    )


@dataclass(frozen=True)
class Deadline:
    """What ends by time.

    Attributes:
        sql: makes the deadline the time `%s` from now.
        list_projects: lists the projects in which it is due; None if the job has no projects.
        end: ends what is due in a project; returns its number.
    """

    sql: str
    list_projects: Callable[[Connection], list[int]] | None
    end: Callable[[Connection, int], int]


_DEADLINES = {
    "lease": Deadline(
        "UPDATE lease SET expires_at = clock_timestamp() + %s",
        expiry.list_projects_with_expired_leases,
        expiry.expire_leases,
    ),
    "presence": Deadline(
        "UPDATE presence pr SET last_seen = clock_timestamp() + %s - make_interval(secs => pj.gone_window_seconds)"
        " FROM project pj WHERE pj.id = pr.project_id",
        expiry.list_projects_with_absent_participants,
        expiry.record_absent_participants,
    ),
    "task": Deadline(
        "UPDATE task SET updated_at = clock_timestamp() + %s - interval '1 hour'",
        expiry.list_projects_with_stalled_tasks,
        expiry.requeue_stalled_tasks,
    ),
    "unacked post": Deadline(
        "UPDATE post SET escalate_at = clock_timestamp() + %s",
        escalation.list_projects_with_overdue_posts,
        escalation.escalate_overdue_posts,
    ),
    "invite": Deadline(
        "UPDATE invite SET expires_at = clock_timestamp() + %s", None, lambda conn, _: expiry.expire_invites(conn)
    ),
}


@pytest.mark.parametrize("deadline", _DEADLINES.values(), ids=_DEADLINES)
def test_nothing_ends_before_its_time(
    conn: Connection, project: Project, ada: Agent, bob: Agent, deadline: Deadline
) -> None:
    conn.execute("UPDATE project SET stall_window_seconds = 3600 WHERE id = %s", (project.id,))
    leases.acquire(conn, ada.ctx, "src/a.py")
    presence.register(conn, bob.ctx, "api")
    tasks.start(conn, ada.ctx, tasks.create(conn, ada.ctx, "one").task_id)
    posts.create(conn, ada.ctx, "look", to_actor=bob.label, ack_within_seconds=60)
    invites.create_for_owner(conn, project.id, actor="cli")

    def list_due_projects() -> list[int] | None:
        return deadline.list_projects(conn) if deadline.list_projects else None

    conn.execute(deadline.sql, (timedelta(seconds=20),))
    assert list_due_projects() in ([], None)
    assert deadline.end(conn, project.id) == 0
    conn.execute(deadline.sql, (timedelta(seconds=-1),))
    assert list_due_projects() in ([project.id], None)
    assert deadline.end(conn, project.id) == 1


def test_an_expired_lease_is_recorded_once(conn: Connection, project: Project, ada: Agent, bob: Agent) -> None:
    held = leases.acquire(conn, ada.ctx, "src/a.py")
    leases.acquire(conn, bob.ctx, "src/b.py")
    assert expiry.list_projects_with_expired_leases(conn) == []
    _expire_all_leases(conn, project.id)
    leases.acquire(conn, bob.ctx, "src/c.py")
    assert expiry.list_projects_with_expired_leases(conn) == [project.id]
    assert expiry.expire_leases(conn, project.id) == 2
    assert expiry.expire_leases(conn, project.id) == 0
    assert expiry.list_projects_with_expired_leases(conn) == []
    newest, oldest = _events(conn, ada, "lease_expire")
    assert (oldest.actor, oldest.payload, oldest.mine) == (
        ada.actor,
        {"surface": "src/a.py", "fence": held.fence},
        True,
    )
    assert (newest.actor, newest.mine) == (bob.actor, False)
    assert [one.surface for one in leases.list_leases(conn, ada.ctx).leases] == ["src/c.py"]
    assert conn.pending_topics[project.id] >= {"leases", "ledger"}


def test_leases_of_an_archived_project_end_without_an_event(conn: Connection, project: Project, ada: Agent) -> None:
    leases.acquire(conn, ada.ctx, "src/a.py")
    before = len(ledger.query_events(conn, ada.ctx).events)
    projects.archive(conn, project.id, actor="test")
    _expire_all_leases(conn, project.id)
    assert expiry.expire_leases(conn, project.id) == 1
    assert expiry.list_projects_with_expired_leases(conn) == []
    assert len(ledger.query_events(conn, ada.ctx).events) == before


def test_concurrent_expiry_and_renewal_end_each_lease_once(db: Database) -> None:
    for _ in range(10):
        with db.transaction() as conn:
            project = make_project(conn)
            holders = [make_agent(conn, project) for _ in range(4)]
            for number, holder in enumerate(holders):
                leases.acquire(conn, holder.ctx, f"src/{number}.py")
            _expire_all_leases(conn, project.id)

        def renew(conn: Connection, number: int, holders: list[Agent] = holders) -> object:
            return leases.acquire(conn, holders[number].ctx, f"src/{number}.py")

        def end(conn: Connection, project: Project = project) -> object:
            return expiry.expire_leases(conn, project.id)

        outcomes = run_concurrently(db, *([end] * 4), *(lambda conn, n=n: renew(conn, n) for n in range(4)))
        assert successes(outcomes) == outcomes
        with db.transaction() as conn:
            assert len(_events(conn, holders[0], "lease_expire")) == 4
            assert len(leases.list_leases(conn, holders[0].ctx).leases) == 4


def test_an_absence_is_recorded_once_until_the_next_sighting(conn: Connection, project: Project, ada: Agent) -> None:
    presence.register(conn, ada.ctx, "api")
    assert expiry.list_projects_with_absent_participants(conn) == []
    _set_last_seen_hours_ago(conn, ada)
    assert expiry.list_projects_with_absent_participants(conn) == [project.id]
    assert expiry.record_absent_participants(conn, project.id) == 1
    assert expiry.record_absent_participants(conn, project.id) == 0
    assert expiry.list_projects_with_absent_participants(conn) == []
    (event,) = _events(conn, ada, "presence_lapse")
    assert (event.actor, event.payload["lane"]) == (ada.actor, "api")
    presence.record_seen(conn, {ada.ctx.participation_id: 1.0})
    _set_last_seen_hours_ago(conn, ada)
    assert expiry.record_absent_participants(conn, project.id) == 1
    assert len(_events(conn, ada, "presence_lapse")) == 2


@pytest.mark.parametrize("back", ["register", "sighting"])
def test_a_participant_that_returns_can_become_absent_again(
    conn: Connection, project: Project, ada: Agent, back: str
) -> None:
    _set_last_seen_hours_ago(conn, ada)
    expiry.record_absent_participants(conn, project.id)
    if back == "register":
        presence.register(conn, ada.ctx, "web")
    else:
        presence.record_seen(conn, {ada.ctx.participation_id: 0.5})
    assert conn.fetch_one(
        "SELECT lapsed_at FROM presence WHERE participation_id = %s", (ada.ctx.participation_id,)
    ) == (None,)


def test_a_late_sighting_does_not_end_an_absence(conn: Connection, project: Project, ada: Agent) -> None:
    _set_last_seen_hours_ago(conn, ada, hours=2)
    expiry.record_absent_participants(conn, project.id)
    presence.record_seen(conn, {ada.ctx.participation_id: 4 * 3600.0})
    (lapsed,) = conn.fetch_one(
        "SELECT lapsed_at FROM presence WHERE participation_id = %s", (ada.ctx.participation_id,)
    )
    assert lapsed is not None


def test_a_concurrent_sighting_prevents_a_recorded_absence(db: Database) -> None:
    """A flush of the gateway and the job run concurrently; in either order a participant that was seen is present."""
    with db.transaction() as conn:
        project = make_project(conn)
        agents = [make_agent(conn, project) for _ in range(20)]
    ids = [agent.ctx.participation_id for agent in agents]
    for _ in range(20):
        with db.transaction() as conn:
            for agent in agents:
                _set_last_seen_hours_ago(conn, agent)
        outcomes = run_concurrently(
            db,
            lambda conn: expiry.record_absent_participants(conn, project.id),
            lambda conn: expiry.record_absent_participants(conn, project.id),
            lambda conn: presence.record_seen(conn, dict.fromkeys(ids, 0.0)),
        )
        assert successes(outcomes) == outcomes
        with db.connection() as conn:
            assert conn.fetch_one("SELECT count(*) FROM presence WHERE lapsed_at IS NOT NULL") == (0,)
            (written,) = conn.fetch_one("SELECT count(*) FROM event WHERE type = 'presence_lapse'")
        assert written % 20 == 0, "one flush was recorded for some of the participants only"


def test_a_stalled_task_is_reopened_for_others(conn: Connection, project: Project, ada: Agent, bob: Agent) -> None:
    task = tasks.create(conn, ada.ctx, "one").task_id
    tasks.start(conn, ada.ctx, task)
    _set_last_seen_hours_ago(conn, ada)
    conn.execute("UPDATE task SET updated_at = clock_timestamp() - interval '5 hours'")
    # Off unless the project has a stall window.
    assert expiry.list_projects_with_stalled_tasks(conn) == []
    assert expiry.requeue_stalled_tasks(conn, project.id) == 0
    conn.execute("UPDATE project SET stall_window_seconds = 3600 WHERE id = %s", (project.id,))
    assert expiry.list_projects_with_stalled_tasks(conn) == [project.id]
    assert expiry.requeue_stalled_tasks(conn, project.id) == 1
    assert expiry.list_projects_with_stalled_tasks(conn) == []
    (event,) = _events(conn, bob, "task_requeue")
    assert event.payload == {"task_id": task, "owner": ada.actor}
    (row,) = task_queries.list_tasks(conn, bob.ctx, ready=True).tasks
    assert (row.task_id, row.status, row.owner) == (task, "open", None)
    taken = tasks.start_next(conn, bob.ctx).task
    assert taken is not None
    assert taken.task_id == task


@pytest.mark.parametrize("why", ["seen", "blocked", "just started"])
def test_a_task_that_is_not_stalled_is_kept(conn: Connection, project: Project, ada: Agent, why: str) -> None:
    conn.execute("UPDATE project SET stall_window_seconds = 3600 WHERE id = %s", (project.id,))
    task = tasks.create(conn, ada.ctx, "one").task_id
    tasks.start(conn, ada.ctx, task)
    if why == "blocked":
        tasks.block(conn, ada.ctx, task, "waits for people")
    _set_last_seen_hours_ago(conn, ada)
    if why != "just started":
        conn.execute("UPDATE task SET updated_at = clock_timestamp() - interval '5 hours'")
    if why == "seen":
        presence.record_seen(conn, {ada.ctx.participation_id: 60.0})
    assert expiry.list_projects_with_stalled_tasks(conn) == []
    assert expiry.requeue_stalled_tasks(conn, project.id) == 0


def test_a_stalled_task_of_an_archived_project_is_kept(
    conn: Connection, project: Project, ada: Agent, bob: Agent
) -> None:
    conn.execute("UPDATE project SET stall_window_seconds = 3600 WHERE id = %s", (project.id,))
    task = tasks.create(conn, ada.ctx, "one").task_id
    tasks.start(conn, ada.ctx, task)
    _set_last_seen_hours_ago(conn, ada)
    conn.execute("UPDATE task SET updated_at = clock_timestamp() - interval '5 hours'")
    assert expiry.list_projects_with_stalled_tasks(conn) == [project.id]
    projects.archive(conn, project.id, actor="test")
    assert expiry.list_projects_with_stalled_tasks(conn) == []
    # The project may have been archived after it was listed.
    assert expiry.requeue_stalled_tasks(conn, project.id) == 0
    (row,) = task_queries.list_tasks(conn, bob.ctx).tasks
    assert (row.task_id, row.status, row.owner) == (task, "in_progress", ada.actor)


def test_a_task_is_either_shipped_or_requeued(db: Database) -> None:
    for _ in range(10):
        with db.transaction() as conn:
            project = make_project(conn)
            ada = make_agent(conn, project, "ada")
            conn.execute("UPDATE project SET stall_window_seconds = 3600 WHERE id = %s", (project.id,))
            task = tasks.create(conn, ada.ctx, "one").task_id
            tasks.start(conn, ada.ctx, task)
            _set_last_seen_hours_ago(conn, ada)
            conn.execute("UPDATE task SET updated_at = clock_timestamp() - interval '5 hours'")
        shipped, *requeued = run_concurrently(
            db,
            lambda conn, ada=ada, task=task: tasks.ship(conn, ada.ctx, task),
            lambda conn, project=project: expiry.requeue_stalled_tasks(conn, project.id),
            lambda conn, project=project: expiry.requeue_stalled_tasks(conn, project.id),
        )
        assert sum(requeued) + (not isinstance(shipped, BaseException)) == 1, (shipped, requeued)


def test_an_expired_invite_is_audited_once(db: Database) -> None:
    with db.transaction() as conn:
        project = make_project(conn)
        for _ in range(3):
            invites.create_for_owner(conn, project.id, actor="cli")
        used = invites.create_for_owner(conn, project.id, actor="cli")
        invite_redemption.redeem(conn, used.code, name="carol")
        invites.create_for_owner(conn, project.id, ttl_hours=100, actor="cli")
        conn.execute(
            "UPDATE invite SET expires_at = clock_timestamp() - interval '1 minute'"
            " WHERE expires_at < clock_timestamp() + interval '50 hours'"
        )
    outcomes = run_numbered_concurrently(db, 6, lambda conn, _: expiry.expire_invites(conn))
    assert sum(outcomes) == 3
    with db.connection() as conn:
        assert conn.fetch_one("SELECT count(*) FROM audit WHERE action = 'invite.expire'") == (3,)
