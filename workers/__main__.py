"""The worker and the scheduler: `python -m workers` runs jobs, `python -m workers beat` says when."""

import logging
import os
import sys
import threading

from celery import Celery
from celery.signals import task_received, task_revoked, worker_shutting_down
from celery.worker import state

from bus.config.redaction import Asked
from bus.config.settings import SettingError
from bus.coordination.change_notifications import Sender
from bus.db import Database
from bus.errors import Unavailable
from bus.operations import logs, telemetry
from bus.operations.heartbeat import Reporter
from bus.operations.jobs import QUEUE
from bus.operations.metrics import Metrics
from workers import metrics_server
from workers.app import create_app, database
from workers.job_runner import all_jobs, announce, ran, stopping
from workers.manual_runs import Requested
from workers.settings import WorkerSettings
from workers.watchdog import Watchdog

# Less than platforms give before they kill. What is cut off is rolled back, and found by the next run.
_LAST_SECONDS = 8.0
_USAGE = "usage: python -m workers [worker|beat]"


def main() -> None:
    """Read the settings and run until SIGTERM; a job that is under way is finished first."""
    logs.configure()
    # Our own lines say what a job did; Celery's say that it came and went.
    for noisy in ("celery.worker.strategy", "celery.app.trace", "celery.beat"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    role = sys.argv[1] if len(sys.argv) > 1 else "worker"
    if role not in ("worker", "beat") or len(sys.argv) > 2:
        sys.exit(_USAGE)
    try:
        env = Asked(os.environ)
        settings = WorkerSettings.from_env(env)
        telemetry.start(role, env)
        db = database(settings)
        app = create_app(settings, db)
    except SettingError as error:
        sys.exit(f"llm-bus {role}: {error}")
    schedule = {one.name: one.rest + settings.every.get(one.name, one.every) for one in all_jobs().values()}
    if role == "beat":
        reporter = Reporter(db, role, env.shown())
    else:
        reporter = Reporter(db, role, env.shown(), counts=_counts, figures=lambda: {"schedule": schedule})
        if settings.metrics_port:
            metrics = Metrics(role, settings.bus.metrics_token)
            metrics_server.show(metrics, db, schedule)
            metrics_server.serve(metrics, settings.bus.host, settings.metrics_port)
    reporter.start()
    try:
        if role == "beat":
            # In memory: what is due stands in PostgreSQL, so nothing has to be remembered here.
            app.Beat(scheduler="celery.beat:Scheduler", quiet=True).run()
        else:
            _work(app, settings)
    finally:
        reporter.stop()


def _counts() -> dict[str, int]:
    """What the jobs of this worker did, for its report."""
    found = ran.read()
    return {
        "jobs": sum(found.values()),
        "failures": sum(count for (_, outcome), count in found.items() if outcome != "ok"),
    }


def _work(app: Celery, settings: WorkerSettings) -> None:
    assert settings.bus.redis_url is not None
    hints = Sender(settings.bus.redis_url)
    # A pool of their own: the one of the jobs has a connection for each thread and no more.
    db = Database(settings.bus.database_url, size=2, name="llm-bus worker", told=hints.give)
    _announce(db, settings)
    requested = Requested(db, settings)
    watchdog = Watchdog(settings.bus.redis_url, QUEUE, lambda: len(state.active_requests) >= settings.threads)

    def heard(**_: object) -> None:
        watchdog.hear()

    task_received.connect(heard)
    # What came too late is taken too, and thrown away.
    task_revoked.connect(heard)
    worker_shutting_down.connect(_stop_soon)
    watchdog.start()
    requested.start()
    try:
        app.worker_main(["worker", "--without-gossip", "--without-mingle", "--without-heartbeat", "--loglevel=INFO"])
    finally:
        requested.stop(_LAST_SECONDS)


def _announce(db: Database, settings: WorkerSettings) -> None:
    """Say what jobs there are. While the database is away, the heartbeat says it later."""
    try:
        announce(db, settings)
    except Unavailable:
        logging.getLogger(__name__).warning("the database is away; the jobs are announced with the next heartbeat")


def _stop_soon(**_: object) -> None:
    """Let jobs end with their present batch, and wait for none that does not."""
    stopping.set()
    last = threading.Timer(_LAST_SECONDS, os._exit, (0,))
    last.daemon = True
    last.start()


if __name__ == "__main__":
    main()
