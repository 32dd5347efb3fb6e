"""What the gateway does once it knows the caller: run engine calls in threads and shape their answers."""

import asyncio
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec
from mcp.server.context import ServerRequestContext
from mcp_types import SubscriptionsListenRequestParams, SubscriptionsListenResult

from bus.client_setup import Addresses
from bus.config.settings import Settings
from bus.coordination.long_poll import Wait
from bus.coordination.posts import Posts
from bus.ctx import Ctx
from bus.db import Connection, Database
from bus.errors import BusError, NotAuthenticated, OwnerSuspended, Unavailable
from bus.operations import telemetry
from bus.operations.counters import Tally, Timings
from bus.tenancy import participants
from bus.tenancy.participants import Standing
from mcp_gateway.caller import Caller, Callers
from mcp_gateway.client_setup import RENDERERS
from mcp_gateway.change_notifications import Hints
from mcp_gateway.concurrency_limit import Holdings
from mcp_gateway.render import UNREAD, render
from mcp_gateway.activity_buffer import FLUSH_SECONDS, Seen
from mcp_gateway.streams import Streams
from mcp_gateway.subscriptions import TooManyError
from mcp_gateway.fair_executor import Threads
from mcp_gateway.tool_registry import Tool
from mcp_gateway.tools.long_poll import WAIT_SECONDS
from mcp_gateway.long_poll import Progress, Waiters

_log = logging.getLogger(__name__)
_T = TypeVar("_T")


class Denied(Exception):
    """The request ends with an HTTP status of its own, whatever the protocol would have said.

    Attributes:
        outcome: the word under which it is counted.
    """

    def __init__(self, status: int, outcome: str) -> None:
        super().__init__(status)
        self.status = status
        self.outcome = outcome


@dataclass(frozen=True, slots=True)
class Answer:
    """A tool's answer: the object, its compact text, and whether it is an error."""

    content: dict[str, Any]
    text: str
    is_error: bool


