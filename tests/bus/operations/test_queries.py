"""What an operator sees of everybody's affairs, and the sentence that says whether the service is well."""

import dataclasses
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from bus.auth import sessions
from bus.coordination import leases
from bus.db import Connection, Database
from bus.db.schema_version import EXPECTED_SCHEMA_VERSION
from bus.operations import diagnostics, jobs, project_purge, queries
from bus.operations.process_registry import Process
from bus.operations.status import DatabaseStatus, JobStatus, LedgerGrowth, QueueStatus, ServiceDetails, ServiceStatus
from bus.tenancy import audit, invites, owners, projects
from bus.tenancy.audit import AuditFilter
from tests.assertions import assert_refused
from tests.concurrency import run_concurrently, run_numbered_concurrently, successes
from tests.factories import make_agent, make_owner, make_project

_NOW = datetime(2026, 1, 1, tzinfo=UTC)


def test_owners_are_found_by_any_part_of_handle_or_address_and_page(conn: Connection) -> None:
    made = [make_owner(conn, f"finder-{number}") for number in range(3)]
    project = make_project(conn, "apollo", made[0])
    make_agent(conn, project)
    assert [one.id for one in queries.list_owners(conn, "INDER-")] == [one.id for one in reversed(made)]
    assert [one.handle for one in queries.list_owners(conn, "inder-1@EXAMPLE")] == ["finder-1"]
    # No pattern of LIKE: a character is a character.
    assert queries.list_owners(conn, "finder%") == []
    first = queries.list_owners(conn, "finder-", limit=2)
    assert [one.handle for one in first] == ["finder-2", "finder-1"]
    assert [one.handle for one in queries.list_owners(conn, "finder-", before=first[-1].id)] == ["finder-0"]
    owners.suspend(conn, made[1].id, reason="abuse", actor="op")
    (only,) = queries.list_owners(conn, "finder-", suspended_only=True)
    assert (only.handle, only.suspended_reason, only.plan, only.balance) == ("finder-1", "abuse", None, None)
    found = queries.get_owner(conn, made[0].id)
    assert (found.project_count, found.event_count, found.last_event_at) == (1, 0, None)
    with assert_refused(conn, "not_found"):
        queries.get_owner(conn, 2**53)
    with assert_refused(conn, "invalid_argument"):
        queries.list_owners(conn, "a\x00b")


def test_projects_of_everybody_are_counted_and_found(conn: Connection) -> None:
    owner = make_owner(conn, "spacer")
    full, empty, ending = (make_project(conn, name, owner) for name in ("full", "empty", "ending"))
    agent = make_agent(conn, full, "a")
    leases.acquire(conn, agent.ctx, "src")
    projects.archive(conn, empty.id, actor="x")
    project_purge.begin_purge(conn, ending.id, actor="x")
    found = {one.name: one for one in queries.list_projects(conn, "SPACER/")}
    assert {name: one.state for name, one in found.items()} == {
        "full": "open", "empty": "archived", "ending": "purging",
    }  # fmt: skip
    assert (
        found["full"].participant_count,
        found["full"].event_count,
        found["full"].post_count,
        found["full"].task_count,
    ) == (1, 1, 0, 0)
    assert found["full"].last_event_at is not None
    assert found["empty"].last_event_at is None
    assert [one.name for one in queries.list_projects(conn, owner_id=owner.id, state="purging")] == ["ending"]
    assert [one.name for one in queries.list_projects(conn, owner_id=owner.id, before=ending.id, limit=1)] == ["empty"]


def test_only_open_invites_are_listed(conn: Connection) -> None:
    owner = make_owner(conn, "inviter")
    project = make_project(conn, "apollo", owner)
    still, revoked, over = (invites.create_for_owner(conn, project.id, actor="inviter") for _ in range(3))
    invites.revoke(conn, project.id, revoked.id, actor="inviter")
    conn.execute("UPDATE invite SET expires_at = clock_timestamp() WHERE id = %s", (over.id,))
    mine = [one for one in queries.list_open_invites(conn) if one.owner == "inviter"]
    assert [one.id for one in mine] == [still.id]
    assert queries.get_open_invite(conn, still.id).project == "apollo"
    for gone in (revoked, over):
        with assert_refused(conn, "not_found"):
            queries.get_open_invite(conn, gone.id)


