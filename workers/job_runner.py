"""Define jobs with `@job`, run one and record the run.

A job polls PostgreSQL for due work and does it in short transactions, each of one project. It may run twice at once
and may be killed at any moment; the next run does the rest.
"""

import logging
import threading
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from psycopg.errors import DeadlockDetected, LockNotAvailable

from bus.db import Connection, Database
from bus.errors import Unavailable
from bus.operations import jobs as job_records
from bus.operations import telemetry
from bus.operations.counters import make_counter, make_histogram
from bus.operations.logs import log_context
from workers.settings import WorkerSettings

_log = logging.getLogger("workers.job_runner")
# A run ends after this and leaves the rest to the next run, so that no run delays another for long.
_DEFAULT_TIME_BUDGET_SECONDS = 20.0

# Set when the process has to stop: runs end after their present batch.
shutdown_requested = threading.Event()
# The runs of this process by job and outcome, and their durations by job.
run_counts = make_counter("job_runs", "Runs of jobs in this process.", ("job", "outcome"))
run_durations = make_histogram("job_run_seconds", "Durations of job runs.", ("job",))

ProcessProject = Callable[[Connection, int], int]
FindProjects = Callable[[Connection, int], list[int]]


class JobFailed(Exception):
    """Some parts of a job failed; the message names the first."""


@dataclass
class JobRun:
    """The context of one run of a job: database, settings, counts and alarms."""

    job: "Job"
    db: Database
    settings: WorkerSettings
    counts: Counter[str] = field(default_factory=Counter)
    alarms: list[str] = field(default_factory=list)
    _failures: list[str] = field(default_factory=list)
    _started_at: float = field(default_factory=time.monotonic)

    def should_stop(self) -> bool:
        """Return whether the run has used up its time or the process is stopping."""
        return shutdown_requested.is_set() or time.monotonic() - self._started_at > (
            self.job.time_budget or _DEFAULT_TIME_BUDGET_SECONDS
        )

    def for_each_project(
        self, find_projects: FindProjects, process: ProcessProject, counter: str, *, batch_size: int
    ) -> None:
        """Process each project that `find_projects` returns until a batch is not full.

        Each batch is a transaction of its own. Projects that another worker is processing are skipped, and an error
        in one project does not stop the others.

        Args:
            find_projects: returns, in order, projects above an id that have due work.
            process: does one batch of a project and returns its size.
            counter: the name under which the sizes are counted.
            batch_size: the size of a full batch.
        """
        # Resume where the last run stopped, so that a slow first project cannot starve the others.
        start = _resume_after_project.pop(self.job.name, 0)
        self._process_range(find_projects, process, counter, batch_size, start, None)
        if start and not self.should_stop():
            self._process_range(find_projects, process, counter, batch_size, 0, start)

    def _process_range(
        self,
        find_projects: FindProjects,
        process: ProcessProject,
        counter: str,
        batch_size: int,
        after_id: int,
        last_id: int | None,
    ) -> None:
        """Process the projects above `after_id`, up to and including `last_id`."""
        while not self.should_stop():
            with self.db.connection() as conn:
                project_ids = [id_ for id_ in find_projects(conn, after_id) if last_id is None or id_ <= last_id]
            if not project_ids:
                return
            for after_id in project_ids:
                processed = batch_size
                while processed >= batch_size and not self.should_stop():
                    processed = 0
                    with self.isolate_errors(f"project {after_id}"), self.db.transaction() as conn:
                        (locked,) = conn.fetch_one(
                            "SELECT pg_try_advisory_xact_lock(%s, %s)", (self.job.lock_key, after_id % 2**31)
                        )
                        processed = process(conn, after_id) if locked else 0
                    self.counts[counter] += processed
                if self.should_stop():
                    _resume_after_project[self.job.name] = after_id
                    return

    @contextmanager
    def isolate_errors(self, name: str) -> Iterator[None]:
        """Record an error of one part of the job, so that the other parts still run.

        Raises:
            Unavailable: the database is away; the other parts would fail too.
        """
        try:
            yield
        except Unavailable as error:
            if not isinstance(error.__cause__, (LockNotAvailable, DeadlockDetected)):
                raise
            # The database is there; only this part is locked.
            self._failures.append(f"{name}: it is locked")
        except Exception as error:  # noqa: BLE001
            _log.exception("%s failed for %s", self.job.name, name)
            self._failures.append(f"{name}: {type(error).__name__}: {error}")

    def raise_failures(self) -> None:
        """Raise JobFailed if any part failed."""
        if self._failures:
            more = f" (and {len(self._failures) - 1} more)" if len(self._failures) > 1 else ""
            raise JobFailed(f"{self._failures[0]}{more}")


