"""Execution of engine calls: connections to the database, threads, and a bound on the calls that wait for one."""

import asyncio
import time
from collections.abc import Callable
from typing import TypeVar

from bus.config.settings import Settings
from bus.ctx import Ctx
from bus.db import Connection, Database
from bus.errors import LockNotGranted
from mcp_gateway.activity_buffer import ActivityBuffer
from mcp_gateway.batches import BatchScheduler
from mcp_gateway.client_connection import is_client_gone
from mcp_gateway.denials import DENYING_ERRORS, RequestDenied
from mcp_gateway.fair_executor import FairExecutor

_T = TypeVar("_T")
# A statement waits for a lock this long in a thread. Then the thread serves others, and the call is tried again.
# It is a setting of the connections: to set it for each batch would be one more statement for each.
LOCK_TIMEOUT_MS = 200
# How long a call waits for a lock altogether, before it is answered with 503.
LOCK_WAIT_SECONDS = 4.0
_LOCK_RETRY_SECONDS = 0.05


class EngineRunner:
    """Runs the engine of one process in threads. Its methods are called on the event loop.

    Args:
        settings: the database, the number of threads and the bound on waiting calls.
        activity: records when a caller was seen.
    Attributes:
        db: the connections; work that runs in a thread takes one of them.
        executor: the threads.
        thread_count: how many there are.
        queue_limit: how many calls may run or wait for a thread.
    """

    def __init__(self, settings: Settings, activity: ActivityBuffer) -> None:
        self.thread_count = settings.threads
        self.queue_limit = settings.queue_limit
        self.db = Database(
            settings.database_url,
            pool_size=settings.threads,
            application_name="llm-bus gateway",
            lock_timeout_ms=LOCK_TIMEOUT_MS,
            index_scans_only=True,
        )
        self.executor = FairExecutor(settings.threads, "engine")
        # One batch for four threads: with two, batches are half as large and a read costs a fifth more.
        self._batches = BatchScheduler(self.db, self.executor, reads_per_owner=max(1, settings.threads // 4))
        self._activity = activity
        self._pending_calls = 0

    def close(self) -> None:
        """Finish the submitted work, end the threads and close the connections."""
        self.executor.close()
        self.db.close()

    @property
    def pending_calls(self) -> int:
        """The number of calls that run in a thread or wait for one; safe to read from any thread."""
        return self._pending_calls

    @property
    def queued_calls(self) -> int:
        """The number of calls that wait for a thread; safe to read from any thread."""
        return max(0, self._pending_calls - self.thread_count)

    async def run_in_thread(self, work: Callable[[], _T], ctx: Ctx | None = None) -> _T:
        """Run engine work in a thread; the projects of queued calls are served in turn.

        Raises:
            RequestDenied: the caller may not call, too many calls are queued, or the database is unavailable.
        """
        return await self._wait(lambda: self.executor.submit(work, ctx and ctx.project_id, tenant=ctx and ctx.owner_id))

    async def run_call(self, ctx: Ctx, work: Callable[[], _T]) -> _T:
        """Run one engine call of a caller that needs a connection of its own, as run_batched does.

        Args:
            ctx: the caller.
            work: opens its connection; waits for locks no longer than its connection allows.
        Raises:
            RequestDenied: as for run_in_thread.
        """
        has_disconnected = is_client_gone.get()

        def run_unless_gone() -> _T:
            if has_disconnected():
                raise RequestDenied(499, "gone")
            return work()

        return await self._wait(lambda: self.executor.submit(run_unless_gone, ctx.project_id, tenant=ctx.owner_id))

    async def run_batched(self, ctx: Ctx, work: Callable[[Connection], _T], *, is_write: bool) -> _T:
        """Run one engine call of a caller on a connection that it may share with other calls.

        Args:
            ctx: the caller.
            work: uses neither transactions nor SQLAlchemy statements.
            is_write: whether the work locks the clock of the caller's project.
        Raises:
            RequestDenied: as for run_in_thread.
        """
        submit = self._batches.submit_write if is_write else self._batches.submit_read
        return await self._wait(lambda: submit(ctx, work))

    async def _wait(self, submit: "Callable[[], asyncio.Future[_T]]") -> _T:
        if self._pending_calls >= self.queue_limit:
            raise RequestDenied(503, "overloaded")
        self._pending_calls += 1
        give_up_at = time.monotonic() + LOCK_WAIT_SECONDS
        try:
            while True:
                try:
                    return await submit()
                except LockNotGranted:
                    # Nothing was changed. The thread has served others meanwhile.
                    if time.monotonic() > give_up_at:
                        raise
                await asyncio.sleep(_LOCK_RETRY_SECONDS)
        except DENYING_ERRORS as error:
            raise RequestDenied.from_error(error) from None
        finally:
            self._pending_calls -= 1

    async def run_as_caller(self, ctx: Ctx, work: Callable[[Connection], _T]) -> _T:
        """Run one engine call of a caller, which counts as its activity.

        Raises:
            RequestDenied: the caller may not call, or the call cannot run at present.
        """

        def call() -> _T:
            with self.db.connection() as conn:
                return work(conn)

        result = await self.run_in_thread(call, ctx)
        self._activity.record_activity(ctx)
        return result
