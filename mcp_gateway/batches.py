"""Batches: calls that wait for a thread at the same time share a connection, a round trip and a commit.

Calls are collected in lanes. A lane has at most one batch in progress; what arrives meanwhile forms the next one. So a
batch is as large as the bus is busy, and a call that finds its lane idle starts at once and alone, as if there were no
batches. See docs/decisions/0030-batches.md.
"""

import asyncio
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from bus.ctx import Ctx
from bus.db import Connection, Database
from bus.db.error_mapping import DATABASE_BUSY
from bus.db.pipeline import Outcome, run_pipelined
from bus.errors import Unavailable
from bus.operations.logs import log_context
from mcp_gateway.fair_executor import FairExecutor

MAX_BATCH_SIZE = 16
# Reads share no commit, so a larger batch saves little and keeps its first call waiting for its last.
MAX_READ_BATCH_SIZE = 8
# A call that waited longer is not begun: most clients have given up by then, and would repeat it.
QUEUE_TIMEOUT_SECONDS = 10.0
# A write waits for a lock this long in a thread. Then the thread serves other projects, and the write is tried again.
LOCK_TIMEOUT_MS = 200

Work = Callable[[Connection], Any]
_Answers = Sequence[tuple["asyncio.Future[Any]", Outcome[Any]]]


@dataclass(frozen=True, slots=True)
class Lane:
    """A group of calls that may run in one batch.

    Attributes:
        project_id: the project that the calls write to; None if they only read.
        number: distinguishes the lanes of reads, which may run at the same time.
    """

    project_id: int | None
    number: int = 0

    @property
    def is_write(self) -> bool:
        """Whether the calls write."""
        return self.project_id is not None


@dataclass(frozen=True, slots=True)
class _QueuedCall:
    work: Work
    future: "asyncio.Future[Any]"
    cursor_key: tuple[int, str]
    queued_at: float
    log_context: tuple[str, str] | None


_LaneQueue = dict[int, dict[int | None, deque[_QueuedCall]]]


