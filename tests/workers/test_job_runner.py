"""Runs of jobs: recorded, bounded in time, and isolated from the failures of single projects."""

import json
import logging
import time

import pytest

from bus.config.settings import SettingError, Settings
from bus.coordination import leases, sequences
from bus.db import Connection, Database
from bus.operations import jobs as job_records
from tests import servers
from tests.concurrency import run_jobs_concurrently, stretched
from tests.factories import make_agent, make_project
from tests.log_capture import capture_logs
from workers import job_runner
from workers.app import create_app
from workers.job_runner import Job, JobRun, execute_job
from workers.jobs import all_jobs
from workers.settings import WorkerSettings


@pytest.fixture
def settings(database_url: str) -> WorkerSettings:
    return WorkerSettings(bus=Settings(database_url=servers.application_url(database_url)))


def test_every_job_has_a_name_a_schedule_and_a_summary() -> None:
    jobs = all_jobs()
    assert set(jobs) == {
        "expire_invites", "expire_leases", "decay_presence", "requeue_stalled_tasks", "escalate_overdue_posts",
        "meter_credits", "suspend_delinquent", "prune", "reconcile", "send_notices", "heartbeat", "finish_purges",
        "keep_tallies", "end_sessions", "index_texts",
    }  # fmt: skip
    for job in jobs.values():
        assert job.summary.endswith(".")
        assert 5 <= job.interval <= 3600
        assert -(2**31) <= job.lock_key < 2**31
    assert len({job.lock_key for job in jobs.values()}) == len(jobs)


@pytest.mark.parametrize("name", sorted(all_jobs()))
def test_every_job_succeeds_on_an_empty_bus_and_its_run_is_recorded(
    db: Database, settings: WorkerSettings, name: str
) -> None:
    assert execute_job(all_jobs()[name], db, settings, ignore_min_interval=True).outcome == "ok"
    with db.connection() as conn:
        (run,) = job_records.list_runs(conn)
    assert (run.name, run.outcome, run.error) == (name, "ok", None)
    assert run.finished_at is not None


def test_one_project_that_fails_does_not_stop_the_others(db: Database, settings: WorkerSettings) -> None:
    with db.transaction() as conn:
        ids = [make_project(conn).id for _ in range(5)]

    def find(conn: Connection, after: int) -> list[int]:
        return [id_ for id_ in ids if id_ > after]

    def process(conn: Connection, project_id: int) -> int:
        if project_id == ids[2]:
            conn.raw.execute("SELECT 1 / 0")
        conn.execute("UPDATE project SET name = name || '!' WHERE id = %s", (project_id,))
        return 1

    def function(run: JobRun) -> None:
        run.for_each_project(find, process, "done", batch_size=2)

    result = execute_job(Job("x", function, 60), db, settings)
    assert (result.outcome, result.counts) == ("failed", {"done": 4})
    assert f"project {ids[2]}: DivisionByZero" in (result.error or "")
    with db.connection() as conn:
        assert job_records.list_runs(conn)[0].outcome == "failed"
        assert conn.fetch_one("SELECT count(*) FROM project WHERE name LIKE '%%!'") == (4,)


def test_a_project_that_another_worker_processes_is_skipped(db: Database, settings: WorkerSettings) -> None:
    with db.transaction() as conn:
        project = make_project(conn)
        ada = make_agent(conn, project)
        leases.acquire(conn, ada.ctx, "a.py")
        conn.execute("UPDATE lease SET expires_at = clock_timestamp()")
    job = all_jobs()["expire_leases"]
    with db.transaction() as conn:
        conn.execute("SELECT pg_advisory_xact_lock(%s, %s)", (job.lock_key, project.id))
        assert execute_job(job, db, settings).counts.get("ended", 0) == 0
    assert execute_job(job, db, settings).counts == {"ended": 1}


def test_a_run_ends_when_its_time_budget_is_used_up(
    db: Database, settings: WorkerSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_runner, "_DEFAULT_TIME_BUDGET_SECONDS", 0.3)
    with db.transaction() as conn:
        project = make_project(conn)

    def process_endlessly(conn: Connection, _: int) -> int:
        conn.execute("SELECT pg_sleep(0.05)")
        return 1

    def function(run: JobRun) -> None:
        run.for_each_project(
            lambda conn, after: [project.id] if after < project.id else [], process_endlessly, "steps", batch_size=1
        )

    started = time.monotonic()
    result = execute_job(Job("x", function, 60), db, settings)
    assert result.outcome == "ok"
    assert 1 <= result.counts["steps"] < 50
    assert time.monotonic() - started < stretched(5)


def test_a_job_with_a_minimum_interval_runs_once_within_it(db: Database, settings: WorkerSettings) -> None:
    ran: list[int] = []
    job = Job("x", lambda _: ran.append(1), 1, min_interval=3600)
    assert [execute_job(job, db, settings).outcome for _ in range(3)] == ["ok", "resting", "resting"]
    assert execute_job(job, db, settings, ignore_min_interval=True).outcome == "ok"
    assert len(ran) == 2
    with db.connection() as conn:
        assert len(job_records.list_runs(conn)) == 2


def test_slow_and_failing_projects_do_not_starve_the_others(
    db: Database, settings: WorkerSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_runner, "_DEFAULT_TIME_BUDGET_SECONDS", 0.3)
    with db.transaction() as conn:
        ids = [make_project(conn).id for _ in range(5)]
    processed: list[int] = []

    def process(conn: Connection, project_id: int) -> int:
        processed.append(project_id)
        if project_id != ids[-1]:
            conn.execute("SELECT pg_sleep(0.1)")
            raise LookupError
        return 0

    def function(run: JobRun) -> None:
        run.for_each_project(lambda _, after: [id_ for id_ in ids if id_ > after], process, "done", batch_size=1)

    for _ in range(4):
        execute_job(Job("slow", function, 1), db, settings)
    assert ids[-1] in processed
    assert processed.count(ids[0]) > 1, "the first project is processed again"