@dataclass(frozen=True)
class Job:
    """A job: its name, its function and its schedule.

    Attributes:
        interval: seconds between two runs.
        min_interval: seconds that must have passed since the last good run. Such a job is started more often than
            that, so that a restart of the scheduler skips no run.
        time_budget: seconds that a run may take; 0 is the default.
    """

    name: str
    function: Callable[[JobRun], None]
    interval: float
    min_interval: float = 0.0
    time_budget: float = 0.0

    @property
    def summary(self) -> str:
        """The first line of the function's docstring."""
        return (self.function.__doc__ or "").strip().partition("\n")[0]

    @property
    def lock_key(self) -> int:
        """The first key of the job's advisory locks, the same in every process."""
        return zlib.crc32(self.name.encode()) - 2**31


_JOBS: dict[str, Job] = {}
# By job, the project at which the last run of this process used up its time.
_resume_after_project: dict[str, int] = {}


def job(
    *, interval: float, min_interval: float = 0.0, time_budget: float = 0.0
) -> Callable[[Callable[[JobRun], None]], Callable[[JobRun], None]]:
    """Make a function a job with the function's name; see `Job` for the arguments."""

    def register(function: Callable[[JobRun], None]) -> Callable[[JobRun], None]:
        _JOBS[function.__name__] = Job(function.__name__, function, interval, min_interval, time_budget)
        return function

    return register


def registered_jobs() -> dict[str, Job]:
    """Return the jobs of the modules imported so far, by name; `workers.jobs.all_jobs` imports all of them."""
    return dict(sorted(_JOBS.items()))


@dataclass(frozen=True, slots=True)
class JobResult:
    """The end of a run.

    Attributes:
        outcome: ok, failed, alarm, or resting (not due yet).
    """

    outcome: str
    counts: dict[str, int]
    error: str | None
    seconds: float


def register_jobs(db: Database, settings: WorkerSettings, jobs: Iterable[Job], *, update_schedule: bool = True) -> None:
    """Record in the database which jobs there are and how often they run; see `bus.operations.jobs.register_jobs`.

    Raises:
        Unavailable: PostgreSQL is away.
    """
    definitions = [
        job_records.JobDefinition(
            job.name, job.summary, settings.job_intervals.get(job.name, job.interval), job.min_interval
        )
        for job in jobs
    ]
    with db.transaction() as conn:
        job_records.register_jobs(conn, definitions, update_schedule=update_schedule)


def execute_job(
    job: Job, db: Database, settings: WorkerSettings, *, ignore_min_interval: bool = False, from_request: bool = False
) -> JobResult:
    """Run a job once in this thread and record the run.

    Args:
        ignore_min_interval: run it even if its last good run is recent.
        from_request: run it only if an operator requested a run that no other worker has begun.

    Raises:
        Unavailable: PostgreSQL is away; nothing was recorded.
    """
    started = time.monotonic()
    with db.transaction() as conn:
        if job.min_interval and not ignore_min_interval and not from_request:
            # Serialise concurrent starts, so that the second one sees the run of the first.
            conn.execute("SELECT pg_advisory_xact_lock(%s, 0)", (job.lock_key,))
            age = job_records.find_last_run_age_seconds(conn, job.name)
            if age is not None and age < job.min_interval:
                return JobResult("resting", {}, None, time.monotonic() - started)
        run_id = (
            job_records.begin_requested_run(conn, job.name) if from_request else job_records.begin_run(conn, job.name)
        )
    if run_id is None:
        return JobResult("resting", {}, None, time.monotonic() - started)
    log_context.set(("run_id", str(run_id)))
    run = JobRun(job, db, settings)
    outcome, error = "ok", None
    try:
        job.function(run)
        run.raise_failures()
    except Exception as failure:
        outcome, error = "failed", f"{type(failure).__name__}: {failure}"
        _log.exception("%s failed", job.name)
        if isinstance(failure, Unavailable):
            raise
    except BaseException as interruption:
        # Ctrl-C, or the process ends. A good run here would make the job rest.
        outcome, error = "failed", f"{type(interruption).__name__}: the run was interrupted"
        raise
    else:
        if run.alarms:
            outcome, error = "alarm", "\n".join(run.alarms)
    finally:
        seconds = time.monotonic() - started
        _record_result(db, run_id, outcome, run.counts, error, job.name, seconds)
        log_context.set(None)
    return JobResult(outcome, dict(run.counts), error, seconds)


def _record_result(
    db: Database, run_id: int, outcome: str, counts: Counter[str], error: str | None, name: str, seconds: float
) -> None:
    level = logging.INFO if outcome == "ok" else logging.ERROR
    nonzero_counts = {key: count for key, count in counts.items() if count}
    fields = {"job": name, "outcome": outcome, "ms": round(seconds * 1000, 1), **nonzero_counts}
    if error is not None:
        fields["error"] = error
    _log.log(level, "job", extra={"fields": fields})
    run_counts.labels(name, outcome).inc()
    run_durations.labels(name).observe(seconds)
    telemetry.record_span(name, seconds, outcome=outcome)
    try:
        with db.connection() as conn:
            job_records.finish_run(conn, run_id, outcome, counts, error)
    except Unavailable:
        _log.warning("the end of %s was not recorded: the database is away", name)
