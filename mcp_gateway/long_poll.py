"""Calls that wait: kept open here, asked about together, told one by one.

A call that waits holds a place in this table and no thread. Those who may have news by what bus/coordination/long_poll.py says look
for themselves.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from functools import partial

from bus.coordination import long_poll
from bus.ctx import Ctx
from bus.db import Connection
from mcp_gateway.subscriptions import Sweeper

_KEEP_SECONDS = 10.0
_PROGRESS_SECONDS = 10.0
_HEARD = {"inbox": "inbox", "acks": "acks", "lease": "leases", "task": "tasks"}

Progress = Callable[[float, float], Awaitable[None]]


@dataclass(eq=False, slots=True)
class Waiter:
    """One call that waits; `wake` is set when it may have news."""

    wait: long_poll.Wait
    heard: frozenset[str]
    wake: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def ctx(self) -> Ctx:
        return self.wait.ctx


class Waiters(Sweeper[Waiter]):
    """Every waiting call of this process."""

    kind = "waits"
    _kept = 0.0

    async def wait(self, wait: long_poll.Wait, seconds: float, progress: Progress | None) -> long_poll.News | None:
        """Wait until there is news; None at the timeout and when the process drains.

        Args:
            progress: told every ten seconds how long this has waited, of how long at most.
        Raises:
            TooManyError: the token has too many calls waiting.
            NotAuthenticated, OwnerSuspended, BusError: the caller may no longer call.
        """
        waiter = Waiter(wait, frozenset(_HEARD[kind] for kind in wait.kinds))
        try:
            # Before the first look: what is committed after it finds this call here.
            self._take_in(waiter)
            try:
                return await self._wait(waiter, seconds, progress)
            finally:
                self._let_go(waiter)
        finally:
            if wait.place is not None:
                # Also when the client went away and this is being cancelled.
                await asyncio.shield(self._run(lambda conn: long_poll.end(conn, [wait]), wait.ctx))

    async def _wait(self, waiter: Waiter, seconds: float, progress: Progress | None) -> long_poll.News | None:
        started = time.monotonic()
        told = started
        # Looking for a task locks the project clock; asking whether to look does not.
        look = _look_if_due
        while True:
            waiter.wake.clear()
            news = await self._run(partial(look, wait=waiter.wait), waiter.ctx, one=waiter.wait.is_one_statement)
            if news is not None or self.is_draining:
                return news
            # From here on the sweep has asked before anybody is woken.
            look = long_poll.look
            while not waiter.wake.is_set():
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
                        await waiter.wake.wait()
                except TimeoutError:
                    continue

    def _concerns(self, one: Waiter, kinds: frozenset[str]) -> bool:
        return not one.heard.isdisjoint(kinds)

    async def _sweep(self, some: Sequence[Waiter]) -> None:
        due = await self._run(lambda conn: long_poll.due(conn, [waiter.wait for waiter in some]), one=True)
        wanted = {id(wait) for wait in due}
        for waiter in some:
            if id(waiter.wait) in wanted:
                waiter.wake.set()

    async def _tick(self, now: float) -> None:
        # A lease ends by the clock, and nobody says so at that moment.
        in_line = [waiter for waiter in self.all() if waiter.wait.place is not None]
        if not in_line:
            return
        self._doubtful.update(in_line)
        self._doubt.set()
        if now - self._kept >= _KEEP_SECONDS:
            self._kept = now
            await self._run(lambda conn: long_poll.keep(conn, [waiter.wait for waiter in in_line]))

    def _end(self, one: Waiter) -> None:
        one.wake.set()


def _look_if_due(conn: Connection, wait: long_poll.Wait) -> long_poll.News | None:
    return long_poll.look(conn, wait) if long_poll.due(conn, [wait]) else None
