"""What waiting calls and open streams have in common: many of them, asked about together.

Whoever hears a hint marks those of its project as doubtful; one statement then asks PostgreSQL about all who are in
doubt. Without a hint everybody is in doubt now and then.
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
from mcp_gateway.concurrency_limit import SharedConcurrencyCounts
from mcp_gateway.fair_executor import FairExecutor

_log = logging.getLogger(__name__)
# With hints, a look now and then finds what one of them lost; without, this is how soon news arrives.
# A little less than whole ticks, since a timer may ring a millisecond early.
_REFRESH_SECONDS_WITH_NOTIFICATIONS, _REFRESH_SECONDS_WITHOUT_NOTIFICATIONS = 14.9, 1.9
_TICK_SECONDS = 1.0
_CHUNK_SIZE = 2_000
_T = TypeVar("_T")


class ConcurrencyLimitExceeded(Exception):
    """This token holds as many of these as it may."""


class Subscription(Protocol):
    """One call or stream that is kept open."""

    @property
    def ctx(self) -> Ctx: ...


SubscriptionT = TypeVar("SubscriptionT", bound=Subscription)


class SubscriptionRegistry(ABC, Generic[SubscriptionT]):
    """Keeps calls or streams of one kind and looks after those in doubt. Runs on the event loop."""

    # What others call them, where they are counted.
    kind: str

    def __init__(
        self,
        db: Database,
        executor: FairExecutor,
        max_per_token: int,
        concurrency_counts: SharedConcurrencyCounts,
        receives_notifications: Callable[[], bool],
    ) -> None:
        """
        Args:
            most_per_token: how many of them one token may hold.
            holdings: tells how many it holds in other processes.
            hinted: whether hints of other processes arrive at this moment.
        """
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
        """Begin to look after them."""
        self._tasks = [asyncio.create_task(work()) for work in (self._refresh_loop, self._tick_loop)]

    async def stop(self) -> None:
        """End what `start` began."""
        self.drain()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def drain(self) -> None:
        """Let all of them end: the process is about to stop."""
        self._draining = True
        for one in self.list_all():
            self._close(one)

    @property
    def is_draining(self) -> bool:
        """Whether the process is about to stop."""
        return self._draining

    @property
    def count(self) -> int:
        """How many are held; any thread may ask."""
        return self._count

    def list_all(self) -> list[SubscriptionT]:
        """All that are held."""
        return [one for some in self._by_project.values() for one in some]

    def mark_dirty(self, project_id: int, topics: frozenset[str]) -> None:
        """Something of these kinds was committed in a project."""
        for one in self._by_project.get(project_id, ()):
            # Who may call, and what it is shown, changes with the members.
            if "members" in topics or self._is_affected(one, topics):
                self._dirty.add(one)
        if self._dirty:
            self._dirty_event.set()

    def mark_all_dirty(self) -> None:
        """Anything may have been committed."""
        self._dirty.update(self.list_all())
        if self._dirty:
            self._dirty_event.set()

    def _add(self, subscription: SubscriptionT) -> None:
        """Hold one more.

        Raises:
            TooManyError: its token holds as many as it may.
        """
        token = subscription.ctx.token_id
        if self._count_by_token[token] + self._count_in_other_processes(token) >= self._max_per_token:
            raise ConcurrencyLimitExceeded
        self._count_by_token[token] += 1
        self._by_project.setdefault(subscription.ctx.project_id, set()).add(subscription)
        self._count += 1

    def _remove(self, subscription: SubscriptionT) -> None:
        self._count -= 1
        some = self._by_project[subscription.ctx.project_id]
        some.discard(subscription)
        if not some:
            del self._by_project[subscription.ctx.project_id]
        self._dirty.discard(subscription)
        self._count_by_token[subscription.ctx.token_id] -= 1
        if not self._count_by_token[subscription.ctx.token_id]:
            del self._count_by_token[subscription.ctx.token_id]

    async def _run_in_thread(
        self, work: Callable[[Connection], _T], ctx: Ctx | None = None, *, single_statement: bool = False
    ) -> _T:
        """Run engine work in a thread, in a transaction unless it is `one` statement."""

        def call() -> _T:
            with self._db.connection() if single_statement else self._db.transaction() as conn:
                return work(conn)

        return await self._executor.submit(call, ctx and ctx.token_id)

    async def _refresh_loop(self) -> None:
        while True:
            await self._dirty_event.wait()
            self._dirty_event.clear()
            doubtful = list(self._dirty)
            self._dirty.clear()
            for start in range(0, len(doubtful), _CHUNK_SIZE):
                try:
                    await self._refresh(doubtful[start : start + _CHUNK_SIZE])
                except Exception:  # noqa: BLE001
                    # PostgreSQL is away or slow: the next tick asks again.
                    _log.warning("what is kept open could not be looked after", exc_info=True)

    async def _tick_loop(self) -> None:
        looked = time.monotonic()
        while True:
            await asyncio.sleep(_TICK_SECONDS)
            now = time.monotonic()
            if now - looked >= (
                _REFRESH_SECONDS_WITH_NOTIFICATIONS
                if self._receives_notifications()
                else _REFRESH_SECONDS_WITHOUT_NOTIFICATIONS
            ):
                looked = now
                self.mark_all_dirty()
            try:
                await self._on_tick(now)
            except Exception:  # noqa: BLE001
                _log.warning("a tick failed", exc_info=True)

    async def _on_tick(self, now: float) -> None:
        """What happens by the clock alone, each second."""

    @abstractmethod
    def _is_affected(self, subscription: SubscriptionT, topics: frozenset[str]) -> bool:
        """Whether news of these kinds may be for this one."""

    @abstractmethod
    async def _refresh(self, dirty: Sequence[SubscriptionT]) -> None:
        """Ask about these and tell those for whom there is something."""

    @abstractmethod
    def _close(self, subscription: SubscriptionT) -> None:
        """Let this one end."""
