"""Running a job: written down, bounded, and no failure of one project stops the others."""

import json
import logging
import time
from dataclasses import replace

import pytest

from bus.config.settings import SettingError, Settings
from bus.coordination import leases, sequences
from bus.db import Connection, Database
from bus.operations import jobs as runs
from tests.concurrency import run_jobs_concurrently
from tests.factories import make_agent, make_project
from tests.log_capture import capture_logs
from workers import job_runner as module
from workers.app import create_app
from workers.job_runner import Job, JobRun, all_jobs, execute_job
from workers.settings import WorkerSettings


@pytest.fixture
def settings(database_url: str) -> WorkerSettings:
    return WorkerSettings(bus=Settings(database_url))


def test_every_job_has_a_name_a_schedule_and_a_line_about_it() -> None:
    found = all_jobs()
    assert {
        "expire_invites", "expire_leases", "decay_presence", "requeue_stalled_tasks", "escalate_overdue_posts",
        "meter_credits", "suspend_delinquent", "prune", "reconcile", "send_notices", "heartbeat", "finish_purges",
    } <= set(found)  # fmt: skip
    for job in found.values():
        assert job.summary.endswith(".")
        assert 5 <= job.interval <= 3600
        assert -(2**31) <= job.lock_key < 2**31
    assert len({job.lock_key for job in found.values()}) == len(found)


@pytest.mark.parametrize("name", sorted(all_jobs()))
def test_every_job_runs_on_an_empty_bus_and_says_so(db: Database, settings: WorkerSettings, name: str) -> None:
    assert execute_job(all_jobs()[name], db, settings, ignore_min_interval=True).outcome == "ok"
    with db.connection() as conn:
        (only,) = runs.list_runs(conn)
    assert (only.name, only.outcome, only.error) == (name, "ok", None)
    assert only.finished_at is not None


def test_one_project_that_fails_does_not_stop_the_others(db: Database, settings: WorkerSettings) -> None:
    with db.transaction() as conn:
        ids = [make_project(conn).id for _ in range(5)]

    def find(conn: Connection, after: int) -> list[int]:
        return [one for one in ids if one > after]

    def act(conn: Connection, project_id: int) -> int:
        if project_id == ids[2]:
            conn.raw.execute("SELECT 1 / 0")
        conn.execute("UPDATE project SET name = name || '!' WHERE id = %s", (project_id,))
        return 1

    def function(work: JobRun) -> None:
        work.for_each_project(find, act, "done", batch_size=2)

    outcome = execute_job(Job("x", function, 60), db, settings)
    assert (outcome.outcome, outcome.counts) == ("failed", {"done": 4})
    assert f"project {ids[2]}: DivisionByZero" in (outcome.error or "")
    with db.connection() as conn:
        assert runs.list_runs(conn)[0].outcome == "failed"
        assert conn.fetch_one("SELECT count(*) FROM project WHERE name LIKE '%%!'") == (4,)


def test_a_project_that_another_worker_is_at_is_left_to_it(db: Database, settings: WorkerSettings) -> None:
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


