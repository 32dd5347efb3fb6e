"""Concurrent calls that start together at a barrier, and the only polling loop of the tests."""

import asyncio
import os
import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

from bus.db import Connection, Database

# A barrier that a thread never reaches breaks for all threads, so that a test fails instead of hanging.
BARRIER_TIMEOUT_SECONDS = 120.0
# A wait that is longer ends with the timeout of the test, which says less.
_MAX_WAIT_SECONDS = 240.0
_POLL_SECONDS = 0.05

_Value = TypeVar("_Value")


def stretched(seconds: float) -> float:
    """Return the longest time for what takes this long on a quiet machine: in proportion to the load of this one."""
    return seconds * (1 + os.getloadavg()[0] / (os.cpu_count() or 1)) if hasattr(os, "getloadavg") else seconds


def wait_until(
    condition: Callable[[], _Value], seconds: float = 60, *, describe: Callable[[], str] | None = None
) -> _Value:
    """Poll the condition until its value is true, and return the value.

    Args:
        seconds: the longest wait; generous, since it passes only if the test fails.
        describe: returns what a failure shows, such as the output of a process.
    """
    deadline = time.monotonic() + min(stretched(seconds), max(seconds, _MAX_WAIT_SECONDS))
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"timed out after {seconds:g} s. {describe() if describe else ''}")
        time.sleep(_POLL_SECONDS)
    return value


async def wait_until_async(condition: Callable[[], object], seconds: float = 60) -> None:
    """Poll the condition as `wait_until` does, beside the other tasks of the event loop."""
    async with asyncio.timeout(min(stretched(seconds), max(seconds, _MAX_WAIT_SECONDS))):
        while not condition():
            await asyncio.sleep(_POLL_SECONDS / 5)


def vary_timing(randomness: random.Random, max_seconds: float) -> None:
    """Pause at random, so that concurrent transactions interleave in another way each time."""
    time.sleep(randomness.random() * max_seconds)


def hold_for(condition: Callable[[], object], seconds: float) -> None:
    """Require that the condition holds for so long, for tests of what must not happen."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        assert condition()
        time.sleep(_POLL_SECONDS)


def run_concurrently(db: Database, *calls: Callable[[Connection], Any]) -> list[Any]:
    """Run the calls at the same moment, each in its own thread and transaction.

    Every thread holds an open connection before the first call starts.

    Returns:
        The result or the exception of each call, in the order of the calls.
    """
    barrier = threading.Barrier(len(calls))

    def run(call: Callable[[Connection], Any]) -> Any:
        with db.transaction() as conn:
            conn.execute("SELECT 1")
            barrier.wait(BARRIER_TIMEOUT_SECONDS)
            return call(conn)

    with ThreadPoolExecutor(len(calls)) as pool:
        return [get_outcome(future) for future in [pool.submit(run, call) for call in calls]]


def run_numbered_concurrently(db: Database, count: int, call: Callable[[Connection, int], Any]) -> list[Any]:
    """Run `call(conn, number)` `count` times, as `run_concurrently` does, numbered from 0."""
    return run_concurrently(db, *(lambda conn, number=number: call(conn, number) for number in range(count)))


def run_jobs_concurrently(*jobs: Callable[[], Any]) -> list[Any]:
    """Run functions that open their own transactions, starting at the same moment.

    Returns:
        The result or the exception of each function, in the order of the functions.
    """
    barrier = threading.Barrier(len(jobs))

    def run(job: Callable[[], Any]) -> Any:
        barrier.wait(BARRIER_TIMEOUT_SECONDS)
        return job()

    with ThreadPoolExecutor(len(jobs)) as pool:
        return [get_outcome(future) for future in [pool.submit(run, job) for job in jobs]]


def get_outcome(future: Future[Any]) -> Any:
    """Return the result of a future, or its exception."""
    return future.exception() or future.result()


def successes(outcomes: list[Any]) -> list[Any]:
    """Return the outcomes that are not exceptions."""
    return [outcome for outcome in outcomes if not isinstance(outcome, BaseException)]


def failures(outcomes: list[Any]) -> list[Any]:
    """Return the outcomes that are exceptions."""
    return [outcome for outcome in outcomes if isinstance(outcome, BaseException)]


def wait_until_locked(db: Database) -> None:
    """Wait until a session of the database waits for a lock."""

    def count_waiting() -> int:
        with db.connection() as conn:
            row = conn.fetch_one(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
            )
        return int(row[0])

    wait_until(count_waiting)
