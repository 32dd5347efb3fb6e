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
from mcp_gateway.concurrency_limit import Holdings
from mcp_gateway.fair_executor import Threads

_log = logging.getLogger(__name__)
# With hints, a look now and then finds what one of them lost; without, this is how soon news arrives.
# A little less than whole ticks, since a timer may ring a millisecond early.
_TICK_WITH_HINTS, _TICK_WITHOUT = 14.9, 1.9
_TICK = 1.0
_CHUNK = 2_000
_T = TypeVar("_T")


class TooManyError(Exception):
    """This token holds as many of these as it may."""


class Held(Protocol):
    """One call or stream that is kept open."""

    @property
    def ctx(self) -> Ctx: ...


HeldT = TypeVar("HeldT", bound=Held)


class Sweeper(ABC, Generic[HeldT]):
    """Keeps calls or streams of one kind and looks after those in doubt. Runs on the event loop."""

    # What others call them, where they are counted.
    kind: str

    def __init__(
        self, db: Database, threads: Threads, most_per_token: int, holdings: Holdings, hinted: Callable[[], bool]
    ) -> None:
        """
        Args:
            most_per_token: how many of them one token may hold.
            holdings: tells how many it holds in other processes.
            hinted: whether hints of other processes arrive at this moment.
        """
        self._db = db
        self._threads = threads
        self._most = most_per_token
        self._hinted = hinted
        self._held: dict[int, set[HeldT]] = {}
        self._per_token: Counter[int | None] = Counter()
        self._elsewhere = holdings.share(self.kind, most_per_token, lambda: iter(self._per_token.items()))
        self._doubtful: set[HeldT] = set()
        self._doubt = asyncio.Event()
        self._draining = False
        self._count = 0
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Begin to look after them."""
        self._tasks = [asyncio.create_task(work()) for work in (self._sweep_for_ever, self._tick_for_ever)]

    async def stop(self) -> None:
        """End what `start` began."""
        self.drain()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def drain(self) -> None:
        """Let all of them end: the process is about to stop."""
        self._draining = True
        for one in self.all():
            self._end(one)

    @property
    def is_draining(self) -> bool:
        """Whether the process is about to stop."""
        return self._draining

    @property
    def count(self) -> int:
        """How many are held; any thread may ask."""
        return self._count

    def all(self) -> list[HeldT]:
        """All that are held."""
        return [one for some in self._held.values() for one in some]

    def hear(self, project_id: int, kinds: frozenset[str]) -> None:
        """Something of these kinds was committed in a project."""
        for one in self._held.get(project_id, ()):
            # Who may call, and what it is shown, changes with the members.
            if "members" in kinds or self._concerns(one, kinds):
                self._doubtful.add(one)
        if self._doubtful:
            self._doubt.set()

    def hear_all(self) -> None:
        """Anything may have been committed."""
        self._doubtful.update(self.all())
        if self._doubtful:
            self._doubt.set()

    def _take_in(self, one: HeldT) -> None:
        """Hold one more.

        Raises:
            TooManyError: its token holds as many as it may.
        """
        token = one.ctx.token_id
        if self._per_token[token] + self._elsewhere(token) >= self._most:
            raise TooManyError
        self._per_token[token] += 1
        self._held.setdefault(one.ctx.project_id, set()).add(one)
        self._count += 1

    def _let_go(self, one: HeldT) -> None:
        self._count -= 1
        some = self._held[one.ctx.project_id]
        some.discard(one)
        if not some:
            del self._held[one.ctx.project_id]
        self._doubtful.discard(one)
        self._per_token[one.ctx.token_id] -= 1
        if not self._per_token[one.ctx.token_id]:
            del self._per_token[one.ctx.token_id]

    async def _run(self, work: Callable[[Connection], _T], ctx: Ctx | None = None, *, one: bool = False) -> _T:
        """Run engine work in a thread, in a transaction unless it is `one` statement."""

        def call() -> _T:
            with self._db.call() if one else self._db.write() as conn:
                return work(conn)

        return await self._threads.run(call, ctx and ctx.token_id)

    async def _sweep_for_ever(self) -> None:
        while True:
            await self._doubt.wait()
            self._doubt.clear()
            doubtful = list(self._doubtful)
            self._doubtful.clear()
            for start in range(0, len(doubtful), _CHUNK):
                try:
                    await self._sweep(doubtful[start : start + _CHUNK])
                except Exception:  # noqa: BLE001
                    # PostgreSQL is away or slow: the next tick asks again.
                    _log.warning("what is kept open could not be looked after", exc_info=True)

    async def _tick_for_ever(self) -> None:
        looked = time.monotonic()
        while True:
            await asyncio.sleep(_TICK)
            now = time.monotonic()
            if now - looked >= (_TICK_WITH_HINTS if self._hinted() else _TICK_WITHOUT):
                looked = now
                self.hear_all()
            try:
                await self._tick(now)
            except Exception:  # noqa: BLE001
                _log.warning("a tick failed", exc_info=True)

    async def _tick(self, now: float) -> None:
        """What happens by the clock alone, each second."""

    @abstractmethod
    def _concerns(self, one: HeldT, kinds: frozenset[str]) -> bool:
        """Whether news of these kinds may be for this one."""

    @abstractmethod
    async def _sweep(self, some: Sequence[HeldT]) -> None:
        """Ask about these and tell those for whom there is something."""

    @abstractmethod
    def _end(self, one: HeldT) -> None:
        """Let this one end."""
