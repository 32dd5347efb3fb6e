"""Calls that start at one moment: real threads, real connections, a barrier and no sleeps."""

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from bus.db import Connection, Database

# A barrier that somebody never reaches breaks for all, so that a test fails instead of hanging.
PATIENCE = 30.0


def together(db: Database, *calls: Callable[[Connection], Any]) -> list[Any]:
    """Run the calls at one moment, each in a thread and a transaction of its own.

    Every thread holds its connection, open and warm, before the first call starts.

    Returns:
        In the order of the calls, what each returned or the exception that it ended with.
    """
    barrier = threading.Barrier(len(calls))

    def run(call: Callable[[Connection], Any]) -> Any:
        with db.write() as conn:
            conn.one("SELECT 1")
            barrier.wait(PATIENCE)
            return call(conn)

    with ThreadPoolExecutor(len(calls)) as pool:
        return [outcome(future) for future in [pool.submit(run, call) for call in calls]]


def race(db: Database, runners: int, call: Callable[[Connection, int], Any]) -> list[Any]:
    """`together`, with one call for all: `call(conn, number)`, numbered from 0."""
    return together(db, *(lambda conn, number=number: call(conn, number) for number in range(runners)))


def at_once(*jobs: Callable[[], Any]) -> list[Any]:
    """Run jobs that open their own transactions, any number of them, starting at one moment.

    Returns:
        As `together`.
    """
    barrier = threading.Barrier(len(jobs))

    def run(job: Callable[[], Any]) -> Any:
        barrier.wait(PATIENCE)
        return job()

    with ThreadPoolExecutor(len(jobs)) as pool:
        return [outcome(future) for future in [pool.submit(run, job) for job in jobs]]


def outcome(future: Future[Any]) -> Any:
    """What a future returned, or what it raised."""
    return future.exception() or future.result()


def winners(outcomes: list[Any]) -> list[Any]:
    """The outcomes that are no exceptions."""
    return [one for one in outcomes if not isinstance(one, BaseException)]


def losers(outcomes: list[Any]) -> list[Any]:
    """The outcomes that are exceptions."""
    return [one for one in outcomes if isinstance(one, BaseException)]
