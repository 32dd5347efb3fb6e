"""The limit of the machine: claims and posts directly on PostgreSQL, without HTTP and a gateway.

The calls use either the engine's functions, as the gateway does, or the prepared statement alone, which is the limit if
all code above PostgreSQL were free.
"""

import multiprocessing
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import psycopg

from bench import cpu
from bench.checks import ClaimedNumbers
from bench.fixtures import Agent
from bus.coordination import posts, sequences
from bus.db import Database, connect

ENGINE, RAW_SQL = "engine", "bare"
CLAIM, POST = "claim", "post"
_START_DELAY = 1.5
# Clients continue for a moment, so that their backends still exist when the CPU seconds are read.
_TAIL_SECONDS = 0.4
_POST_BODY = (
    "The parser now keeps comments; please look at the error recovery in the second commit before you go on. " * 3
)

_CLAIM_SQL = "SELECT * FROM bus_claim(%s, %s, %s, NULL, NULL, NULL)"
_POST_SQL = "SELECT * FROM bus_post(%s, %s, %s, NULL, NULL, %s, %s, NULL, NULL, NULL, NULL, NULL, NULL, NULL)"


@dataclass(frozen=True)
class ConnectionTask:
    """The task of one connection: its agent, its sequence and the recipient of its posts."""

    agent: Agent
    sequence: str
    recipient: str


@dataclass(frozen=True)
class Measurement:
    """The measurement of one configuration.

    Attributes:
        rates: calls per second in each window.
        latencies: in seconds, of the best window.
        cpu: microseconds per call, by process group.
        others: cores that all other processes of the machine kept busy.
        claimed_numbers, recipients_by_post: the results of the whole run, for the checks.
    """

    mode: str
    operation: str
    processes: int
    connections: int
    rates: list[float]
    latencies: list[float]
    cpu: dict[str, float]
    others: float
    claimed_numbers: ClaimedNumbers = field(repr=False)
    recipients_by_post: dict[tuple[int, int], int] = field(repr=False)

    @property
    def best_rate(self) -> float:
        """Calls per second in the best window."""
        return max(self.rates)


def measure(
    url: str,
    mode: str,
    operation: str,
    tasks: list[ConnectionTask],
    *,
    processes: int,
    windows: int,
    seconds: float,
    postmaster: int,
) -> Measurement:
    """Call from one connection per task, distributed over client processes.

    Args:
        mode: ENGINE (the engine's functions through bus.db) or RAW_SQL (the SQL function, prepared).
        operation: CLAIM or POST.
        windows: the number of windows to measure.
        seconds: the length of each window.
        postmaster: the process id of PostgreSQL.
    """
    context = multiprocessing.get_context("spawn")
    children = []
    # All processes of a machine share the monotonic clock.
    start = time.monotonic() + _START_DELAY + 0.3 * processes
    for number in range(processes):
        pipe, child_pipe = context.Pipe()
        args = (child_pipe, url, mode, operation, tasks[number::processes], start, windows, seconds)
        process = context.Process(target=_run_client_process, args=args, daemon=True)
        process.start()
        child_pipe.close()
        children.append((process, pipe))
    process_groups = {"client": [process.pid or 0 for process, _ in children], "postgres": [postmaster]}
    time.sleep(max(0.0, start - time.monotonic()))
    before = cpu.take_snapshot(process_groups)
    time.sleep(max(0.0, start + windows * seconds - time.monotonic()))
    used = cpu.elapsed_seconds(before, cpu.take_snapshot(process_groups))
    samples: list[list[float]] = [[] for _ in range(windows)]
    claimed_numbers: ClaimedNumbers = defaultdict(list)
    recipients_by_post: dict[tuple[int, int], int] = {}
    for process, pipe in children:
        result = pipe.recv()
        process.join()
        if isinstance(result, str):
            raise RuntimeError(result)
        for window, latencies in zip(samples, result["samples"], strict=True):
            window.extend(latencies)
        for key, numbers in result["numbers"].items():
            claimed_numbers[key].extend(numbers)
        recipients_by_post |= result["posted"]
    calls = max(1, sum(len(window) for window in samples))
    return Measurement(
        mode,
        operation,
        processes,
        len(tasks),
        [len(window) / seconds for window in samples],
        max(samples, key=len),
        {group: round(used[group] / calls * 1e6, 1) for group in process_groups},
        round(used[cpu.OTHERS] / (windows * seconds), 2),
        dict(claimed_numbers),
        recipients_by_post,
    )


