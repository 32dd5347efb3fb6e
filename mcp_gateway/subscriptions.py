"""Common base of the registries of long polls and streams.

A change notification marks the subscriptions of its project as dirty, and one statement reads the state of all dirty
ones from PostgreSQL. Without notifications all subscriptions are marked dirty at intervals.
"""

import asyncio
import logging
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Generic, Protocol, TypeVar

from bus.ctx import Ctx
from bus.db import Connection, Database
from bus.db.connection import LOCK_TIMEOUT_MS
from mcp_gateway.concurrency_limit import SharedConcurrencyCounts
from mcp_gateway.fair_executor import FairExecutor

_log = logging.getLogger(__name__)
# With notifications, a periodic refresh finds changes whose notification was lost; without, it bounds the delay of all
# changes. Slightly less than whole ticks, since a timer may fire a millisecond early.
_REFRESH_SECONDS_WITH_NOTIFICATIONS, _REFRESH_SECONDS_WITHOUT_NOTIFICATIONS = 14.9, 1.9
_TICK_SECONDS = 1.0
_CHUNK_SIZE = 2_000
_T = TypeVar("_T")


class ConcurrencyLimitExceeded(Exception):
    """The token has as many open calls or streams of this kind as it may have."""


class Subscription(Protocol):
    """A call or stream that is kept open."""

    @property
    def ctx(self) -> Ctx:
        """The caller."""


SubscriptionT = TypeVar("SubscriptionT", bound=Subscription)


class SubscriptionRegistry(ABC, Generic[SubscriptionT]):
    """Registry of the open calls or streams of one kind; refreshes the dirty ones. Runs on the event loop.

    Args:
        db: the database.
        executor: runs the engine's work.
        max_per_token: how many one token may have open.
        concurrency_counts: counts how many a token has open in other processes.
        receives_notifications: whether notifications from other processes arrive at present.
    Attributes:
        kind: the name under which processes share the counts.
    """

    kind: str

    def __init__(
        self,
        db: Database,
        executor: FairExecutor,
        max_per_token: int,
        concurrency_counts: SharedConcurrencyCounts,
        receives_notifications: Callable[[], bool],
    ) -> None:
        self._db = db
        self._executor = executor
        self._max_per_token = max_per_token
        self._receives_notifications = receives_notifications
        self._by_project: dict[int, set[SubscriptionT]] = {}
        self._count_by_token: Counter[int | None] = Counter()
        self._count_in_other_processes = concurrency_counts.register(
            self.kind, max_per_token, lambda: iter(self._count_by_token.items())
        )
        self._dirty: set[SubscriptionT] = set()
        self._dirty_event = asyncio.Event()
        self._draining = False
        self._count = 0
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Start refreshing."""
        self._tasks = [asyncio.create_task(self._refresh_loop()), asyncio.create_task(self._tick_loop())]

    async def stop(self) -> None:
        """Drain and stop refreshing."""
        self.drain()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def drain(self) -> None:
        """End all subscriptions before the process stops."""
        self._draining = True
        for subscription in self.list_all():
            self._close(subscription)

    @property
    def is_draining(self) -> bool:
        """Whether the process is about to stop."""
        return self._draining

    @property
    def count(self) -> int:
        """The number of open subscriptions; safe to read from any thread."""
        return self._count

    def list_all(self) -> list[SubscriptionT]:
        """All open subscriptions."""
        return [subscription for group in self._by_project.values() for subscription in group]

    def mark_dirty(self, project_id: int, topics: frozenset[str]) -> None:
        """Mark the subscriptions that a change of these topics in a project may affect."""
        for subscription in self._by_project.get(project_id, ()):
            # A change of members may change the rights of every caller.
            if "members" in topics or self._is_affected(subscription, topics):
                self._dirty.add(subscription)
        if self._dirty:
            self._dirty_event.set()

    def mark_all_dirty(self) -> None:
        """Mark all subscriptions: notifications may have been lost."""
        self._dirty.update(self.list_all())
        if self._dirty:
            self._dirty_event.set()

    def _add(self, subscription: SubscriptionT) -> None:
        """Add a subscription.

        Raises:
            ConcurrencyLimitExceeded: its token has as many open as it may have.
        """
        token_id = subscription.ctx.token_id
        if self._count_by_token[token_id] + self._count_in_other_processes(token_id) >= self._max_per_token:
            raise ConcurrencyLimitExceeded
        self._count_by_token[token_id] += 1
        self._by_project.setdefault(subscription.ctx.project_id, set()).add(subscription)
        self._count += 1

    def _remove(self, subscription: SubscriptionT) -> None:
        self._count -= 1
        group = self._by_project[subscription.ctx.project_id]
        group.discard(subscription)
        if not group:
            del self._by_project[subscription.ctx.project_id]
        self._dirty.discard(subscription)
        self._count_by_token[subscription.ctx.token_id] -= 1
        if not self._count_by_token[subscription.ctx.token_id]:
            del self._count_by_token[subscription.ctx.token_id]

    async def _run_in_thread(
        self, work: Callable[[Connection], _T], ctx: Ctx | None = None, *, single_statement: bool = False
    ) -> _T:
        """Run engine work in a thread, in a transaction unless it is a single statement."""

        def call() -> _T:
            if single_statement:
                with self._db.connection() as conn:
                    return work(conn)
            # Nothing tries this again, so it waits longer for a lock than the connections of the gateway do.
            with self._db.transaction(lock_timeout_ms=LOCK_TIMEOUT_MS) as conn:
                return work(conn)

        return await self._executor.submit(call, ctx and ctx.token_id, tenant=ctx and ctx.owner_id)

    async def _refresh_loop(self) -> None:
        while True:
            await self._dirty_event.wait()
            self._dirty_event.clear()
            dirty = list(self._dirty)
            self._dirty.clear()
            for start in range(0, len(dirty), _CHUNK_SIZE):
                try:
                    await self._refresh(dirty[start : start + _CHUNK_SIZE])
                except Exception:  # noqa: BLE001
                    # PostgreSQL is unavailable or slow; the next periodic refresh tries again.
                    _log.warning("refreshing %s failed", self.kind, exc_info=True)

    async def _tick_loop(self) -> None:
        refreshed_at = time.monotonic()
        while True:
            await asyncio.sleep(_TICK_SECONDS)
            now = time.monotonic()
            refresh_seconds = (
                _REFRESH_SECONDS_WITH_NOTIFICATIONS
                if self._receives_notifications()
                else _REFRESH_SECONDS_WITHOUT_NOTIFICATIONS
            )
            if now - refreshed_at >= refresh_seconds:
                refreshed_at = now
                self.mark_all_dirty()
            try:
                await self._on_tick(now)
            except Exception:  # noqa: BLE001
                _log.warning("the tick of %s failed", self.kind, exc_info=True)

    async def _on_tick(self, now: float) -> None:
        """Do what depends on the clock alone; called each second."""

    @abstractmethod
    def _is_affected(self, subscription: SubscriptionT, topics: frozenset[str]) -> bool:
        """Whether changes of these topics may affect the subscription."""

    @abstractmethod
    async def _refresh(self, dirty: Sequence[SubscriptionT]) -> None:
        """Read the state of dirty subscriptions and deliver their changes."""

    @abstractmethod
    def _close(self, subscription: SubscriptionT) -> None:
        """End the subscription."""
