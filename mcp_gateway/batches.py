"""Batches: calls that wait for a thread at the same time share a connection, a round trip and a commit.

Calls are collected in lanes: the writes of a project, or all reads. A lane of writes has at most one batch in progress,
and so has an owner in the lane of reads; what arrives meanwhile forms the next batch. So a batch is as large as the bus
is busy, and a call that finds no other call of its owner starts at once and alone, as if there were no batches. See
docs/decisions/0030-batches.md.
"""

import asyncio
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from bus.ctx import Ctx
from bus.db import Connection, Database
from bus.db.error_mapping import DATABASE_BUSY
from bus.db.pipeline import Outcome, run_pipelined
from bus.errors import Unavailable
from bus.operations.logs import log_context
from mcp_gateway.client_connection import is_client_gone
from mcp_gateway.denials import RequestDenied
from mcp_gateway.fair_executor import FairExecutor

MAX_BATCH_SIZE = 16
# Reads share no commit, so a larger batch saves little and keeps its first call waiting for its last.
MAX_READ_BATCH_SIZE = 8
# A call that waited longer is not begun: most clients have given up by then, and would repeat it.
QUEUE_TIMEOUT_SECONDS = 10.0

Work = Callable[[Connection], Any]
_Answers = Sequence[tuple["asyncio.Future[Any]", Outcome[Any]]]


@dataclass(frozen=True, slots=True)
class Lane:
    """A group of calls that may run in one batch.

    Attributes:
        project_id: the project that the calls write to; None if they only read.
        owner_id: the owner of the project.
    """

    project_id: int | None
    owner_id: int | None = None

    @property
    def is_write(self) -> bool:
        """Whether the calls write."""
        return self.project_id is not None


_READS = Lane(None)


@dataclass(frozen=True, slots=True)
class _QueuedCall:
    work: Work
    future: "asyncio.Future[Any]"
    cursor_key: tuple[int, str]
    owner_id: int
    queued_at: float
    log_context: tuple[str, str] | None
    is_client_gone: Callable[[], bool]


# The calls by owner, project and token, in the order of their turns.
_LaneQueue = dict[int, dict[int, dict[int | None, deque[_QueuedCall]]]]


@dataclass(eq=False, slots=True)
class _Batch:
    """A batch in progress.

    Attributes:
        owner_ids: the owners of its calls; None until a thread has taken the calls.
    """

    lane: Lane
    owner_ids: frozenset[int] | None = None