def _run_client_process(
    pipe: Any,
    url: str,
    mode: str,
    operation: str,
    tasks: list[ConnectionTask],
    start: float,
    windows: int,
    seconds: float,
) -> None:
    try:
        pipe.send(_ClientProcess(url, mode, operation, start, windows, seconds).run(tasks))
    except Exception as error:  # noqa: BLE001 - the parent reports every error
        pipe.send(f"{mode} {operation}: {error!r}")
    pipe.close()


class _ClientProcess:
    """One client process with a thread per connection, as in the gateway."""

    def __init__(self, url: str, mode: str, operation: str, start: float, windows: int, seconds: float) -> None:
        self.url, self.mode, self.operation = url, mode, operation
        self.start, self.windows, self.seconds = start, windows, seconds
        self.samples: list[list[float]] = [[] for _ in range(windows)]
        self.claimed_numbers: ClaimedNumbers = defaultdict(list)
        self.recipients_by_post: dict[tuple[int, int], int] = {}
        self.failures: list[str] = []

    def run(self, tasks: list[ConnectionTask]) -> dict[str, Any]:
        """Call until the windows are over. Returns all results, also those outside the windows, for the checks."""
        database = Database(self.url, pool_size=len(tasks), application_name="llm-bus bench limit")
        threads = [threading.Thread(target=self._run_thread, args=(database, task)) for task in tasks]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        database.close()
        if self.failures:
            raise RuntimeError(self.failures[0])
        return {"samples": self.samples, "numbers": dict(self.claimed_numbers), "posted": self.recipients_by_post}

    def _run_thread(self, database: Database, task: ConnectionTask) -> None:
        try:
            if self.mode == ENGINE:
                self._call_until_end(self._make_engine_call(database, task), task)
            else:
                with connect(self.url, application_name="llm-bus bench limit") as conn:
                    self._call_until_end(self._make_raw_sql_call(conn, task), task)
        except Exception as error:  # noqa: BLE001 - the parent reports every error
            self.failures.append(repr(error))

    def _call_until_end(self, call: Callable[[], tuple[int, int]], task: ConnectionTask) -> None:
        ids: list[int] = []
        recipient_counts: list[int] = []
        end = self.start + self.windows * self.seconds + _TAIL_SECONDS
        clock = time.monotonic
        sent = clock()
        while sent < end:
            new_id, recipient_count = call()
            now = clock()
            ids.append(new_id)
            recipient_counts.append(recipient_count)
            window = int((now - self.start) // self.seconds)
            if 0 <= window < self.windows:
                self.samples[window].append(now - sent)
            sent = now
        if self.operation == CLAIM:
            self.claimed_numbers[task.agent.project_id, task.sequence].extend(ids)
        else:
            self.recipients_by_post |= {
                (task.agent.project_id, post_id): recipient_count
                for post_id, recipient_count in zip(ids, recipient_counts, strict=True)
            }

    def _make_engine_call(self, database: Database, task: ConnectionTask) -> Callable[[], tuple[int, int]]:
        ctx = task.agent.ctx

        def claim() -> tuple[int, int]:
            with database.connection() as conn:
                return sequences.claim(conn, ctx, task.sequence).number, 0

        def post() -> tuple[int, int]:
            with database.connection() as conn:
                created = posts.create(conn, ctx, _POST_BODY, to_actor=task.recipient)
            return created.post_id, created.recipients

        return claim if self.operation == CLAIM else post

    def _make_raw_sql_call(self, conn: psycopg.Connection[Any], task: ConnectionTask) -> Callable[[], tuple[int, int]]:
        ctx = task.agent.ctx
        cursor = conn.cursor()

        def claim() -> tuple[int, int]:
            cursor.execute(_CLAIM_SQL, (ctx.participation_id, ctx.token_id, task.sequence), prepare=True)
            row = cursor.fetchone()
            assert row is not None
            return row[0], 0

        def post() -> tuple[int, int]:
            values = (ctx.participation_id, ctx.token_id, _POST_BODY, task.recipient, task.recipient)
            cursor.execute(_POST_SQL, values, prepare=True)
            row = cursor.fetchone()
            assert row is not None
            return row[0], row[2]

        return claim if self.operation == CLAIM else post