class Service:
    """The engine behind one gateway process: its connections, its threads and what it coalesces."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.addresses = Addresses(settings.public_url, settings.mcp_url)
        self.callers = Callers()
        self.seen = Seen()
        self.db = Database(settings.database_url, size=settings.threads, name="llm-bus gateway")
        self._threads = Threads(settings.threads, "engine")
        self.hints = Hints(settings.redis_url, hear=self._hear, resumed=self._hear_all)
        self.holdings = Holdings(settings.redis_url)
        self.waiters = Waiters(self.db, self._threads, settings.waits_per_token, self.holdings, self._hinted)
        self.streams = Streams(self.db, self._threads, settings.streams_per_token, self.holdings, self._hinted)
        # Counted on the event loop alone. Tool calls by tool and outcome, and how long they took by tool.
        self.calls, self.timings = Tally(), Timings()
        self._pending = 0
        self._flusher: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to flush presence and to listen for hints."""
        self.hints.start()
        self.holdings.start()
        self.waiters.start()
        self.streams.start()
        self._flusher = asyncio.create_task(self._flush_for_ever())

    async def stop(self) -> None:
        """Flush what is left and close everything."""
        await self.waiters.stop()
        await self.streams.stop()
        await self.hints.stop()
        await self.holdings.stop()
        if self._flusher is not None:
            self._flusher.cancel()
            await asyncio.gather(self._flusher, return_exceptions=True)
        await self._flush()
        self._threads.close()
        self.db.close()

    def drain(self) -> None:
        """Answer every call that waits and end every stream: the process is about to stop."""
        self.waiters.drain()
        self.streams.drain()

    @property
    def pending(self) -> int:
        """Calls that a thread is at, or that wait for one; any thread may ask."""
        return self._pending

    @property
    def queued(self) -> int:
        """Calls that wait for a thread; any thread may ask."""
        return max(0, self._pending - self.settings.threads)

    def _hear(self, project_id: int, kinds: frozenset[str]) -> None:
        self.waiters.hear(project_id, kinds)
        self.streams.hear(project_id, kinds)

    def _hear_all(self) -> None:
        self.waiters.hear_all()
        self.streams.hear_all()

    def _hinted(self) -> bool:
        return self.hints.connected

    async def run(self, work: Callable[[], _T], ctx: Ctx | None = None) -> _T:
        """Run engine work in a thread; callers that wait for one are served in turn.

        Raises:
            Denied: 503 when too many calls wait already, or when the database is away.
        """
        if self._pending >= self.settings.queue_limit:
            raise Denied(503, "overloaded")
        self._pending += 1
        try:
            with _denials():
                return await self._threads.run(work, ctx and ctx.token_id)
        finally:
            self._pending -= 1

    async def find_caller(self, key: bytes) -> Ctx | None:
        """The facts behind a token, by its fingerprint; asks the database where this process has not met it."""
        ctx = self.callers.find_cached(key)
        if ctx is not None:
            return ctx

        def ask() -> Ctx | None:
            with self.db.call() as conn:
                return self.callers.find(conn, key)

        return await self.run(ask)

    async def standing(self, caller: Caller) -> Standing | None:
        """Check the caller's right to call at this moment; None for nobody."""
        if caller.ctx is None:
            return None
        ctx = caller.ctx
        return await self.read(caller, lambda conn: participants.standing(conn, ctx))

    async def read(self, caller: Caller, work: Callable[[Connection], _T]) -> _T:
        """Run one engine call of the caller; a denial is noted on the caller and raised."""

        def call() -> _T:
            with self.db.call() as conn:
                return work(conn)

        try:
            done = await self.run(call, caller.ctx)
        except Denied as denied:
            caller.denied = denied.status
            raise
        if caller.ctx is not None:
            self.seen.note(caller.ctx)
        return done

    async def call(self, caller: Caller, tool: Tool, arguments: Any, progress: Progress | None = None) -> Answer:
        """Call a tool as the caller. Refusals of the bus are answers too; a denial is raised.

        Args:
            progress: told now and then how many seconds a call has waited, of how many at most.
        """
        ctx = caller.ctx
        if ctx is None:
            return _refused(
                BusError(
                    "forbidden",
                    "No live token: set LLM_BUS_TOKEN to a token of this bus and start this server again.",
                )
            )
        started = time.perf_counter()
        # What is not named below is a defect of ours.
        outcome = "error"
        try:
            if tool.waits:
                answer = await self._wait(ctx, tool, arguments, progress)
            else:
                answer = await self.run(lambda: self._call(ctx, tool, arguments), ctx)
            outcome = answer.content["error"]["code"] if answer.is_error else "ok"
        except Denied as denied:
            caller.denied = denied.status
            outcome = denied.outcome
            raise
        except asyncio.CancelledError:
            outcome = "gone"
            raise
        finally:
            taken = time.perf_counter() - started
            self.calls.add(tool.name, outcome)
            self.timings.add(taken, tool.name)
            if telemetry.is_tracing():
                telemetry.span(tool.name, taken, outcome=outcome)
        self.seen.note(ctx)
        if tool.touches and not answer.is_error:
            self.hints.give(ctx.project_id, tool.touches)
        return answer

    async def listen(
        self, caller: Caller, request: ServerRequestContext[Any, Any], params: SubscriptionsListenRequestParams
    ) -> SubscriptionsListenResult:
        """Serve a stream of the caller's project; who has no right to it is denied."""
        try:
            if caller.ctx is None:
                raise Denied(401, "unauthenticated")
            with _denials():
                return await self.streams.listen(caller.ctx, request, params)
        except Denied as denied:
            caller.denied = denied.status
            raise

    async def _wait(self, ctx: Ctx, tool: Tool, arguments: Any, progress: Progress | None) -> Answer:
        def begin() -> tuple[Wait, float]:
            decoded = tool.decode(arguments)
            with self.db.call() as conn:
                wait: Wait = tool.function(conn, ctx, **decoded)
                return wait, decoded.get("timeout_seconds", WAIT_SECONDS)

        try:
            wait, seconds = await self.run(begin, ctx)
            with _denials():
                news = await self.waiters.wait(wait, seconds, progress)
        except BusError as error:
            # Who may not call learns nothing, not even what the arguments should have been.
            await self.run(lambda: self._check(ctx), ctx)
            return _refused(error)
        if news is None:
            content: dict[str, Any] = {"timed_out": True}
            if self.waiters.is_draining:
                content["message"] = "The bus is restarting; call wait_for again."
        else:
            kind, found = news
            if isinstance(found, Posts) and found.surfacing:
                self.seen.show(ctx, found.surfacing)
            content = {"kind": kind, **render(found)}
            if kind != "inbox" and found.unread:
                content["_unread_posts"] = found.unread
            if kind == "task" and wait.take:
                self.hints.give(ctx.project_id, frozenset({"tasks", "ledger"}))
        return _answered(content)

    def _call(self, ctx: Ctx, tool: Tool, arguments: Any) -> Answer:
        try:
            decoded = tool.decode(arguments)
        except BusError as error:
            # Who may not call learns nothing, not even what the arguments should have been.
            self._check(ctx)
            return _refused(error)
        try:
            with self.db.write() if tool.transaction else self.db.call() as conn:
                result = tool.function(conn, ctx, **decoded)
                unread: int | None = 0
                if tool.marks_unread:
                    unread = result.get(UNREAD) if isinstance(result, dict) else getattr(result, UNREAD, None)
                    if unread is None:
                        unread = participants.standing(conn, ctx).unread
        except Unavailable:
            raise
        except BusError as error:
            # The engine may have refused before its first statement asked who is calling.
            self._check(ctx)
            return _refused(error)
        if isinstance(result, Posts) and result.surfacing:
            self.seen.show(ctx, result.surfacing)
        special = RENDERERS.get(type(result))
        content = render(result) if special is None else special(self.addresses, result)
        if unread:
            content["_unread_posts"] = unread
        return _answered(content)

    def _check(self, ctx: Ctx) -> None:
        """Raise what any call of a caller that has no right to call raises."""
        with self.db.call() as conn:
            participants.standing(conn, ctx)

    async def _flush_for_ever(self) -> None:
        while True:
            await asyncio.sleep(FLUSH_SECONDS)
            await self._flush()

    async def _flush(self) -> None:
        try:
            await self._threads.run(lambda: self.seen.flush(self.db))
        except Exception:  # noqa: BLE001
            # Presence is advisory: what could not be written now is written with the next flush.
            _log.warning("presence was not flushed", exc_info=True)


@contextmanager
def _denials() -> Iterator[None]:
    """What takes the right to an answer from a caller becomes the status that says so."""
    try:
        yield
    except TooManyError:
        raise Denied(429, "too_many") from None
    except Unavailable:
        raise Denied(503, "unavailable") from None
    except NotAuthenticated:
        raise Denied(401, "unauthenticated") from None
    except OwnerSuspended:
        raise Denied(403, "suspended") from None


def _answered(content: dict[str, Any]) -> Answer:
    return Answer(content, msgspec.json.encode(content).decode(), False)


def _refused(error: BusError) -> Answer:
    facts = {"code": error.code, "message": error.message, **error.data}
    return Answer({"error": facts}, error.message, True)