def test_the_audit_is_filtered_by_all_that_is_asked(conn: Connection) -> None:
    owner, other = make_owner(conn, "audited"), make_owner(conn, "another")
    project = make_project(conn, "apollo", owner)
    make_agent(conn, project, "a")
    owners.suspend(conn, owner.id, reason="abuse", actor="op")
    owners.lift_suspension(conn, owner.id, actor="op", note="a mistake")
    acts = audit.list_for_owner(conn, owner.id)
    assert audit.list_for_owner(conn, owner.id, AuditFilter(actor="op")) == acts[:2]
    assert acts[0].detail == {"reason": "a mistake"}
    assert [one.action for one in audit.list_for_owner(conn, owner.id, AuditFilter(action="owner"))] == [
        "owner.lift", "owner.suspend", "owner.add",
    ]  # fmt: skip
    assert [one.action for one in audit.list_for_owner(conn, owner.id, AuditFilter(action="owner.lift"))] == [
        "owner.lift"
    ]
    assert audit.list_for_owner(conn, owner.id, AuditFilter(action="own")) == []
    assert audit.list_for_owner(conn, owner.id, AuditFilter(action="%")) == []
    middle = acts[1].at
    assert audit.list_for_owner(conn, owner.id, AuditFilter(since=middle)) == acts[:2]
    assert audit.list_for_owner(conn, owner.id, AuditFilter(until=middle)) == acts[1:]
    assert (
        audit.list_for_owner(conn, owner.id, AuditFilter(actor="op", action="owner.lift", since=middle, until=middle))
        == []
    )
    assert audit.list_for_owner(conn, other.id, AuditFilter(actor="op")) == []
    assert audit.list_for_operator(conn, AuditFilter(actor="op"), owner_id=owner.id) == acts[:2]
    assert {one.owner for one in audit.list_for_operator(conn, limit=1000)} >= {"audited", "another"}


def test_what_tenants_work_on_is_not_in_the_operators_audit(conn: Connection) -> None:
    owner = make_owner(conn, "worker-bee")
    project = make_project(conn, "apollo", owner)
    audit.record(conn, owner.id, "x", "lease.release", "src/secret-plan.py", project_id=project.id)
    audit.record(conn, owner.id, "x", "webhook.add", "https://hooks.example.org/services/T0/secret")
    mine = {one.action: one.subject for one in audit.list_for_owner(conn, owner.id)}
    theirs = {one.action: one.subject for one in audit.list_for_operator(conn, owner_id=owner.id)}
    assert mine["lease.release"] == "src/secret-plan.py"
    assert (theirs["lease.release"], theirs["webhook.add"]) == ("a lease", "hooks.example.org")


def test_an_operator_is_made_and_unmade_and_both_are_audited(conn: Connection) -> None:
    owner = make_owner(conn, "risen")
    assert owners.set_operator(conn, owner.id, True, actor="cli")
    assert not owners.set_operator(conn, owner.id, True, actor="cli")
    assert owners.get(conn, "risen").operator
    assert owners.set_operator(conn, owner.id, False, actor="op")
    assert [(one.action, one.detail) for one in audit.list_for_owner(conn, owner.id)][:2] == [
        ("owner.operator", {"operator": False}),
        ("owner.operator", {"operator": True}),
    ]


def test_jobs_are_announced_once_and_asked_for_once(db: Database) -> None:
    known = [
        jobs.JobDefinition("prune", "Tidies.", 3600.0, 0),
        jobs.JobDefinition("reconcile", "Proves.", 1800, 82_800),
    ]
    with db.transaction() as conn:
        owner = make_owner(conn, "op")
        jobs.register_jobs(conn, known)
    with db.connection() as conn:
        (before,) = conn.fetch_one("SELECT max(xmin::text::bigint) FROM job")
        jobs.register_jobs(conn, known)
        # Said again, nothing is written.
        assert conn.fetch_one("SELECT max(xmin::text::bigint) FROM job") == (before,)
        jobs.register_jobs(
            conn,
            [jobs.JobDefinition("prune", "Otherwise.", 1, 0), jobs.JobDefinition("new", "New.", 5, 0)],
            update_schedule=False,
        )
        assert [(one.name, one.interval_seconds) for one in jobs.list_definitions(conn)] == [
            ("new", 5), ("prune", 3600), ("reconcile", 1800),
        ]  # fmt: skip
        conn.execute("UPDATE job SET seen_at = seen_at - interval '2 days' WHERE name = 'new'")
        jobs.register_jobs(conn, known)
        assert [one.name for one in jobs.list_definitions(conn)] == ["prune", "reconcile"]
        with assert_refused(conn, "not_found"):
            jobs.request_run(conn, "nothing", owner_id=owner.id, actor="op")
    asked = run_numbered_concurrently(
        db, 8, lambda conn, number: jobs.request_run(conn, "prune", owner_id=owner.id, actor="op")
    )
    assert sorted(asked) == [False] * 7 + [True]
    with db.connection() as conn:
        assert [(one.action, one.subject) for one in audit.list_for_owner(conn, owner.id)][:2] == [
            ("job.run", "prune"), ("owner.add", "op"),
        ]  # fmt: skip
        assert [(one.name, one.requested_by) for one in jobs.list_run_requests(conn)] == [("prune", "op")]
    begun = run_numbered_concurrently(db, 8, lambda conn, number: jobs.begin_requested_run(conn, "prune"))
    (run_id,) = [one for one in successes(begun) if one is not None]
    with db.connection() as conn:
        (run,) = jobs.list_runs(conn, name="prune")
        assert (run.id, run.asked_by, run.outcome) == (run_id, "op", "running")
        # It runs: asking again would run it twice.
        assert not jobs.request_run(conn, "prune", owner_id=owner.id, actor="op")
        jobs.finish_run(conn, run_id, "ok", {})
        # One that was asked for is shown, whatever it found.
        jobs.finish_run(conn, jobs.begin_run(conn, "reconcile"), "ok", {})
        assert [one.id for one in jobs.list_runs(conn, exclude_idle=True)] == [run_id]
        assert [one.id for one in jobs.list_runs(conn, name="prune", outcome="ok")] == [run_id]
        with assert_refused(conn, "invalid_argument"):
            jobs.list_runs(conn, outcome="nonsense")
        assert jobs.request_run(conn, "prune", owner_id=owner.id, actor="op")


