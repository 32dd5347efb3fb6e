"""What a job is: a function with its schedule on the decorator, run once and written down.

A job polls PostgreSQL for what is due and does it in short transactions, each of one project. It may run twice at once
and may be killed at any moment; what it has not done, the next run finds.
"""

import importlib
import logging
import pkgutil
import threading
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from psycopg.errors import DeadlockDetected, LockNotAvailable

from bus.db import Connection, Database
from bus.errors import Unavailable
from bus.operations import jobs as runs
from bus.operations import telemetry
from bus.operations.counters import SharedCounter, SharedHistogram
from bus.operations.logs import log_context
from workers.settings import WorkerSettings

_log = logging.getLogger("workers.job_runner")
# A job ends after this and leaves the rest to its next run, so that no run is in the way of another for long.
_DEFAULT_TIME_BUDGET_SECONDS = 20.0

# Set when the process is told to stop: whatever is under way ends with its present batch.
shutdown_requested = threading.Event()
# The runs of this process by job and outcome, and how long they took by job.
run_counts, run_durations = SharedCounter(), SharedHistogram()

ProcessProject = Callable[[Connection, int], int]
FindProjects = Callable[[Connection, int], list[int]]


class JobFailed(Exception):
    """A part of a job did not work; the message says which."""


@dataclass
class JobRun:
    """One run of a job: what it works with, and what it counts."""

    job: "Job"
    db: Database
    settings: WorkerSettings
    counts: Counter[str] = field(default_factory=Counter)
    alarms: list[str] = field(default_factory=list)
    _failures: list[str] = field(default_factory=list)
    _started_at: float = field(default_factory=time.monotonic)

    def should_stop(self) -> bool:
        """Whether this run has had its time, or the process is about to stop."""
        return shutdown_requested.is_set() or time.monotonic() - self._started_at > (
            self.job.time_budget or _DEFAULT_TIME_BUDGET_SECONDS
        )

    def for_each_project(
        self, find_projects: FindProjects, process: ProcessProject, counter: str, *, batch_size: int
    ) -> None:
        """Act on every project that `find` finds, each in a transaction of its own, until a batch is not full.

        A project that another worker is at is left to it. One that fails does not stop the others.
        """
        # Where the last run had to stop: whoever comes first and takes long does not keep the others waiting for ever.
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
        """Act on the projects above `after`, up to `last`."""
        while not self.should_stop():
            with self.db.connection() as conn:
                found = [one for one in find_projects(conn, after_id) if last_id is None or one <= last_id]
            if not found:
                return
            for after_id in found:
                done = batch_size
                while done >= batch_size and not self.should_stop():
                    done = 0
                    with self.isolate_errors(f"project {after_id}"), self.db.transaction() as conn:
                        (mine,) = conn.fetch_one(
                            "SELECT pg_try_advisory_xact_lock(%s, %s)", (self.job.lock_key, after_id % 2**31)
                        )
                        done = process(conn, after_id) if mine else 0
                    self.counts[counter] += done
                if self.should_stop():
                    _resume_after_project[self.job.name] = after_id
                    return

    @contextmanager
    def isolate_errors(self, name: str) -> Iterator[None]:
        """A part of the job: if it fails, the others go on, and the run says in the end what failed."""
        try:
            yield
        except Unavailable as error:
            if not isinstance(error.__cause__, (LockNotAvailable, DeadlockDetected)):
                raise
            # The database is there; this part is held by somebody, and the next one may not be.
            self._failures.append(f"{name}: it is locked")
        except Exception as error:  # noqa: BLE001
            _log.exception("%s failed for %s", self.job.name, name)
            self._failures.append(f"{name}: {type(error).__name__}: {error}")

    def raise_failures(self) -> None:
        """Raise what failed on the way."""
        if self._failures:
            more = f" (and {len(self._failures) - 1} more)" if len(self._failures) > 1 else ""
            raise JobFailed(f"{self._failures[0]}{more}")


@dataclass(frozen=True)
class Job:
    """A job: its name, what it does, and how often.

    Attributes:
        every: seconds between two runs.
        rest: seconds that must have passed since its last good run; it is asked for more often so that a restart
            of the scheduler loses none.
        budget: seconds that a run may take; 0 is what most get.
    """

    name: str
    function: Callable[[JobRun], None]
    interval: float
    min_interval: float = 0.0
    time_budget: float = 0.0

    @property
    def summary(self) -> str:
        """What it does, in a line."""
        return (self.function.__doc__ or "").strip().partition("\n")[0]

    @property
    def lock_key(self) -> int:
        """A number of its own for locks, the same in every process."""
        return zlib.crc32(self.name.encode()) - 2**31