class BatchScheduler:
    """Runs calls in batches, in the threads of an executor. Its methods are called on the event loop.

    The work of a call is a function of a connection that uses neither transactions nor SQLAlchemy statements. The
    owners in a lane are served in turn, and the projects and tokens of each.

    Args:
        db: the connections.
        executor: the threads. A project's lane of writes is one of its keys, and the owner its tenant.
        reads_per_owner: how many batches may contain reads of one owner at the same time. There may be twice as many
            batches of reads.
    """

    def __init__(self, db: Database, executor: FairExecutor, reads_per_owner: int) -> None:
        self._db = db
        self._executor = executor
        self._max_batches_per_owner = reads_per_owner
        # Calls are queued on the event loop and taken in a thread.
        self._lock = threading.Lock()
        self._queues: dict[Lane, _LaneQueue] = {}
        self._batches: dict[Lane, list[_Batch]] = {}

    def submit_read(self, ctx: Ctx, work: Work) -> "asyncio.Future[Any]":
        """Run work that takes no lock but that of the caller's cursor, together with reads of any project."""
        return self._submit(_READS, ctx, work)

    def submit_write(self, ctx: Ctx, work: Work) -> "asyncio.Future[Any]":
        """Run work that locks the clock of the caller's project first, together with other writes of the project."""
        return self._submit(Lane(ctx.project_id, ctx.owner_id), ctx, work)

    def _submit(self, lane: Lane, ctx: Ctx, work: Work) -> "asyncio.Future[Any]":
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        call = _QueuedCall(
            work,
            future,
            (ctx.participation_id, ctx.session or ""),
            ctx.owner_id,
            time.monotonic(),
            log_context.get(),
            is_client_gone.get(),
        )
        with self._lock:
            by_project = self._queues.setdefault(lane, {}).setdefault(ctx.owner_id, {})
            by_project.setdefault(ctx.project_id, {}).setdefault(ctx.token_id, deque()).append(call)
            is_batch_useful = self._is_batch_useful(lane)
        if is_batch_useful:
            self._start_batch(lane)
        return future

    def _is_batch_useful(self, lane: Lane) -> bool:
        """Whether another batch of the lane would start a call earlier than the present ones do. The lock is held."""
        queue = self._queues.get(lane)
        batches = self._batches.get(lane, ())
        if not queue or not batches:
            return bool(queue)
        if lane.is_write or len(batches) >= 2 * self._max_batches_per_owner:
            return False
        if any(batch.owner_ids is None for batch in batches):
            # It takes the calls that wait now.
            return False
        busy = self._busy_owners(lane)
        return any(owner_id not in busy for owner_id in queue)

    def _busy_owners(self, lane: Lane) -> set[int]:
        """Return the owners who have their share of the batches in progress. The lock is held."""
        counts = Counter(owner_id for batch in self._batches.get(lane, ()) for owner_id in batch.owner_ids or ())
        return {owner_id for owner_id, count in counts.items() if count >= self._max_batches_per_owner}

    def _start_batch(self, lane: Lane) -> None:
        batch = _Batch(lane)
        # Batches of reads need no quota of the executor, since their number is limited here.
        key, tenant = (lane, lane.owner_id) if lane.is_write else (None, None)
        try:
            running = self._executor.submit(lambda: self._run_batch(batch), key, tenant=tenant)
        except RuntimeError:
            for call in self._take_calls(lane, limit=sys.maxsize):
                call.future.set_exception(Unavailable("The bus is stopping. Try again in a few seconds."))
            return
        with self._lock:
            self._batches.setdefault(lane, []).append(batch)
        running.add_done_callback(lambda done: self._finish_batch(batch, done))

    def _run_batch(self, batch: _Batch) -> _Answers:
        """Run the calls that are queued now. Called in a thread."""
        oldest = time.monotonic() - QUEUE_TIMEOUT_SECONDS
        taken = self._take_calls(batch.lane, MAX_BATCH_SIZE if batch.lane.is_write else MAX_READ_BATCH_SIZE, batch)
        calls = []
        refused: list[tuple[asyncio.Future[Any], Outcome[Any]]] = []
        for call in taken:
            if call.queued_at < oldest:
                refused.append((call.future, Outcome(None, Unavailable(DATABASE_BUSY))))
            elif call.is_client_gone():
                refused.append((call.future, Outcome(None, RequestDenied(499, "gone"))))
            else:
                calls.append(call)
        return [*self._run_calls(batch.lane, calls), *refused]

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
            outcomes = run_pipelined(self._db, works, lock_clock_of=lane.project_id)
        except Exception as error:  # noqa: BLE001 - raised to the caller of each call
            outcomes = [Outcome(None, error) for _ in works]
        return list(zip(futures, outcomes, strict=True))

    def _run_alone(self, lane: Lane, work: Work) -> Outcome[Any]:
        """Run one call, whose verb takes its own locks."""
        try:
            if lane.is_write:
                return run_pipelined(self._db, [work])[0]
            with self._db.connection() as conn:
                return Outcome(work(conn), None)
        except Exception as error:  # noqa: BLE001 - raised to the caller of the call
            return Outcome(None, error)

    def _take_calls(self, lane: Lane, limit: int, batch: _Batch | None = None) -> list[_QueuedCall]:
        """Take up to `limit` queued calls, of owners, projects and tokens in turn, at most half of them of one owner.

        Args:
            lane: the lane.
            limit: how many.
            batch: the batch that takes them. It takes none of owners who have their share of batches.
        """
        taken: list[_QueuedCall] = []
        with self._lock:
            queue = self._queues.get(lane, {})
            set_aside: _LaneQueue = {}
            if batch is not None and not lane.is_write:
                for owner_id in self._busy_owners(lane) & queue.keys():
                    set_aside[owner_id] = queue.pop(owner_id)
            limit_per_owner = limit if len(queue) < 2 else limit // 2
            counts: Counter[int] = Counter()
            while queue and len(taken) < limit:
                owner_id, call = _take_next(queue)
                if not call.future.cancelled():
                    taken.append(call)
                    counts[owner_id] += 1
                    if counts[owner_id] >= limit_per_owner and owner_id in queue:
                        set_aside[owner_id] = queue.pop(owner_id)
            if batch is not None:
                batch.owner_ids = frozenset(counts)
            if set_aside:
                self._queues[lane] = queue | set_aside
            elif not queue:
                self._queues.pop(lane, None)
        return taken

    def _finish_batch(
        self, batch: _Batch, done: "asyncio.Future[Sequence[tuple[asyncio.Future[Any], Outcome[Any]]]]"
    ) -> None:
        lane = batch.lane
        with self._lock:
            batches = self._batches[lane]
            batches.remove(batch)
            if not batches:
                del self._batches[lane]
            is_batch_useful = self._is_batch_useful(lane)
        if is_batch_useful:
            self._start_batch(lane)
        for future, outcome in done.result():
            if future.cancelled():
                continue
            if outcome.error is None:
                future.set_result(outcome.get())
            else:
                future.set_exception(outcome.error)


def _take_next(queue: _LaneQueue) -> tuple[int, _QueuedCall]:
    """Take the next call; its owner, project and token go to the end of the order if they have more."""
    owner_id = next(iter(queue))
    by_project = queue.pop(owner_id)
    project_id = next(iter(by_project))
    by_token = by_project.pop(project_id)
    token_id = next(iter(by_token))
    calls = by_token.pop(token_id)
    call = calls.popleft()
    if calls:
        by_token[token_id] = calls
    if by_token:
        by_project[project_id] = by_token
    if by_project:
        queue[owner_id] = by_project
    return owner_id, call


def _with_log_context(call: _QueuedCall) -> Work:
    """Return the work of a call, which logs under the request id of its own request."""

    def run(conn: Connection) -> Any:
        log_context.set(call.log_context)
        return call.work(conn)

    return run
