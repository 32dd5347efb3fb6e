"""Calls that wait: kept open here, asked about together, told one by one.

A call that waits holds a place in this table and no thread. When a hint names its project, or a tick passes, one
statement asks about all of them who may have news (bus/waiting.py); only those look for themselves.
"""

import asyncio
import functools
import logging
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TypeVar

from bus import waiting
from bus.ctx import Ctx
from bus.db import Connection, Database
from mcp_gateway.hints import Hints
from mcp_gateway.threads import Threads

_log = logging.getLogger(__name__)
# With hints, a look now and then finds what one of them lost; without, this is how soon news arrives.
_TICK_WITH_HINTS, _TICK_WITHOUT = 15.0, 2.0
# A lease ends by the clock, and nobody says so at that moment.
_LEASE_TICK = 1.0
_KEEP_SECONDS = 10.0
_PROGRESS_SECONDS = 10.0
_CHUNK = 2_000
_HEARD = {"inbox": "inbox", "acks": "acks", "lease": "leases", "task": "tasks"}

_T = TypeVar("_T")
Progress = Callable[[float, float], Awaitable[None]]


class TooManyError(Exception):
    """This token has as many calls waiting as it may."""


@dataclass(eq=False, slots=True)
class _Entry:
    wait: waiting.Wait
    heard: frozenset[str]
    wake: asyncio.Event = field(default_factory=asyncio.Event)


class Waiters:
    """Every waiting call of this process."""

    def __init__(self, db: Database, threads: Threads, redis_url: str | None, most_per_token: int) -> None:
        self._db = db
        self._threads = threads
        self._most = most_per_token
        self.hints = Hints(redis_url, hear=self._hear, resumed=self._hear_all)
        self._entries: dict[int, set[_Entry]] = {}
        self._per_token: Counter[int | None] = Counter()
        self._doubtful: set[_Entry] = set()
        self._doubt = asyncio.Event()
        self._draining = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Begin to listen and to tick."""
        self.hints.start()
        self._tasks = [asyncio.create_task(work()) for work in (self._sweep_for_ever, self._tick_for_ever)]

    def drain(self) -> None:
        """Answer every waiting call now: the process is about to stop."""
        self._draining.set()
        for entries in self._entries.values():
            for entry in entries:
                entry.wake.set()

    async def stop(self) -> None:
        """End what `start` began."""
        self.drain()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.hints.stop()

    @property
    def count(self) -> int:
        """How many calls wait."""
        return sum(len(entries) for entries in self._entries.values())

    async def wait(self, wait: waiting.Wait, seconds: float, progress: Progress | None) -> waiting.News | None:
        """Wait until there is news; None at the timeout and when the process drains.

        Raises:
            TooManyError: the token has too many calls waiting.
            NotAuthenticated, OwnerSuspended, BusError: the caller may no longer call.
        """
        ctx = wait.ctx
        if self._per_token[ctx.token_id] >= self._most:
            await self._leave(wait)
            raise TooManyError
        entry = _Entry(wait, frozenset(_HEARD[kind] for kind in wait.kinds))
        self._per_token[ctx.token_id] += 1
        # Before the first look: what is committed after it finds this call here.
        self._entries.setdefault(ctx.project_id, set()).add(entry)
        try:
            return await self._wait(entry, seconds, progress)
        finally:
            self._forget(entry)
            if wait.place is not None:
                # Also when the client went away and this is being cancelled.
                await asyncio.shield(self._leave(wait))

    async def _wait(self, entry: _Entry, seconds: float, progress: Progress | None) -> waiting.News | None:
        started = time.monotonic()
        told = started
        look = self._look_if_due
        while True:
            entry.wake.clear()
            news = await look(entry.wait)
            if news is not None or self._draining.is_set():
                return news
            # From here on somebody else says when there may be something.
            look = self._look
            while not entry.wake.is_set():
                now = time.monotonic()
                left = started + seconds - now
                if left <= 0:
                    return None
                if progress is not None and now - told >= _PROGRESS_SECONDS:
                    await progress(round(now - started), seconds)
                    told = now
                pause = left if progress is None else min(left, told + _PROGRESS_SECONDS - now)
                try:
                    async with asyncio.timeout(pause):
                        await entry.wake.wait()
                except TimeoutError:
                    continue

    async def _look_if_due(self, wait: waiting.Wait) -> waiting.News | None:
        # Looking for a task locks the project clock, asking whether to look does not.
        if await self._run(lambda conn: waiting.due(conn, [wait]), wait.ctx):
            return await self._look(wait)
        return None

    async def _look(self, wait: waiting.Wait) -> waiting.News | None:
        return await self._run(lambda conn: waiting.look(conn, wait), wait.ctx)

    def is_draining(self) -> bool:
        """Whether the process is about to stop."""
        return self._draining.is_set()

    def _forget(self, entry: _Entry) -> None:
        ctx = entry.wait.ctx
        entries = self._entries[ctx.project_id]
        entries.discard(entry)
        if not entries:
            del self._entries[ctx.project_id]
        self._doubtful.discard(entry)
        self._per_token[ctx.token_id] -= 1
        if not self._per_token[ctx.token_id]:
            del self._per_token[ctx.token_id]

    async def _leave(self, wait: waiting.Wait) -> None:
        if wait.place is not None:
            await self._run(lambda conn: waiting.end(conn, [wait]), wait.ctx)

    async def _run(self, work: Callable[[Connection], _T], ctx: Ctx | None = None) -> _T:
        def call() -> _T:
            with self._db.write() as conn:
                return work(conn)

        return await self._threads.run(call, ctx and ctx.token_id)

    def _hear(self, project_id: int, kinds: frozenset[str]) -> None:
        for entry in self._entries.get(project_id, ()):
            # Who may call, and where, changes with the members.
            if entry.heard & kinds or "members" in kinds:
                self._doubtful.add(entry)
        if self._doubtful:
            self._doubt.set()

    def _hear_all(self) -> None:
        for entries in self._entries.values():
            self._doubtful |= entries
        if self._doubtful:
            self._doubt.set()

    async def _sweep_for_ever(self) -> None:
        while True:
            await self._doubt.wait()
            self._doubt.clear()
            doubtful = list(self._doubtful)
            self._doubtful.clear()
            for start in range(0, len(doubtful), _CHUNK):
                await self._sweep(doubtful[start : start + _CHUNK])

    async def _sweep(self, entries: list[_Entry]) -> None:
        try:
            due = await self._run(lambda conn: waiting.due(conn, [entry.wait for entry in entries]))
        except Exception:  # noqa: BLE001
            # PostgreSQL is away or slow: the next tick asks again.
            _log.warning("waiting calls could not be looked after", exc_info=True)
            return
        wanted = {id(wait) for wait in due}
        for entry in entries:
            if id(entry.wait) in wanted:
                entry.wake.set()

    async def _tick_for_ever(self) -> None:
        looked = kept = time.monotonic()
        while True:
            await asyncio.sleep(_LEASE_TICK)
            now = time.monotonic()
            if now - looked >= (_TICK_WITH_HINTS if self.hints.connected else _TICK_WITHOUT):
                looked = now
                self._hear_all()
            in_line = [one for some in self._entries.values() for one in some if one.wait.place is not None]
            if in_line:
                self._doubtful.update(in_line)
                self._doubt.set()
            if in_line and now - kept >= _KEEP_SECONDS:
                kept = now
                held = [one.wait for one in in_line]
                try:
                    await self._run(functools.partial(waiting.keep, waits=held))
                except Exception:  # noqa: BLE001
                    _log.warning("places in line could not be kept", exc_info=True)
