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
from bus.operations.counters import SharedTally, SharedTimings
from bus.operations.logs import belongs_to
from workers.settings import WorkerSettings

_log = logging.getLogger("workers.job_runner")
# A job ends after this and leaves the rest to its next run, so that no run is in the way of another for long.
_BUDGET_SECONDS = 20.0

# Set when the process is told to stop: whatever is under way ends with its present batch.
stopping = threading.Event()
# The runs of this process by job and outcome, and how long they took by job.
ran, took = SharedTally(), SharedTimings()

Act = Callable[[Connection, int], int]
Find = Callable[[Connection, int], list[int]]


class JobFailed(Exception):
    """A part of a job did not work; the message says which."""


@dataclass
class Work:
    """One run of a job: what it works with, and what it counts."""

    job: "Job"
    db: Database
    settings: WorkerSettings
    counts: Counter[str] = field(default_factory=Counter)
    alarms: list[str] = field(default_factory=list)
    _failures: list[str] = field(default_factory=list)
    _started: float = field(default_factory=time.monotonic)

    def is_over(self) -> bool:
        """Whether this run has had its time, or the process is about to stop."""
        return stopping.is_set() or time.monotonic() - self._started > (self.job.budget or _BUDGET_SECONDS)

    def each_project(self, find: Find, act: Act, what: str, *, full: int) -> None:
        """Act on every project that `find` finds, each in a transaction of its own, until a batch is not full.

        A project that another worker is at is left to it. One that fails does not stop the others.
        """
        # Where the last run had to stop: whoever comes first and takes long does not keep the others waiting for ever.
        start = _left_at.pop(self.job.name, 0)
        self._sweep(find, act, what, full, start, None)
        if start and not self.is_over():
            self._sweep(find, act, what, full, 0, start)

    def _sweep(self, find: Find, act: Act, what: str, full: int, after: int, last: int | None) -> None:
        """Act on the projects above `after`, up to `last`."""
        while not self.is_over():
            with self.db.call() as conn:
                found = [one for one in find(conn, after) if last is None or one <= last]
            if not found:
                return
            for after in found:
                done = full
                while done >= full and not self.is_over():
                    done = 0
                    with self.apart(f"project {after}"), self.db.write() as conn:
                        (mine,) = conn.one("SELECT pg_try_advisory_xact_lock(%s, %s)", (self.job.key, after % 2**31))
                        done = act(conn, after) if mine else 0
                    self.counts[what] += done
                if self.is_over():
                    _left_at[self.job.name] = after
                    return

    @contextmanager
    def apart(self, name: str) -> Iterator[None]:
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

    def finish(self) -> None:
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
    function: Callable[[Work], None]
    every: float
    rest: float = 0.0
    budget: float = 0.0

    @property
    def about(self) -> str:
        """What it does, in a line."""
        return (self.function.__doc__ or "").strip().partition("\n")[0]

    @property
    def key(self) -> int:
        """A number of its own for locks, the same in every process."""
        return zlib.crc32(self.name.encode()) - 2**31


_JOBS: dict[str, Job] = {}
# For a job whose time was over, the project at which it stopped. Another process begins elsewhere, which is as good.
_left_at: dict[str, int] = {}


def job(
    *, every: float, rest: float = 0.0, budget: float = 0.0
) -> Callable[[Callable[[Work], None]], Callable[[Work], None]]:
    """Make a function a job. Its name is the function's."""

    def register(function: Callable[[Work], None]) -> Callable[[Work], None]:
        _JOBS[function.__name__] = Job(function.__name__, function, every, rest, budget)
        return function

    return register


def all_jobs() -> dict[str, Job]:
    """Every job of workers/jobs, by name."""
    import workers.jobs

    for module in pkgutil.iter_modules(workers.jobs.__path__):
        importlib.import_module(f"workers.jobs.{module.name}")
    return dict(sorted(_JOBS.items()))


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended: ok, failed, alarm, or resting (not due yet)."""

    outcome: str
    counts: dict[str, int]
    error: str | None
    seconds: float


def announce(db: Database, settings: WorkerSettings, *, schedule: bool = True) -> None:
    """Let the database know what jobs there are and how often they run here; see `bus.operations.jobs.announce`.

    Raises:
        Unavailable: PostgreSQL is away.
    """
    known = [
        runs.Known(one.name, one.about, settings.every.get(one.name, one.every), one.rest)
        for one in all_jobs().values()
    ]
    with db.write() as conn:
        runs.announce(conn, known, schedule=schedule)


def run(wanted: Job, db: Database, settings: WorkerSettings, *, now: bool = False, requested: bool = False) -> Outcome:
    """Run a job once, here, and write down what it did.

    Args:
        now: also if its last good run is not long ago.
        requested: because an operator asked for it, and only if no other worker has begun that run.
    Raises:
        Unavailable: PostgreSQL is away; nothing was written down.
    """
    started = time.monotonic()
    with db.write() as conn:
        if wanted.rest and not now and not requested:
            # Of two that ask at one moment the second sees that the first has begun.
            conn.maybe("SELECT pg_advisory_xact_lock(%s, 0)", (wanted.key,))
            age = runs.find_last_run(conn, wanted.name)
            if age is not None and age < wanted.rest:
                return Outcome("resting", {}, None, time.monotonic() - started)
        run_id = runs.begin_requested(conn, wanted.name) if requested else runs.begin(conn, wanted.name)
    if run_id is None:
        return Outcome("resting", {}, None, time.monotonic() - started)
    belongs_to.set(("run_id", str(run_id)))
    work = Work(wanted, db, settings)
    outcome, error = "ok", None
    try:
        wanted.function(work)
        work.finish()
    except Exception as failure:
        outcome, error = "failed", f"{type(failure).__name__}: {failure}"
        _log.exception("%s failed", wanted.name)
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
        _write_down(db, run_id, outcome, work.counts, error, wanted.name, seconds)
        belongs_to.set(None)
    return Outcome(outcome, dict(work.counts), error, seconds)


def _write_down(
    db: Database, run_id: int, outcome: str, counts: Counter[str], error: str | None, name: str, seconds: float
) -> None:
    level = logging.INFO if outcome == "ok" else logging.ERROR
    done = {what: count for what, count in counts.items() if count}
    fields = {"job": name, "outcome": outcome, "ms": round(seconds * 1000, 1), **done}
    if error is not None:
        fields["error"] = error
    _log.log(level, "job", extra={"fields": fields})
    ran.add(name, outcome)
    took.add(seconds, name)
    telemetry.span(name, seconds, outcome=outcome)
    try:
        with db.call() as conn:
            runs.finish(conn, run_id, outcome, counts, error)
    except Unavailable:
        _log.warning("the end of %s was not written down: the database is away", name)