class BatchScheduler:
    """Runs calls in batches, in the threads of an executor. Its methods are called on the event loop.

    The work of a call is a function of a connection that uses neither transactions nor SQLAlchemy statements. The
    projects of a lane are served in turn, and in each of them the tokens.

    Args:
        db: the connections.
        executor: the threads. A lane is one of its keys, so lanes are served in turn with other work.
        read_lane_count: how many batches of reads may run at the same time.
    """

    def __init__(self, db: Database, executor: FairExecutor, read_lane_count: int) -> None:
        self._db = db
        self._executor = executor
        self._read_lane_count = read_lane_count
        # Calls are queued on the event loop and taken in a thread.
        self._lock = threading.Lock()
        self._queues: dict[Lane, _LaneQueue] = {}
        self._busy_lanes: set[Lane] = set()

    def submit_read(self, ctx: Ctx, work: Work) -> "asyncio.Future[Any]":
        """Run work that takes no lock but that of the caller's cursor, together with reads of any project."""
        return self._submit(Lane(None, (ctx.token_id or 0) % self._read_lane_count), ctx, work)

    def submit_write(self, ctx: Ctx, work: Work) -> "asyncio.Future[Any]":
        """Run work that locks the clock of the caller's project first, together with other writes of the project."""
        return self._submit(Lane(ctx.project_id), ctx, work)

    def _submit(self, lane: Lane, ctx: Ctx, work: Work) -> "asyncio.Future[Any]":
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        call = _QueuedCall(work, future, (ctx.participation_id, ctx.session or ""), time.monotonic(), log_context.get())
        with self._lock:
            queue = self._queues.setdefault(lane, {})
            queue.setdefault(ctx.project_id, {}).setdefault(ctx.token_id, deque()).append(call)
        if lane not in self._busy_lanes:
            self._start_batch(lane)
        return future

    def _start_batch(self, lane: Lane) -> None:
        try:
            batch = self._executor.submit(lambda: self._run_batch(lane), lane)
        except RuntimeError:
            for call in self._take_calls(lane, limit=sys.maxsize):
                call.future.set_exception(Unavailable("The bus is stopping. Try again in a few seconds."))
            return
        self._busy_lanes.add(lane)
        batch.add_done_callback(lambda done: self._finish_batch(lane, done))

    def _run_batch(self, lane: Lane) -> _Answers:
        """Run the calls that are queued now. Called in a thread."""
        oldest = time.monotonic() - QUEUE_TIMEOUT_SECONDS
        taken = self._take_calls(lane, limit=MAX_BATCH_SIZE if lane.is_write else MAX_READ_BATCH_SIZE)
        calls = [call for call in taken if call.queued_at >= oldest]
        answers = list(self._run_calls(lane, calls))
        for call in taken:
            if call.queued_at < oldest:
                answers.append((call.future, Outcome(None, Unavailable(DATABASE_BUSY))))
        return answers

    def _run_calls(self, lane: Lane, calls: list[_QueuedCall]) -> _Answers:
        if not calls:
            return []
        if not lane.is_write:
            # whats_new locks the cursor of its caller; locks are taken in the order of participations and sessions.
            calls.sort(key=lambda call: call.cursor_key)
        futures = [call.future for call in calls]
        works = [_with_log_context(call) for call in calls]
        if len(works) == 1:
            return [(futures[0], self._run_alone(lane, works[0]))]
        try:
            timeout = LOCK_TIMEOUT_MS if lane.is_write else None
            outcomes = run_pipelined(self._db, works, lock_clock_of=lane.project_id, lock_timeout_ms=timeout)
        except Exception as error:  # noqa: BLE001 - raised to the caller of each call
            outcomes = [Outcome(None, error) for _ in works]
        return list(zip(futures, outcomes, strict=True))

    def _run_alone(self, lane: Lane, work: Work) -> Outcome[Any]:
        """Run one call, whose verb takes its own locks."""
        try:
            if lane.is_write:
                return run_pipelined(self._db, [work], lock_timeout_ms=LOCK_TIMEOUT_MS)[0]
            with self._db.connection() as conn:
                return Outcome(work(conn), None)
        except Exception as error:  # noqa: BLE001 - raised to the caller of the call
            return Outcome(None, error)

    def _take_calls(self, lane: Lane, limit: int) -> list[_QueuedCall]:
        """Take up to `limit` queued calls, of projects and tokens in turn."""
        taken: list[_QueuedCall] = []
        with self._lock:
            queue = self._queues.get(lane, {})
            while queue and len(taken) < limit:
                call = _take_next(queue)
                if not call.future.cancelled():
                    taken.append(call)
            if not queue:
                self._queues.pop(lane, None)
        return taken

    def _finish_batch(
        self, lane: Lane, batch: "asyncio.Future[Sequence[tuple[asyncio.Future[Any], Outcome[Any]]]]"
    ) -> None:
        self._busy_lanes.discard(lane)
        if lane in self._queues:
            self._start_batch(lane)
        for future, outcome in batch.result():
            if future.cancelled():
                continue
            if outcome.error is None:
                future.set_result(outcome.get())
            else:
                future.set_exception(outcome.error)


def _take_next(queue: _LaneQueue) -> _QueuedCall:
    """Take the next call; its project and its token go to the end of the order if they have more."""
    project_id = next(iter(queue))
    by_token = queue.pop(project_id)
    token_id = next(iter(by_token))
    calls = by_token.pop(token_id)
    call = calls.popleft()
    if calls:
        by_token[token_id] = calls
    if by_token:
        queue[project_id] = by_token
    return call


def _with_log_context(call: _QueuedCall) -> Work:
    """Return the work of a call, which logs under the request id of its own request."""

    def run(conn: Connection) -> Any:
        log_context.set(call.log_context)
        return call.work(conn)

    return run
