"""Calls that start at one moment: real threads, real connections, a barrier and no sleeps."""

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from bus.db import Connection, Database

# A barrier that somebody never reaches breaks for all, so that a test fails instead of hanging.
BARRIER_TIMEOUT_SECONDS = 30.0


def run_concurrently(db: Database, *calls: Callable[[Connection], Any]) -> list[Any]:
    """Run the calls at one moment, each in a thread and a transaction of its own.

    Every thread holds its connection, open and warm, before the first call starts.

    Returns:
        In the order of the calls, what each returned or the exception that it ended with.
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
    """`together`, with one call for all: `call(conn, number)`, numbered from 0."""
    return run_concurrently(db, *(lambda conn, number=number: call(conn, number) for number in range(count)))


def run_jobs_concurrently(*jobs: Callable[[], Any]) -> list[Any]:
    """Run jobs that open their own transactions, any number of them, starting at one moment.

    Returns:
        As `together`.
    """
    barrier = threading.Barrier(len(jobs))

    def run(job: Callable[[], Any]) -> Any:
        barrier.wait(BARRIER_TIMEOUT_SECONDS)
        return job()

    with ThreadPoolExecutor(len(jobs)) as pool:
        return [get_outcome(future) for future in [pool.submit(run, job) for job in jobs]]


def get_outcome(future: Future[Any]) -> Any:
    """What a future returned, or what it raised."""
    return future.exception() or future.result()


def successes(outcomes: list[Any]) -> list[Any]:
    """The outcomes that are no exceptions."""
    return [one for one in outcomes if not isinstance(one, BaseException)]


def failures(outcomes: list[Any]) -> list[Any]:
    """The outcomes that are exceptions."""
    return [one for one in outcomes if isinstance(one, BaseException)]
