"""Runs of jobs in the process of a command."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from bus.coordination.change_notifications import NotificationPublisher
from bus.db import Database
from bus.operations import jobs as job_records
from cli.exit_codes import CliError, ExitCode
from cli.runtime import settings_for_cli
from workers.job_runner import JobResult, execute_job, register_jobs
from workers.jobs import all_jobs
from workers.settings import WorkerSettings


def run_named_job(name: str, data: Path | None) -> JobResult:
    """Run a job once, also before its interval is over.

    Raises:
        CliError: there is no such job.
    """
    job = all_jobs().get(name)
    if job is None:
        raise CliError(f"There is no job {name!r}; `llm-bus job list` lists all jobs.", ExitCode.USAGE)
    with _opened(data) as (database, settings):
        return execute_job(job, database, settings, ignore_min_interval=True)


def run_due_jobs(data: Path | None) -> dict[str, JobResult]:
    """Run each job that never ran, or whose last run began at least its interval ago; return the results by name."""
    with _opened(data) as (database, settings):
        with database.connection() as conn:
            ages = {run.name: run.age_seconds for run in job_records.list_latest_runs(conn)}
        due = [
            job
            for job in all_jobs().values()
            if ages.get(job.name, float("inf")) >= settings.job_intervals.get(job.name, job.interval)
        ]
        results = {job.name: execute_job(job, database, settings) for job in due}
    # Those whose last good run is too recent rest.
    return {name: result for name, result in results.items() if result.outcome != "resting"}


def describe_result(name: str, result: JobResult) -> str:
    """Return a line about a run, and its error on further lines."""
    counts = ", ".join(f"{key} {count}" for key, count in sorted(result.counts.items()) if count) or "nothing to do"
    text = f"{name}: {result.outcome} in {result.seconds:.1f} s; {counts}"
    return f"{text}\n{result.error}" if result.error else text


@contextmanager
def _opened(data: Path | None) -> Iterator[tuple[Database, WorkerSettings]]:
    settings = WorkerSettings.from_env(bus=settings_for_cli(data)).model_copy(update={"threads": 1})
    publisher = NotificationPublisher(settings.bus.redis_url)
    database = Database(
        settings.bus.database_url, pool_size=2, application_name="llm-bus job", on_commit=publisher.publish
    )
    with closing(publisher), closing(database):
        register_jobs(database, settings, all_jobs().values(), update_schedule=False)
        yield database, settings
