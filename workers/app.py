"""The Celery application: jobs as tasks, their schedule, and how messages are handled.

A message says only that a job is due; what is to do stands in PostgreSQL. So a message that is lost costs delay, one
that comes twice finds nothing to do, and one that comes late is thrown away.
"""

import logging
import random
from collections.abc import Callable
from typing import Any

from celery import Celery, Task
from celery.signals import setup_logging

from bus.config.settings import SettingError
from bus.coordination.change_notifications import NotificationPublisher
from bus.db import Database
from bus.errors import Unavailable
from bus.operations.jobs import QUEUE_NAME
from workers.job_runner import Job, all_jobs, execute_job
from workers.settings import WorkerSettings

_log = logging.getLogger(__name__)
# After a kill a message that was not acknowledged comes back within this; the schedule asks again much sooner.
_VISIBILITY_TIMEOUT_SECONDS = 300
_MAX_RETRIES = 3
# A job that comes again sooner than this needs no retry of its own.
_MIN_RETRIED_INTERVAL_SECONDS = 60.0


def create_database(settings: WorkerSettings) -> Database:
    """The pool of a worker. Each thread may hold one connection; the report of the process is one more."""
    hints = NotificationPublisher(settings.bus.redis_url)
    return Database(
        settings.bus.database_url,
        pool_size=settings.threads + 1,
        application_name="llm-bus worker",
        on_commit=hints.publish,
    )


def create_app(settings: WorkerSettings, db: Database | None = None) -> Celery:
    """The application over one database and one Redis.

    Args:
        db: its pool; one of its own when left out.
    Raises:
        SettingError: REDIS_URL is not set, or JOB_EVERY names a job that does not exist.
    """
    if settings.bus.redis_url is None:
        raise SettingError(
            "REDIS_URL is not set, and Celery needs it. Without Redis run jobs from a scheduler of your own: "
            "`llm-bus job list` names them, `llm-bus job run NAME` runs one."
        )
    found = all_jobs()
    for name in settings.job_intervals:
        if name not in found:
            raise SettingError(f"JOB_EVERY names {name!r}; the jobs are {', '.join(found)}.")
    app = Celery("llm-bus", broker=settings.bus.redis_url)
    app.conf.update(
        task_default_queue=QUEUE_NAME,
        task_acks_late=True,
        task_reject_on_worker_lost=True,
        task_ignore_result=True,
        worker_prefetch_multiplier=1,
        worker_pool="threads",
        worker_concurrency=settings.threads,
        worker_hijack_root_logger=False,
        worker_enable_remote_control=False,
        worker_send_task_events=False,
        worker_cancel_long_running_tasks_on_connection_loss=False,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_transport_options={
            "visibility_timeout": _VISIBILITY_TIMEOUT_SECONDS,
            "socket_timeout": 10,
            "socket_connect_timeout": 5,
            "socket_keepalive": True,
            "health_check_interval": 10,
        },
        beat_max_loop_interval=5,
        timezone="UTC",
    )
    db = db or create_database(settings)
    for one in found.values():
        every = settings.job_intervals.get(one.name, one.interval)
        app.task(name=one.name, bind=True, max_retries=_MAX_RETRIES)(_create_task_function(one, db, settings, every))
        app.conf.beat_schedule[one.name] = {
            "task": one.name,
            "schedule": every,
            "options": {"expires": max(2 * every, 10.0)},
        }
    setup_logging.connect(_disable_celery_logging_setup)
    return app


def _create_task_function(job: Job, db: Database, settings: WorkerSettings, interval: float) -> Callable[..., None]:
    def do(task: "Task[Any, Any]") -> None:
        try:
            outcome = execute_job(job, db, settings)
        except Unavailable as error:
            _retry_later(task, interval, error)
            return
        if outcome.outcome == "failed":
            _retry_later(task, interval, RuntimeError(outcome.error))

    return do


def _retry_later(task: "Task[Any, Any]", interval: float, error: Exception) -> None:
    """Try once more after a pause, where the schedule would take long."""
    tried = task.request.retries
    if interval < _MIN_RETRIED_INTERVAL_SECONDS or tried >= _MAX_RETRIES:
        _log.warning("%s gave up until its next time: %s", task.name, error)
        return
    pause = 5 * 3**tried * random.uniform(0.8, 1.2)  # noqa: S311 - spreads retries, keeps no secret
    raise task.retry(exc=error, countdown=pause)


def _disable_celery_logging_setup(**_: Any) -> None:
    """Connected to `setup_logging`: Celery leaves logging alone then."""
