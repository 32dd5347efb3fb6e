"""Long polls of this process: a waiting call holds an entry in the registry and no thread.

One statement finds the calls that may be ready (bus.coordination.long_poll.find_ready); each of those then polls.
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
# A wait that has ended is known as such to other sessions after the next flush of the gateway.
_GONE_WAITER_SECONDS = 3.0
_TOPIC_BY_WAIT_KIND = {"inbox": "inbox", "acks": "acks", "lease": "leases", "task": "tasks"}

ReportProgress = Callable[[float, float], Awaitable[None]]


@dataclass(eq=False, slots=True)
class PendingPoll:
    """One waiting call.

    Attributes:
        request: what the call waits for.
        topics: the topics of change notifications that may make it ready.
        began_at: the time of the monotonic clock.
        wakeup: set when it may be ready.
        recheck_at: times of the monotonic clock at which it may become ready without a notification.
    """

    request: long_poll.WaitRequest
    topics: frozenset[str]
    began_at: float = field(default_factory=time.monotonic)
    wakeup: asyncio.Event = field(default_factory=asyncio.Event)
    # When to look again for posts that another session was woken for.
    recheck_at: list[float] = field(default_factory=list)

    @property
    def ctx(self) -> Ctx:
        """The caller."""
        return self.request.ctx

    @property
    def is_offered_posts(self) -> bool:
        """Whether it waits for posts that are offered to one session after the other."""
        return self.request.ctx.session is not None and "inbox" in self.request.kinds


class LongPollRegistry(SubscriptionRegistry[PendingPoll]):
    """All long polls of this process."""

    kind = "waits"
    _renewed_at = 0.0

    async def wait(
        self,
        request: long_poll.WaitRequest,
        timeout_seconds: float,
        report_progress: ReportProgress | None,
        give_back: Callable[[long_poll.WaitResult], None],
    ) -> long_poll.WaitResult | None:
        """Wait until there is something to return; None at the timeout and when the process drains.

        Args:
            request: what to wait for.
            timeout_seconds: how long to wait at most.
            report_progress: called every ten seconds with the seconds waited and the timeout.
            give_back: called with a result that is not returned, because the caller was cancelled meanwhile.
        Raises:
            ConcurrencyLimitExceeded: the token has too many waiting calls.
            NotAuthenticated, OwnerSuspended, BusError: the caller may no longer call.
        """
        result: long_poll.WaitResult | None = None
        pending_poll = PendingPoll(request, frozenset(_TOPIC_BY_WAIT_KIND[kind] for kind in request.kinds))
        if pending_poll.is_offered_posts:
            pending_poll.recheck_at = _list_recheck_times()
        try:
            # Added before the first poll, so that commits after that poll wake this call.
            self._add(pending_poll)
            try:
                result = await self._poll_until_ready(pending_poll, timeout_seconds, report_progress, give_back)
            finally:
                self._remove(pending_poll)
        finally:
            if request.queue_position is not None:
                try:
                    # Shielded: it also runs when the client disconnected and this task is cancelled.
                    await asyncio.shield(
                        self._run_in_thread(lambda conn: long_poll.end_waits(conn, [request]), request.ctx)
                    )
                except asyncio.CancelledError:
                    if result is not None:
                        give_back(result)
                    raise
        return result

    async def _poll_until_ready(
        self,
        pending_poll: PendingPoll,
        timeout_seconds: float,
        report_progress: ReportProgress | None,
        give_back: Callable[[long_poll.WaitResult], None],
    ) -> long_poll.WaitResult | None:
        started = time.monotonic()
        reported_at = started
        # Polling for a task locks the project clock; checking whether to poll does not.
        poll = _poll_if_ready
        while True:
            pending_poll.wakeup.clear()
            polling = asyncio.ensure_future(
                self._run_in_thread(
                    partial(poll, request=pending_poll.request),
                    pending_poll.ctx,
                    single_statement=pending_poll.request.is_single_statement,
                )
            )
            try:
                # Shielded: the thread commits what it takes, whether or not this task is cancelled meanwhile.
                result = await asyncio.shield(polling)
            except asyncio.CancelledError:
                polling.add_done_callback(partial(_give_back_polled, give_back))
                raise
            if result is not None or self.is_draining:
                return result
            # From here on a wake-up means that _refresh has checked already.
            poll = long_poll.poll
            while not pending_poll.wakeup.is_set():
                now = time.monotonic()
                remaining = started + timeout_seconds - now
                if remaining <= 0:
                    return None
                pause = remaining
                if report_progress is not None:
                    if now - reported_at >= _PROGRESS_INTERVAL_SECONDS:
                        await report_progress(round(now - started), timeout_seconds)
                        reported_at = now
                    pause = min(remaining, reported_at + _PROGRESS_INTERVAL_SECONDS - now)
                try:
                    async with asyncio.timeout(pause):
                        await pending_poll.wakeup.wait()
                except TimeoutError:
                    continue

    def _is_affected(self, subscription: PendingPoll, topics: frozenset[str]) -> bool:
        if subscription.is_offered_posts and "inbox" in topics:
            subscription.recheck_at = _list_recheck_times()
        return not subscription.topics.isdisjoint(topics)

    async def _refresh(self, dirty: Sequence[PendingPoll]) -> None:
        ready = await self._run_in_thread(
            lambda conn: long_poll.find_ready(conn, [pending.request for pending in dirty]), single_statement=True
        )
        ready_ids = {id(request) for request in ready}
        for pending_poll in dirty:
            if id(pending_poll.request) in ready_ids:
                pending_poll.wakeup.set()

    async def _on_tick(self, now: float) -> None:
        # A lease expires by the clock, without an event or a notification at that moment; so does the offer of a post.
        for pending in self.list_all():
            if pending.recheck_at and pending.recheck_at[0] <= now:
                del pending.recheck_at[0]
                self._dirty.add(pending)
        if self._dirty:
            self._dirty_event.set()
        queued = [pending for pending in self.list_all() if pending.request.queue_position is not None]
        if not queued:
            return
        self._dirty.update(queued)
        self._dirty_event.set()
        if now - self._renewed_at >= _RENEW_INTERVAL_SECONDS:
            self._renewed_at = now
            await self._run_in_thread(lambda conn: long_poll.renew(conn, [pending.request for pending in queued]))

    def _close(self, subscription: PendingPoll) -> None:
        subscription.wakeup.set()


def _list_recheck_times() -> list[float]:
    """Return when a post that wakes another session first may wake this one.

    Soon, if that session had just stopped waiting; else when its time to ack is over.
    """
    now = time.monotonic()
    return [now + _GONE_WAITER_SECONDS, now + long_poll.POST_OFFER_SECONDS + 1]


def _give_back_polled(
    give_back: Callable[[long_poll.WaitResult], None], polling: "asyncio.Future[long_poll.WaitResult | None]"
) -> None:
    if not polling.cancelled() and polling.exception() is None and (result := polling.result()) is not None:
        give_back(result)


def _poll_if_ready(conn: Connection, request: long_poll.WaitRequest) -> long_poll.WaitResult | None:
    return long_poll.poll(conn, request) if long_poll.find_ready(conn, [request]) else None
