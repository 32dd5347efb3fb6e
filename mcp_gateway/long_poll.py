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
from mcp_gateway.subscriptions import SubscriptionRegistry

_RENEW_INTERVAL_SECONDS = 10.0
_PROGRESS_INTERVAL_SECONDS = 10.0
_TOPIC_BY_WAIT_KIND = {"inbox": "inbox", "acks": "acks", "lease": "leases", "task": "tasks"}

ReportProgress = Callable[[float, float], Awaitable[None]]


@dataclass(eq=False, slots=True)
class PendingPoll:
    """One call that waits; `wake` is set when it may have news."""

    request: long_poll.WaitRequest
    topics: frozenset[str]
    wakeup: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def ctx(self) -> Ctx:
        return self.request.ctx


class LongPollRegistry(SubscriptionRegistry[PendingPoll]):
    """Every waiting call of this process."""

    kind = "waits"
    _renewed_at = 0.0

    async def wait(
        self, request: long_poll.WaitRequest, timeout_seconds: float, report_progress: ReportProgress | None
    ) -> long_poll.WaitResult | None:
        """Wait until there is news; None at the timeout and when the process drains.

        Args:
            progress: told every ten seconds how long this has waited, of how long at most.
        Raises:
            TooManyError: the token has too many calls waiting.
            NotAuthenticated, OwnerSuspended, BusError: the caller may no longer call.
        """
        waiter = PendingPoll(request, frozenset(_TOPIC_BY_WAIT_KIND[kind] for kind in request.kinds))
        try:
            # Before the first look: what is committed after it finds this call here.
            self._add(waiter)
            try:
                return await self._poll_until_ready(waiter, timeout_seconds, report_progress)
            finally:
                self._remove(waiter)
        finally:
            if request.queue_position is not None:
                # Also when the client went away and this is being cancelled.
                await asyncio.shield(
                    self._run_in_thread(lambda conn: long_poll.end_waits(conn, [request]), request.ctx)
                )

    async def _poll_until_ready(
        self, pending_poll: PendingPoll, timeout_seconds: float, report_progress: ReportProgress | None
    ) -> long_poll.WaitResult | None:
        started = time.monotonic()
        told = started
        # Looking for a task locks the project clock; asking whether to look does not.
        look = _poll_if_ready
        while True:
            pending_poll.wakeup.clear()
            news = await self._run_in_thread(
                partial(look, request=pending_poll.request),
                pending_poll.ctx,
                single_statement=pending_poll.request.is_single_statement,
            )
            if news is not None or self.is_draining:
                return news
            # From here on the sweep has asked before anybody is woken.
            look = long_poll.poll
            while not pending_poll.wakeup.is_set():
                now = time.monotonic()
                left = started + timeout_seconds - now
                if left <= 0:
                    return None
                if report_progress is not None and now - told >= _PROGRESS_INTERVAL_SECONDS:
                    await report_progress(round(now - started), timeout_seconds)
                    told = now
                pause = left if report_progress is None else min(left, told + _PROGRESS_INTERVAL_SECONDS - now)
                try:
                    async with asyncio.timeout(pause):
                        await pending_poll.wakeup.wait()
                except TimeoutError:
                    continue

    def _is_affected(self, subscription: PendingPoll, topics: frozenset[str]) -> bool:
        return not subscription.topics.isdisjoint(topics)

    async def _refresh(self, dirty: Sequence[PendingPoll]) -> None:
        due = await self._run_in_thread(
            lambda conn: long_poll.find_ready(conn, [waiter.request for waiter in dirty]), single_statement=True
        )
        wanted = {id(wait) for wait in due}
        for waiter in dirty:
            if id(waiter.request) in wanted:
                waiter.wakeup.set()

    async def _on_tick(self, now: float) -> None:
        # A lease ends by the clock, and nobody says so at that moment.
        in_line = [waiter for waiter in self.list_all() if waiter.request.queue_position is not None]
        if not in_line:
            return
        self._dirty.update(in_line)
        self._dirty_event.set()
        if now - self._renewed_at >= _RENEW_INTERVAL_SECONDS:
            self._renewed_at = now
            await self._run_in_thread(lambda conn: long_poll.renew(conn, [waiter.request for waiter in in_line]))

    def _close(self, subscription: PendingPoll) -> None:
        subscription.wakeup.set()


def _poll_if_ready(conn: Connection, request: long_poll.WaitRequest) -> long_poll.WaitResult | None:
    return long_poll.poll(conn, request) if long_poll.find_ready(conn, [request]) else None