def test_a_rotation_does_not_make_a_session_fresh(conn: Connection) -> None:
    owner, week = make_owner(conn, "rotated"), timedelta(days=7)
    token = sessions.open_session(conn, owner.id, method="link", ttl=week)
    conn.execute(
        "UPDATE session SET authenticated_at = authenticated_at - interval '3 hours' WHERE owner_id = %s",
        (owner.id,),
    )
    (held,) = sessions.list_sessions(conn, owner.id, idle_timeout=week)
    renewed = sessions.rotate_token(conn, held.id)
    assert renewed is not None
    found = sessions.find_session(conn, renewed, idle_timeout=week)
    assert sessions.find_session(conn, token, idle_timeout=week) is None
    assert found is not None
    assert found.time_since_authentication is not None
    assert found.time_since_authentication > timedelta(hours=3)
    # A provider may say that it asked yesterday; nobody may say tomorrow; a proxy says nothing of it.
    for at, authenticated, least, most in (
        (datetime.now(UTC) - timedelta(days=1), True, 86_000, 87_000),
        (datetime.now(UTC) + timedelta(days=1), True, 0, 60),
        (None, False, None, None),
    ):
        token = sessions.open_session(
            conn, owner.id, method="x", ttl=week, authenticated=authenticated, authenticated_at=at
        )
        one = sessions.find_session(conn, token, idle_timeout=week)
        assert one is not None
        if least is None or most is None:
            assert one.time_since_authentication is None
        else:
            assert one.time_since_authentication is not None
            assert least <= one.time_since_authentication.total_seconds() <= most


def test_suspending_and_lifting_at_one_moment_leave_one_state_and_what_was_written_says_which(db: Database) -> None:
    with db.transaction() as conn:
        owner = make_owner(conn, "contested")
    outcomes = run_concurrently(
        db,
        *[lambda conn: owners.suspend(conn, owner.id, reason="abuse", actor="op")] * 4,
        *[lambda conn: owners.lift_suspension(conn, owner.id, actor="op", note="fine")] * 4,
    )
    with db.connection() as conn:
        found = queries.get_owner(conn, owner.id)
        acts = [one.action for one in reversed(audit.list_for_owner(conn, owner.id))][1:]
    # Each that changed something is written down, in turns, and the last one stands.
    assert len(acts) == sum(outcomes)
    assert acts == [("owner.suspend", "owner.lift")[number % 2] for number in range(len(acts))]
    assert (found.suspended_at is not None) == (acts[-1] == "owner.suspend")


def _process(kind: str, *, age: float = 1.0, version: str = "1", **figures: int) -> Process:
    return Process(kind, kind, "host", 1, version, _NOW, _NOW, age, 900.0, {}, figures)


_WELL = ServiceStatus(
    DatabaseStatus("18.1", EXPECTED_SCHEMA_VERSION, EXPECTED_SCHEMA_VERSION, 0.001),
    True,
    QueueStatus(0.001, 0),
    ServiceDetails(
        processes=tuple(_process(kind) for kind in ("web", "gateway", "worker", "beat")),
        jobs=(JobStatus("heartbeat", "ok", 20, 30, False), JobStatus("prune", "ok", 200, 3600, False)),
        ledger_growth=LedgerGrowth(0, 0, 0),
        tables=(),
        metering_enabled=True,
        oldest_unmetered_seconds=20.0,
        unread_deliveries=3,
        waiting_calls=0,
        open_streams=0,
        heartbeat_age_seconds=20.0,
    ),
)


