"""Jobs: definitions, runs and requested runs."""

from bus.db import Connection, Database
from bus.operations import jobs
from bus.tenancy import audit
from tests.assertions import assert_refused
from tests.concurrency import run_numbered_concurrently, successes
from tests.factories import make_owner


def test_definitions_are_written_once_and_a_run_is_requested_once(db: Database) -> None:
    definitions = [
        jobs.JobDefinition("prune", "Tidies.", 3600.0, 0),
        jobs.JobDefinition("reconcile", "Checks.", 1800, 82_800),
    ]
    with db.transaction() as conn:
        owner = make_owner(conn, "op")
        jobs.register_jobs(conn, definitions)
    with db.connection() as conn:
        (before,) = conn.fetch_one("SELECT max(xmin::text::bigint) FROM job")
        jobs.register_jobs(conn, definitions)
        # Unchanged definitions write nothing.
        assert conn.fetch_one("SELECT max(xmin::text::bigint) FROM job") == (before,)
        jobs.register_jobs(
            conn,
            [jobs.JobDefinition("prune", "Otherwise.", 1, 0), jobs.JobDefinition("new", "New.", 5, 0)],
            update_schedule=False,
        )
        assert [(definition.name, definition.interval_seconds) for definition in jobs.list_definitions(conn)] == [
            ("new", 5), ("prune", 3600), ("reconcile", 1800),
        ]  # fmt: skip
        conn.execute("UPDATE job SET seen_at = seen_at - interval '2 days' WHERE name = 'new'")
        jobs.register_jobs(conn, definitions)
        assert [definition.name for definition in jobs.list_definitions(conn)] == ["prune", "reconcile"]
        with assert_refused(conn, "not_found"):
            jobs.request_run(conn, "nothing", owner_id=owner.id, actor="op")
    requested = run_numbered_concurrently(
        db, 8, lambda conn, number: jobs.request_run(conn, "prune", owner_id=owner.id, actor="op")
    )
    assert sorted(requested) == [False] * 7 + [True]
    with db.connection() as conn:
        assert [(entry.action, entry.subject) for entry in audit.list_for_owner(conn, owner.id)][:2] == [
            ("job.run", "prune"), ("owner.add", "op"),
        ]  # fmt: skip
        assert [(request.name, request.requested_by) for request in jobs.list_run_requests(conn)] == [("prune", "op")]
    begun = run_numbered_concurrently(db, 8, lambda conn, number: jobs.begin_requested_run(conn, "prune"))
    (run_id,) = [begun_id for begun_id in successes(begun) if begun_id is not None]
    with db.connection() as conn:
        (run,) = jobs.list_runs(conn, name="prune")
        assert (run.id, run.asked_by, run.outcome) == (run_id, "op", "running")
        # A running job is not requested again.
        assert not jobs.request_run(conn, "prune", owner_id=owner.id, actor="op")
        jobs.finish_run(conn, run_id, "ok", {})
        # A requested run is listed even if it had nothing to do.
        jobs.finish_run(conn, jobs.begin_run(conn, "reconcile"), "ok", {})
        assert [listed.id for listed in jobs.list_runs(conn, exclude_idle=True)] == [run_id]
        assert [listed.id for listed in jobs.list_runs(conn, name="prune", outcome="ok")] == [run_id]
        with assert_refused(conn, "invalid_argument"):
            jobs.list_runs(conn, outcome="nonsense")
        assert jobs.request_run(conn, "prune", owner_id=owner.id, actor="op")


def test_the_latest_run_of_each_job_is_listed(conn: Connection) -> None:
    assert jobs.list_latest_runs(conn) == []
    assert jobs.find_last_run_age_seconds(conn, "a") is None
    for name, outcome in (("b", "ok"), ("a", "ok"), ("a", "failed"), ("b", "alarm")):
        jobs.finish_run(
            conn,
            jobs.begin_run(conn, name),
            outcome,
            {"n": 1, "none": 0},
            "the error" if outcome != "ok" else None,
        )
    assert [(run.name, run.outcome, run.counts, run.error) for run in jobs.list_latest_runs(conn)] == [
        ("a", "failed", {"n": 1}, "the error"),
        ("b", "alarm", {"n": 1}, "the error"),
    ]
    age = jobs.find_last_run_age_seconds(conn, "a")
    assert age is not None
    assert 0 <= age < 60
    running = jobs.begin_run(conn, "a")
    (latest, *_) = jobs.list_latest_runs(conn)
    assert (latest.id, latest.outcome, latest.finished_at) == (running, "running", None)
    assert [run.id for run in jobs.list_runs(conn, before=running, limit=1)] == [running - 1]
