"""The worker and the scheduler: `python -m workers` runs jobs, `python -m workers beat` says when."""

import logging
import os
import sys
import threading

from celery import Celery
from celery.signals import task_received, task_revoked, worker_shutting_down
from celery.worker import state

from bus.config.redaction import RecordingEnvironment
from bus.config.settings import SettingError
from bus.coordination.change_notifications import NotificationPublisher
from bus.db import Database
from bus.errors import Unavailable
from bus.operations import logs, telemetry
from bus.operations.heartbeat import HeartbeatReporter
from bus.operations.jobs import QUEUE_NAME
from bus.operations.metrics import MetricsEndpoint
from workers import metrics_server
from workers.app import create_app, create_database
from workers.job_runner import all_jobs, register_jobs, run_counts, shutdown_requested
from workers.manual_runs import ManualRunPoller
from workers.settings import WorkerSettings
from workers.watchdog import Watchdog

# Less than platforms give before they kill. What is cut off is rolled back, and found by the next run.
_SHUTDOWN_TIMEOUT_SECONDS = 8.0
_USAGE = "usage: python -m workers [worker|beat]"


def main() -> None:
    """Read the settings and run until SIGTERM; a job that is under way is finished first."""
    logs.configure_logging()
    # Our own lines say what a job did; Celery's say that it came and went.
    for noisy in ("celery.worker.strategy", "celery.app.trace", "celery.beat"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    role = sys.argv[1] if len(sys.argv) > 1 else "worker"
    if role not in ("worker", "beat") or len(sys.argv) > 2:
        sys.exit(_USAGE)
    try:
        env = RecordingEnvironment(os.environ)
        settings = WorkerSettings.from_env(env)
        telemetry.start_telemetry(role, env)
        db = create_database(settings)
        app = create_app(settings, db)
    except SettingError as error:
        sys.exit(f"llm-bus {role}: {error}")
    schedule = {
        one.name: one.min_interval + settings.job_intervals.get(one.name, one.interval) for one in all_jobs().values()
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
            # In memory: what is due stands in PostgreSQL, so nothing has to be remembered here.
            app.Beat(scheduler="celery.beat:Scheduler", quiet=True).run()
        else:
            _run_worker(app, settings)
    finally:
        reporter.stop()


def _read_job_counts() -> dict[str, int]:
    """What the jobs of this worker did, for its report."""
    found = run_counts.snapshot()
    return {
        "jobs": sum(found.values()),
        "failures": sum(count for (_, outcome), count in found.items() if outcome != "ok"),
    }


def _run_worker(app: Celery, settings: WorkerSettings) -> None:
    assert settings.bus.redis_url is not None
    hints = NotificationPublisher(settings.bus.redis_url)
    # A pool of their own: the one of the jobs has a connection for each thread and no more.
    db = Database(settings.bus.database_url, pool_size=2, application_name="llm-bus worker", on_commit=hints.publish)
    _register_jobs(db, settings)
    requested = ManualRunPoller(db, settings)
    watchdog = Watchdog(settings.bus.redis_url, QUEUE_NAME, lambda: len(state.active_requests) >= settings.threads)

    def heard(**_: object) -> None:
        watchdog.record_activity()

    task_received.connect(heard)
    # What came too late is taken too, and thrown away.
    task_revoked.connect(heard)
    worker_shutting_down.connect(_begin_shutdown)
    watchdog.start()
    requested.start()
    try:
        app.worker_main(["worker", "--without-gossip", "--without-mingle", "--without-heartbeat", "--loglevel=INFO"])
    finally:
        requested.stop(_SHUTDOWN_TIMEOUT_SECONDS)


def _register_jobs(db: Database, settings: WorkerSettings) -> None:
    """Say what jobs there are. While the database is away, the heartbeat says it later."""
    try:
        register_jobs(db, settings)
    except Unavailable:
        logging.getLogger(__name__).warning("the database is away; the jobs are announced with the next heartbeat")


def _begin_shutdown(**_: object) -> None:
    """Let jobs end with their present batch, and wait for none that does not."""
    shutdown_requested.set()
    last = threading.Timer(_SHUTDOWN_TIMEOUT_SECONDS, os._exit, (0,))
    last.daemon = True
    last.start()


if __name__ == "__main__":
    main()
