"""The Celery application: jobs as tasks, their schedule, and the handling of messages.

A message only triggers a job; PostgreSQL holds the due work. So a lost message costs delay, a duplicate finds nothing
to do, and a late one is discarded.
"""

import logging
import random
import ssl
from collections.abc import Callable
from typing import Any

from celery import Celery, Task
from celery.signals import setup_logging
from kombu.utils.url import parse_url

from bus.config.errors import SettingError
from bus.coordination.change_notifications import NotificationPublisher
from bus.db import Database
from bus.errors import Unavailable
from bus.operations.jobs import QUEUE_NAME
from workers.acknowledgement import release_places_of_failed_acks
from workers.job_runner import Job, execute_job
from workers.jobs import all_jobs
from workers.settings import WorkerSettings

_log = logging.getLogger(__name__)
# After a kill an unacknowledged message is redelivered within this time; the schedule sends a new one much sooner.
_VISIBILITY_TIMEOUT_SECONDS = 300
_MAX_RETRIES = 3
# A job whose interval is shorter than this needs no retry.
_MIN_RETRIED_INTERVAL_SECONDS = 60.0


def create_database(settings: WorkerSettings) -> Database:
    """Create the pool of a worker: one connection for each thread and one for the heartbeat of the process."""
    publisher = NotificationPublisher(settings.bus.redis_url)
    return Database(
        settings.bus.database_url,
        pool_size=settings.threads + 1,
        application_name="llm-bus worker",
        on_commit=publisher.publish,
    )


def list_problems(settings: WorkerSettings) -> list[str]:
    """Return what is wrong with the settings for a process of Celery: no REDIS_URL, unknown jobs in JOB_EVERY."""
    problems = []
    if settings.bus.redis_url is None:
        problems.append(
            "REDIS_URL is not set, and Celery needs it. Without Redis, run the jobs from a scheduler of your own: "
            "`llm-bus job list` lists them, `llm-bus job run NAME` runs one."
        )
    jobs = all_jobs()
    unknown_jobs = [repr(name) for name in settings.job_intervals if name not in jobs]
    if unknown_jobs:
        problems.append(f"JOB_EVERY names {', '.join(unknown_jobs)}; the jobs are {', '.join(jobs)}.")
    return problems


def create_app(settings: WorkerSettings, db: Database | None = None) -> Celery:
    """Create the application over one database and one Redis.

    Args:
        db: the pool for jobs; default: a new one.

    Raises:
        SettingError: REDIS_URL is not set, or JOB_EVERY names a job that does not exist.
    """
    if problems := list_problems(settings):
        raise SettingError(*problems)
    release_places_of_failed_acks()
    jobs = all_jobs()
    app = Celery("llm-bus", broker=settings.bus.redis_url)
    app.conf.update(
        broker_use_ssl=_tls_options(settings.bus.redis_url or ""),
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
    for job in jobs.values():
        interval = settings.job_intervals.get(job.name, job.interval)
        app.task(name=job.name, bind=True, max_retries=_MAX_RETRIES)(_create_task_function(job, db, settings, interval))
        app.conf.beat_schedule[job.name] = {
            "task": job.name,
            "schedule": interval,
            "options": {"expires": max(2 * interval, 10.0)},
        }
    setup_logging.connect(_disable_celery_logging_setup)
    return app


def _tls_options(redis_url: str) -> dict[str, Any] | None:
    """Return the options of TLS for `rediss://`; None without TLS. By itself kombu would verify no certificate."""
    if not redis_url.startswith("rediss://"):
        return None
    return {"ssl_cert_reqs": ssl.CERT_REQUIRED, "ssl_check_hostname": True, **parse_url(redis_url).get("ssl", {})}


def _create_task_function(job: Job, db: Database, settings: WorkerSettings, interval: float) -> Callable[..., None]:
    def run_task(task: "Task[Any, Any]") -> None:
        try:
            result = execute_job(job, db, settings)
        except Unavailable as error:
            _retry_later(task, interval, error)
            return
        if result.outcome == "failed":
            _retry_later(task, interval, RuntimeError(result.error))

    return run_task


def _retry_later(task: "Task[Any, Any]", interval: float, error: Exception) -> None:
    """Retry after a pause, unless the next scheduled run comes soon anyway."""
    retries = task.request.retries
    if interval < _MIN_RETRIED_INTERVAL_SECONDS or retries >= _MAX_RETRIES:
        _log.warning("%s is not retried before its next scheduled run: %s", task.name, error)
        return
    pause = 5 * 3**retries * random.uniform(0.8, 1.2)  # noqa: S311 - jitter, not a secret
    raise task.retry(exc=error, countdown=pause)


def _disable_celery_logging_setup(**_: Any) -> None:
    """Receive `setup_logging`: with a receiver connected, Celery does not configure logging."""