_JOBS: dict[str, Job] = {}
# For a job whose time was over, the project at which it stopped. Another process begins elsewhere, which is as good.
_resume_after_project: dict[str, int] = {}


def job(
    *, interval: float, min_interval: float = 0.0, time_budget: float = 0.0
) -> Callable[[Callable[[JobRun], None]], Callable[[JobRun], None]]:
    """Make a function a job. Its name is the function's."""

    def register(function: Callable[[JobRun], None]) -> Callable[[JobRun], None]:
        _JOBS[function.__name__] = Job(function.__name__, function, interval, min_interval, time_budget)
        return function

    return register


def all_jobs() -> dict[str, Job]:
    """Every job of workers/jobs, by name."""
    import workers.jobs

    for module in pkgutil.iter_modules(workers.jobs.__path__):
        importlib.import_module(f"workers.jobs.{module.name}")
    return dict(sorted(_JOBS.items()))


@dataclass(frozen=True, slots=True)
class JobResult:
    """How a run ended: ok, failed, alarm, or resting (not due yet)."""

    outcome: str
    counts: dict[str, int]
    error: str | None
    seconds: float


def register_jobs(db: Database, settings: WorkerSettings, *, update_schedule: bool = True) -> None:
    """Let the database know what jobs there are and how often they run here; see `bus.operations.jobs.announce`.

    Raises:
        Unavailable: PostgreSQL is away.
    """
    known = [
        runs.JobDefinition(one.name, one.summary, settings.job_intervals.get(one.name, one.interval), one.min_interval)
        for one in all_jobs().values()
    ]
    with db.transaction() as conn:
        runs.register_jobs(conn, known, update_schedule=update_schedule)


def execute_job(
    job: Job, db: Database, settings: WorkerSettings, *, ignore_min_interval: bool = False, from_request: bool = False
) -> JobResult:
    """Run a job once, here, and write down what it did.

    Args:
        now: also if its last good run is not long ago.
        requested: because an operator asked for it, and only if no other worker has begun that run.
    Raises:
        Unavailable: PostgreSQL is away; nothing was written down.
    """
    started = time.monotonic()
    with db.transaction() as conn:
        if job.min_interval and not ignore_min_interval and not from_request:
            # Of two that ask at one moment the second sees that the first has begun.
            conn.execute("SELECT pg_advisory_xact_lock(%s, 0)", (job.lock_key,))
            age = runs.find_last_run_age_seconds(conn, job.name)
            if age is not None and age < job.min_interval:
                return JobResult("resting", {}, None, time.monotonic() - started)
        run_id = runs.begin_requested_run(conn, job.name) if from_request else runs.begin_run(conn, job.name)
    if run_id is None:
        return JobResult("resting", {}, None, time.monotonic() - started)
    log_context.set(("run_id", str(run_id)))
    work = JobRun(job, db, settings)
    outcome, error = "ok", None
    try:
        job.function(work)
        work.raise_failures()
    except Exception as failure:
        outcome, error = "failed", f"{type(failure).__name__}: {failure}"
        _log.exception("%s failed", job.name)
        if isinstance(failure, Unavailable):
            raise
    except BaseException as broken_off:
        # Ctrl-C, or the process ends. It must not count as a good run, after which the job would rest.
        outcome, error = "failed", f"{type(broken_off).__name__}: it was broken off"
        raise
    else:
        if work.alarms:
            outcome, error = "alarm", "\n".join(work.alarms)
    finally:
        seconds = time.monotonic() - started
        _record_result(db, run_id, outcome, work.counts, error, job.name, seconds)
        log_context.set(None)
    return JobResult(outcome, dict(work.counts), error, seconds)


def _record_result(
    db: Database, run_id: int, outcome: str, counts: Counter[str], error: str | None, name: str, seconds: float
) -> None:
    level = logging.INFO if outcome == "ok" else logging.ERROR
    done = {what: count for what, count in counts.items() if count}
    fields = {"job": name, "outcome": outcome, "ms": round(seconds * 1000, 1), **done}
    if error is not None:
        fields["error"] = error
    _log.log(level, "job", extra={"fields": fields})
    run_counts.increment(name, outcome)
    run_durations.observe(seconds, name)
    telemetry.record_span(name, seconds, outcome=outcome)
    try:
        with db.connection() as conn:
            runs.finish_run(conn, run_id, outcome, counts, error)
    except Unavailable:
        _log.warning("the end of %s was not written down: the database is away", name)