def test_a_run_ends_when_its_time_is_over_and_the_next_goes_on(
    db: Database, settings: WorkerSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_BUDGET_SECONDS", 0.3)
    with db.transaction() as conn:
        project = make_project(conn)

    def forever(conn: Connection, _: int) -> int:
        conn.execute("SELECT pg_sleep(0.05)")
        return 1

    def function(work: JobRun) -> None:
        work.for_each_project(
            lambda conn, after: [project.id] if after < project.id else [], forever, "steps", batch_size=1
        )

    started = time.monotonic()
    outcome = execute_job(Job("x", function, 60), db, settings)
    assert outcome.outcome == "ok"
    assert 1 <= outcome.counts["steps"] < 50
    assert time.monotonic() - started < 5


def test_a_job_that_rests_runs_once_in_its_time(db: Database, settings: WorkerSettings) -> None:
    ran: list[int] = []
    job = Job("x", lambda _: ran.append(1), 1, min_interval=3600)
    assert [execute_job(job, db, settings).outcome for _ in range(3)] == ["ok", "resting", "resting"]
    assert execute_job(job, db, settings, ignore_min_interval=True).outcome == "ok"
    assert len(ran) == 2
    with db.connection() as conn:
        assert len(runs.list_runs(conn)) == 2


def test_projects_that_take_long_and_fail_keep_no_other_waiting_for_ever(
    db: Database, settings: WorkerSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_BUDGET_SECONDS", 0.3)
    with db.transaction() as conn:
        ids = [make_project(conn).id for _ in range(5)]
    seen: list[int] = []

    def act(conn: Connection, project_id: int) -> int:
        seen.append(project_id)
        if project_id != ids[-1]:
            conn.execute("SELECT pg_sleep(0.1)")
            raise LookupError
        return 0

    def function(work: JobRun) -> None:
        work.for_each_project(lambda _, after: [one for one in ids if one > after], act, "done", batch_size=1)

    for _ in range(4):
        execute_job(Job("slow", function, 1), db, settings)
    assert ids[-1] in seen
    assert seen.count(ids[0]) > 1, "and the first come again"


def test_a_daily_job_runs_once_though_it_is_asked_for_twice_at_once(db: Database, settings: WorkerSettings) -> None:
    ran: list[int] = []
    job = Job("x", lambda _: ran.append(1), 1, min_interval=3600)
    found = run_jobs_concurrently(*[lambda: execute_job(job, db, settings).outcome] * 6)
    assert sorted(found) == ["ok", *["resting"] * 5]
    assert ran == [1]


def test_a_worker_that_is_told_nothing_of_metering_leaves_it_as_it_is(db: Database, settings: WorkerSettings) -> None:
    job = all_jobs()["meter_credits"]
    execute_job(job, db, replace(settings, metering=True))
    with db.transaction() as conn:
        ada = make_agent(conn, make_project(conn))
        sequences.claim(conn, ada.ctx, "adr")
    assert execute_job(job, db, settings).counts["events"] == 1
    assert execute_job(job, db, replace(settings, metering=False)).counts == {"switched": 1}


def test_an_alarm_is_an_outcome_of_its_own(
    db: Database, settings: WorkerSettings, caplog: pytest.LogCaptureFixture
) -> None:
    def function(work: JobRun) -> None:
        work.alarms.append("ledger, project 1: a hole")

    with caplog.at_level(logging.INFO, "workers.job_runner"):
        outcome = execute_job(Job("x", function, 60), db, settings)
    assert (outcome.outcome, outcome.error) == ("alarm", "ledger, project 1: a hole")
    assert caplog.records[-1].levelno == logging.ERROR
    fields = caplog.records[-1].fields  # type: ignore[attr-defined]
    assert json.dumps(fields)
    assert (fields["job"], fields["outcome"]) == ("x", "alarm")


def test_every_line_of_a_run_has_its_id(db: Database, settings: WorkerSettings) -> None:
    def function(work: JobRun) -> None:
        with work.isolate_errors("a part"):
            raise RuntimeError("a defect")

    with capture_logs() as lines:
        assert execute_job(Job("x", function, 60), db, settings).outcome == "failed"
        logging.getLogger("workers.job_runner").info("afterwards")
    with db.connection() as conn:
        (found,) = runs.list_runs(conn)
    assert [(line["message"], line.get("run_id")) for line in lines if line["logger"] == "workers.job_runner"] == [
        ("x failed for a part", str(found.id)),
        ("x failed", str(found.id)),
        ("job", str(found.id)),
        ("afterwards", None),
    ]


@pytest.mark.parametrize(
    ("env", "said"),
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
def test_a_wrong_setting_is_named(database_url: str, env: dict[str, str], said: str) -> None:
    with pytest.raises(SettingError) as refused:
        create_app(WorkerSettings.from_env({"DATABASE_URL": database_url, "REDIS_URL": "redis://x", **env}))
    assert said in str(refused.value)


def test_settings_of_jobs_are_read(database_url: str) -> None:
    settings = WorkerSettings.from_env(
        {"DATABASE_URL": database_url, "JOB_EVERY": " prune=5, reconcile=0.5 ,", "METERING": "1"}
    )
    assert settings.job_intervals == {"prune": 5.0, "reconcile": 0.5}
    assert settings.metering


def test_a_run_that_is_broken_off_is_no_good_run(db: Database, settings: WorkerSettings) -> None:
    def function(_: JobRun) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        execute_job(Job("x", function, 1, min_interval=3600), db, settings)
    with db.connection() as conn:
        assert runs.list_runs(conn)[0].outcome == "failed"
        # Else the nightly proof would rest for a day.
        assert runs.find_last_run_age_seconds(conn, "x") is None


def test_a_project_that_is_locked_does_not_stop_the_others(db: Database, settings: WorkerSettings) -> None:
    with db.transaction() as conn:
        held, free = make_project(conn), make_project(conn)
        for project in (held, free):
            leases.acquire(conn, make_agent(conn, project).ctx, "a.py")
        conn.execute("UPDATE lease SET expires_at = clock_timestamp()")
    with db.transaction() as conn:
        conn.execute("SELECT bus_lock_clock(%s)", (held.id,))
        outcome = execute_job(all_jobs()["expire_leases"], db, settings)
    assert (outcome.outcome, outcome.counts.get("ended")) == ("failed", 1)
    assert f"project {held.id}: it is locked" in (outcome.error or "")