def test_concurrent_starts_of_a_daily_job_run_it_once(db: Database, settings: WorkerSettings) -> None:
    ran: list[int] = []
    job = Job("x", lambda _: ran.append(1), 1, min_interval=3600)
    outcomes = run_jobs_concurrently(*[lambda: execute_job(job, db, settings).outcome] * 6)
    assert sorted(outcomes) == ["ok", *["resting"] * 5]
    assert ran == [1]


def test_a_worker_without_a_metering_setting_keeps_the_present_state(db: Database, settings: WorkerSettings) -> None:
    job = all_jobs()["meter_credits"]
    execute_job(job, db, settings.model_copy(update={"metering": True}))
    with db.transaction() as conn:
        ada = make_agent(conn, make_project(conn))
        sequences.claim(conn, ada.ctx, "adr")
    assert execute_job(job, db, settings).counts["events"] == 1
    assert execute_job(job, db, settings.model_copy(update={"metering": False})).counts == {"switched": 1}


def test_an_alarm_is_an_outcome_of_its_own(
    db: Database, settings: WorkerSettings, caplog: pytest.LogCaptureFixture
) -> None:
    def function(run: JobRun) -> None:
        run.alarms.append("ledger, project 1: a hole")

    with caplog.at_level(logging.INFO, "workers.job_runner"):
        result = execute_job(Job("x", function, 60), db, settings)
    assert (result.outcome, result.error) == ("alarm", "ledger, project 1: a hole")
    assert caplog.records[-1].levelno == logging.ERROR
    fields = caplog.records[-1].fields  # type: ignore[attr-defined]
    assert json.dumps(fields)
    assert (fields["job"], fields["outcome"]) == ("x", "alarm")


def test_every_log_line_of_a_run_has_the_id_of_the_run(db: Database, settings: WorkerSettings) -> None:
    def function(run: JobRun) -> None:
        with run.isolate_errors("a part"):
            raise RuntimeError("a defect")

    with capture_logs() as lines:
        assert execute_job(Job("x", function, 60), db, settings).outcome == "failed"
        logging.getLogger("workers.job_runner").info("afterwards")
    with db.connection() as conn:
        (run,) = job_records.list_runs(conn)
    assert [(line["message"], line.get("run_id")) for line in lines if line["logger"] == "workers.job_runner"] == [
        ("x failed for a part", str(run.id)),
        ("x failed", str(run.id)),
        ("job", str(run.id)),
        ("afterwards", None),
    ]


@pytest.mark.parametrize(
    ("env", "message"),
    [
        ({"JOB_EVERY": "nonsense=5"}, "JOB_EVERY names 'nonsense'"),
        ({"JOB_EVERY": "prune"}, "'prune' does not"),
        ({"JOB_EVERY": "prune=x"}, "'prune=x' does not"),
        ({"JOB_EVERY": "prune=0"}, "'prune=0' does not"),
        ({"METERING": "maybe"}, "METERING must be 1 or 0"),
        ({"SMTP_URL": "mail.example.org"}, "SMTP_URL must look like smtp://"),
        ({"SMTP_URL": "smtp://user:pa/ss@mail.example.org:587"}, "write / ? # @ in the password"),
        ({"SMTP_URL": "smtp://user:12#ss@mail.example.org:587"}, "write / ? # @ in the password"),
        ({"REDIS_URL": ""}, "llm-bus job run NAME"),
        ({"GRACE_HOURS": "-1"}, "GRACE_HOURS"),
        ({"METRICS_PORT": "9100"}, "METRICS_TOKEN is not"),
    ],
)
def test_the_error_for_an_invalid_setting_names_it(database_url: str, env: dict[str, str], message: str) -> None:
    with pytest.raises(SettingError) as refused:
        create_app(WorkerSettings.from_env({"DATABASE_URL": database_url, "REDIS_URL": "redis://x", **env}))
    assert message in str(refused.value)


def test_job_settings_are_read_from_the_environment(database_url: str) -> None:
    settings = WorkerSettings.from_env(
        {"DATABASE_URL": database_url, "JOB_EVERY": " prune=5, reconcile=0.5 ,", "METERING": "1"}
    )
    assert settings.job_intervals == {"prune": 5.0, "reconcile": 0.5}
    assert settings.metering


def test_an_interrupted_run_counts_as_failed(db: Database, settings: WorkerSettings) -> None:
    def function(_: JobRun) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        execute_job(Job("x", function, 1, min_interval=3600), db, settings)
    with db.connection() as conn:
        assert job_records.list_runs(conn)[0].outcome == "failed"
        # Otherwise the daily integrity check would rest for a day.
        assert job_records.find_last_run_age_seconds(conn, "x") is None


def test_a_locked_project_does_not_stop_the_others(db: Database, settings: WorkerSettings) -> None:
    with db.transaction() as conn:
        held, free = make_project(conn), make_project(conn)
        for project in (held, free):
            leases.acquire(conn, make_agent(conn, project).ctx, "a.py")
        conn.execute("UPDATE lease SET expires_at = clock_timestamp()")
    with db.transaction() as conn:
        conn.execute("SELECT bus_lock_clock(%s)", (held.id,))
        result = execute_job(all_jobs()["expire_leases"], db, settings)
    assert (result.outcome, result.counts.get("ended")) == ("failed", 1)
    assert f"project {held.id}: it is locked" in (result.error or "")