def _with(**changes: object) -> ServiceStatus:
    assert _WELL.details is not None
    return dataclasses.replace(_WELL, contents=dataclasses.replace(_WELL.details, **changes))  # type: ignore[arg-type]


def _without(*kinds: str) -> ServiceStatus:
    assert _WELL.details is not None
    return _with(processes=tuple(one for one in _WELL.details.processes if one.kind not in kinds))


def _and(*more: Process) -> ServiceStatus:
    assert _WELL.details is not None
    return _with(processes=(*_WELL.details.processes, *more))


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        (_WELL, []),
        (ServiceStatus(None, True, _WELL.queue, None), [("bad", "postgresql")]),
        (
            dataclasses.replace(_WELL, postgres=DatabaseStatus("18", "0001", EXPECTED_SCHEMA_VERSION, 0.1)),
            [("bad", "migration")],
        ),
        (dataclasses.replace(_WELL, queue=None), [("bad", "redis")]),
        (dataclasses.replace(_WELL, queue=None, has_redis=False), []),
        (dataclasses.replace(_WELL, queue=QueueStatus(0.001, 101)), [("warn", "queue")]),
        (_without("gateway"), [("bad", "gateway")]),
        (_without("worker", "beat"), [("bad", "worker"), ("bad", "beat")]),
        (dataclasses.replace(_without("worker", "beat"), queue=None, has_redis=False), []),
        (_and(_process("serve")), []),
        (_and(_process("gateway", age=100)), [("warn", "crash")]),
        (_and(_process("gateway", age=5000)), []),
        (_and(_process("web", version="2")), [("warn", "versions")]),
        (_with(heartbeat_seconds=300.0), [("bad", "heartbeat")]),
        (_with(jobs=(JobStatus("prune", "ok", 20_000, 3600, True),)), [("bad", "late")]),
        (
            dataclasses.replace(_with(jobs=(JobStatus("prune", "ok", 20_000, 3600, True),)), queue=None),
            [("bad", "redis")],
        ),
        (_with(jobs=(JobStatus("prune", "ok", 20_000, 3600, True),), heartbeat_seconds=900.0), [("bad", "heartbeat")]),
        (_with(jobs=(JobStatus("reconcile", "alarm", 20, 3600, False),)), [("bad", "alarm")]),
        (_with(jobs=(JobStatus("prune", "failed", 20, 3600, False),)), [("warn", "failed")]),
        (_and(_process("web", errors_last_5_minutes=1, requests_last_5_minutes=9)), [("warn", "errors")]),
        (_and(_process("web", errors_last_5_minutes=60, requests_last_5_minutes=900)), [("bad", "errors")]),
        (_and(_process("web", errors_last_5_minutes=60, requests_last_5_minutes=90_000)), [("warn", "errors")]),
        (_with(unmetered_seconds=1000.0), [("warn", "metering")]),
        (_with(unmetered_seconds=10_000.0), [("bad", "metering")]),
        (_with(unmetered_seconds=None), []),
    ],
)
def test_the_verdict_names_what_is_wrong(condition: ServiceStatus, expected: list[tuple[str, str]]) -> None:
    found = diagnostics.diagnose(condition)
    assert [(one.severity, one.name) for one in found] == expected
    assert all(one.summary and one.remedy.endswith(".") for one in found)


def test_what_is_worst_comes_first_and_many_names_are_cut() -> None:
    late = tuple(JobStatus(f"job_{number}", "ok", 9999, 10, True) for number in range(5))
    found = diagnostics.diagnose(dataclasses.replace(_with(jobs=late), queue=QueueStatus(0.001, 1000)))
    assert [one.severity for one in found] == ["bad", "warn"]
    assert found[0].summary == "the jobs job_0, job_1, job_2 and 2 more are late"


def test_the_guide_says_what_to_do_about_every_problem() -> None:
    """Each name that the verdict can say is a heading of docs/howto/operate.md."""
    said = r'Problem\(\s*(?:BAD|WARN|BAD if \w+(?: > \w+)? else WARN), "([a-z]+)"'
    names = set(re.findall(said, Path(diagnostics.__file__).read_text()))
    guide = (Path(diagnostics.__file__).parents[2] / "docs/howto/operate.md").read_text()
    assert len(names) >= 13
    assert {name for name in names if f"\n### {name}\n" not in guide} == set()
