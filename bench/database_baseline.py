"""The limit of the machine: claims and posts straight on PostgreSQL, without HTTP and without a gateway.

Either through the engine's own functions, as the gateway calls them, or as the bare statement, prepared, which is all
that is left when everything above PostgreSQL costs nothing.
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
from bench.checks import Numbers
from bench.fixtures import Agent
from bus.coordination import posts, sequences
from bus.db import Database, connect

ENGINE, BARE = "engine", "bare"
CLAIM, POST = "claim", "post"
_START_DELAY = 1.5
# Clients go on for a moment, so that their backends still live when the CPU seconds are read.
_TAIL = 0.4
_BODY = "The parser now keeps comments; please look at the error recovery in the second commit before you go on. " * 3

_CLAIM_SQL = "SELECT * FROM bus_claim(%s, %s, %s, NULL, NULL, NULL)"
_POST_SQL = "SELECT * FROM bus_post(%s, %s, %s, NULL, NULL, %s, %s, NULL, NULL, NULL, NULL, NULL, NULL, NULL)"


@dataclass(frozen=True)
class Work:
    """What one connection does: who it is, and its sequence or whom it posts to."""

    agent: Agent
    sequence: str
    to: str


@dataclass(frozen=True)
class Measurement:
    """One way of calling, measured.

    Attributes:
        rates: calls a second in each window.
        latencies: seconds, of the best window.
        cpu: microseconds for each call, by party.
        others: how many cores everybody else on the machine kept busy.
        numbers, posted: what was answered over the whole run, for the checks.
    """

    way: str
    verb: str
    processes: int
    connections: int
    rates: list[float]
    latencies: list[float]
    cpu: dict[str, float]
    others: float
    numbers: Numbers = field(repr=False)
    posted: dict[tuple[int, int], int] = field(repr=False)

    @property
    def best(self) -> float:
        """Calls a second in the best window."""
        return max(self.rates)


def measure(
    url: str, way: str, verb: str, work: list[Work], *, processes: int, windows: int, seconds: float, postmaster: int
) -> Measurement:
    """Call from `len(work)` connections, spread over client processes, for some windows.

    Args:
        way: ENGINE (bus.sequences.claim and bus.posts.create through bus.db) or BARE (the SQL function, prepared).
        verb: CLAIM or POST.
    """
    context = multiprocessing.get_context("spawn")
    children = []
    # The monotonic clock is the same in all processes of a machine.
    start = time.monotonic() + _START_DELAY + 0.3 * processes
    for number in range(processes):
        ours, theirs = context.Pipe()
        args = (theirs, url, way, verb, work[number::processes], start, windows, seconds)
        process = context.Process(target=_child, args=args, daemon=True)
        process.start()
        theirs.close()
        children.append((process, ours))
    watched = {"client": [process.pid or 0 for process, _ in children], "postgres": [postmaster]}
    time.sleep(max(0.0, start - time.monotonic()))
    before = cpu.snapshot(watched)
    time.sleep(max(0.0, start + windows * seconds - time.monotonic()))
    used = cpu.between(before, cpu.snapshot(watched))
    samples: list[list[float]] = [[] for _ in range(windows)]
    numbers: Numbers = defaultdict(list)
    posted: dict[tuple[int, int], int] = {}
    for process, pipe in children:
        part = pipe.recv()
        process.join()
        if isinstance(part, str):
            raise RuntimeError(part)
        for window, more in zip(samples, part["samples"], strict=True):
            window.extend(more)
        for key, some in part["numbers"].items():
            numbers[key].extend(some)
        posted |= part["posted"]
    calls = max(1, sum(len(window) for window in samples))
    return Measurement(
        way,
        verb,
        processes,
        len(work),
        [len(window) / seconds for window in samples],
        max(samples, key=len),
        {party: round(used[party] / calls * 1e6, 1) for party in watched},
        round(used[cpu.OTHERS] / (windows * seconds), 2),
        dict(numbers),
        posted,
    )


def _child(
    pipe: Any, url: str, way: str, verb: str, work: list[Work], start: float, windows: int, seconds: float
) -> None:
    try:
        pipe.send(_Client(url, way, verb, start, windows, seconds).run(work))
    except Exception as error:  # noqa: BLE001 - the parent must hear of it, whatever it is
        pipe.send(f"{way} {verb}: {error!r}")
    pipe.close()


class _Client:
    """One client process: a thread for each connection, as in the gateway."""

    def __init__(self, url: str, way: str, verb: str, start: float, windows: int, seconds: float) -> None:
        self.url, self.way, self.verb = url, way, verb
        self.start, self.windows, self.seconds = start, windows, seconds
        self.samples: list[list[float]] = [[] for _ in range(windows)]
        self.numbers: Numbers = defaultdict(list)
        self.posted: dict[tuple[int, int], int] = {}
        self.failures: list[str] = []

    def run(self, work: list[Work]) -> dict[str, Any]:
        """Call until the windows are over; what was called before and after them is kept for the checks too."""
        database = Database(self.url, size=len(work), name="llm-bus bench limit")
        threads = [threading.Thread(target=self._thread, args=(database, one)) for one in work]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        database.close()
        if self.failures:
            raise RuntimeError(self.failures[0])
        return {"samples": self.samples, "numbers": dict(self.numbers), "posted": self.posted}

    def _thread(self, database: Database, work: Work) -> None:
        try:
            if self.way == ENGINE:
                self._loop(self._engine(database, work), work)
            else:
                with connect(self.url, name="llm-bus bench limit") as conn:
                    self._loop(self._bare(conn, work), work)
        except Exception as error:  # noqa: BLE001 - told to the parent
            self.failures.append(repr(error))

    def _loop(self, call: Callable[[], tuple[int, int]], work: Work) -> None:
        first: list[int] = []
        recipients: list[int] = []
        end = self.start + self.windows * self.seconds + _TAIL
        clock = time.monotonic
        sent = clock()
        while sent < end:
            number, count = call()
            now = clock()
            first.append(number)
            recipients.append(count)
            window = int((now - self.start) // self.seconds)
            if 0 <= window < self.windows:
                self.samples[window].append(now - sent)
            sent = now
        if self.verb == CLAIM:
            self.numbers[work.agent.project_id, work.sequence].extend(first)
        else:
            self.posted |= {
                (work.agent.project_id, post_id): count for post_id, count in zip(first, recipients, strict=True)
            }

    def _engine(self, database: Database, work: Work) -> Callable[[], tuple[int, int]]:
        ctx = work.agent.ctx

        def claim() -> tuple[int, int]:
            with database.call() as conn:
                return sequences.claim(conn, ctx, work.sequence).number, 0

        def post() -> tuple[int, int]:
            with database.call() as conn:
                posted = posts.create(conn, ctx, _BODY, to_actor=work.to)
            return posted.post_id, posted.recipients

        return claim if self.verb == CLAIM else post

    def _bare(self, conn: psycopg.Connection[Any], work: Work) -> Callable[[], tuple[int, int]]:
        ctx = work.agent.ctx
        cursor = conn.cursor()

        def claim() -> tuple[int, int]:
            cursor.execute(_CLAIM_SQL, (ctx.participation_id, ctx.token_id, work.sequence), prepare=True)
            row = cursor.fetchone()
            assert row is not None
            return row[0], 0

        def post() -> tuple[int, int]:
            values = (ctx.participation_id, ctx.token_id, _BODY, work.to, work.to)
            cursor.execute(_POST_SQL, values, prepare=True)
            row = cursor.fetchone()
            assert row is not None
            return row[0], row[2]

        return claim if self.verb == CLAIM else post
