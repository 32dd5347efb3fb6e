"""The worker and the scheduler: `python -m workers` runs jobs, `python -m workers beat` schedules them."""

import logging
import os
import sys
import threading

from celery import Celery
from celery.signals import task_received, task_revoked, worker_shutting_down
from celery.worker import state

from bus.config.errors import SettingError
from bus.config.variables import reading
from bus.coordination.change_notifications import NotificationPublisher
from bus.db import Database
from bus.errors import Unavailable
from bus.operations import logs, telemetry
from bus.operations.counters import read_counts
from bus.operations.heartbeat import HeartbeatReporter
from bus.operations.jobs import QUEUE_NAME
from bus.operations.metrics import MetricsEndpoint
from workers import metrics_server
from workers.app import create_app, create_database, list_problems
from workers.job_runner import register_jobs, run_counts, shutdown_requested
from workers.jobs import all_jobs
from workers.manual_runs import ManualRunPoller
from workers.settings import WorkerSettings
from workers.watchdog import Watchdog

# Less than platforms wait before they kill. Interrupted work is rolled back, and the next run does it.
_SHUTDOWN_TIMEOUT_SECONDS = 8.0
_USAGE = "usage: python -m workers [worker|beat]"


def main() -> None:
    """Read the settings and run until SIGTERM; running jobs finish their batch first."""
    logs.configure_logging()
    # Our own line of a run has its result; Celery's only record that a message arrived and was handled.
    for noisy in ("celery.worker.strategy", "celery.app.trace", "celery.beat"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    role = sys.argv[1] if len(sys.argv) > 1 else "worker"
    if role not in ("worker", "beat") or len(sys.argv) > 2:
        sys.exit(_USAGE)
    try:
        with reading(os.environ) as env:
            settings = WorkerSettings.from_env(env)
            env.add_problems(list_problems(settings))
            telemetry.start_telemetry(role, env)
        db = create_database(settings)
        app = create_app(settings, db)
    except SettingError as error:
        sys.exit(f"llm-bus {role}: {error}")
    schedule = {
        job.name: job.min_interval + settings.job_intervals.get(job.name, job.interval) for job in all_jobs().values()
    }
    if role == "beat":
        reporter = HeartbeatReporter(db, role, env.masked_settings())
    else:
        reporter = HeartbeatReporter(
            db, role, env.masked_settings(), counters=_read_job_counts, gauges=lambda: {"schedule": schedule}
        )
        if settings.metrics_port:
            metrics = MetricsEndpoint(role, settings.bus.metrics_token)
            metrics_server.add_job_metrics(metrics, db, schedule)
            metrics_server.start_server(metrics, settings.bus.host, settings.metrics_port)
    reporter.start()
    try:
        if role == "beat":
            # In memory: PostgreSQL holds the due work, so the scheduler needs no file.
            app.Beat(scheduler="celery.beat:Scheduler", quiet=True).run()
        else:
            _run_worker(app, settings)
    finally:
        reporter.stop()


def _read_job_counts() -> dict[str, int]:
    """Return the counters of this worker's heartbeat: runs and failed runs."""
    counts = read_counts(run_counts)
    return {
        "jobs": sum(counts.values()),
        "failures": sum(count for (_, outcome), count in counts.items() if outcome != "ok"),
    }


def _run_worker(app: Celery, settings: WorkerSettings) -> None:
    assert settings.bus.redis_url is not None
    publisher = NotificationPublisher(settings.bus.redis_url)
    # A pool of its own: the pool of the jobs has one connection for each thread and no more.
    db = Database(
        settings.bus.database_url, pool_size=2, application_name="llm-bus worker", on_commit=publisher.publish
    )
    _register_jobs(db, settings)
    manual_runs = ManualRunPoller(db, settings)
    watchdog = Watchdog(settings.bus.redis_url, QUEUE_NAME, lambda: len(state.active_requests) >= settings.threads)

    def record_activity(**_: object) -> None:
        watchdog.record_activity()

    task_received.connect(record_activity)
    # A message that expired is taken too, and discarded.
    task_revoked.connect(record_activity)
    worker_shutting_down.connect(_begin_shutdown)
    watchdog.start()
    manual_runs.start()
    try:
        app.worker_main(["worker", "--without-gossip", "--without-mingle", "--without-heartbeat", "--loglevel=INFO"])
    finally:
        manual_runs.stop(_SHUTDOWN_TIMEOUT_SECONDS)


def _register_jobs(db: Database, settings: WorkerSettings) -> None:
    """Record which jobs there are; if the database is away, the next heartbeat does it."""
    try:
        register_jobs(db, settings, all_jobs().values())
    except Unavailable:
        logging.getLogger(__name__).warning("the database is away; the next heartbeat registers the jobs")


def _begin_shutdown(**_: object) -> None:
    """Ask jobs to end after their present batch, and exit after the timeout in any case."""
    shutdown_requested.set()
    exit_timer = threading.Timer(_SHUTDOWN_TIMEOUT_SECONDS, os._exit, (0,))
    exit_timer.daemon = True
    exit_timer.start()


if __name__ == "__main__":
    main()
