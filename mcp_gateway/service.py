"""Execution of authenticated calls: the engine runs in threads, and results are rendered for the protocol."""

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

from bus.client_setup import Endpoints
from bus.config.settings import Settings
from bus.coordination.long_poll import WaitRequest
from bus.coordination.posts import PostPage
from bus.ctx import Ctx
from bus.db import Connection, Database
from bus.errors import BusError, NotAuthenticated, OwnerSuspended, Unavailable
from bus.operations import telemetry
from bus.operations.counters import Counter, Histogram
from bus.tenancy import authentication
from bus.tenancy.authentication import CallerStatus
from mcp_gateway.activity_buffer import FLUSH_INTERVAL_SECONDS, ActivityBuffer
from mcp_gateway.caller import Caller, CallerCache
from mcp_gateway.change_notifications import ChangeNotifier
from mcp_gateway.client_setup import RESULT_RENDERERS
from mcp_gateway.concurrency_limit import SharedConcurrencyCounts
from mcp_gateway.error_hints import message_with_hint
from mcp_gateway.fair_executor import FairExecutor
from mcp_gateway.long_poll import LongPollRegistry, ReportProgress
from mcp_gateway.render import UNREAD_FIELD, render
from mcp_gateway.streams import StreamRegistry
from mcp_gateway.subscriptions import ConcurrencyLimitExceeded
from mcp_gateway.tool_registry import Tool
from mcp_gateway.tools.long_poll import DEFAULT_TIMEOUT_SECONDS

_log = logging.getLogger(__name__)
_T = TypeVar("_T")


class RequestDenied(Exception):
    """The request is answered with an HTTP status instead of a protocol message.

    Attributes:
        status: the HTTP status.
        outcome: its label in the metrics.
    """

    def __init__(self, status: int, outcome: str) -> None:
        super().__init__(status)
        self.status = status
        self.outcome = outcome


@dataclass(frozen=True, slots=True)
class ToolResult:
    """A tool's result: the object, its compact text, and whether it is an error."""

    content: dict[str, Any]
    text: str
    is_error: bool


class Service:
    """The engine of one gateway process: connections, threads, long polls, streams and buffered activity."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.endpoints = Endpoints(settings.public_url, settings.mcp_url)
        self.caller_cache = CallerCache()
        self.activity = ActivityBuffer()
        self.db = Database(settings.database_url, pool_size=settings.threads, application_name="llm-bus gateway")
        self._executor = FairExecutor(settings.threads, "engine")
        self.change_notifier = ChangeNotifier(
            settings.redis_url, on_change=self._on_change, on_reconnect=self._on_reconnect
        )
        self.concurrency_counts = SharedConcurrencyCounts(settings.redis_url)
        self.long_polls = LongPollRegistry(
            self.db, self._executor, settings.waits_per_token, self.concurrency_counts, self._receives_notifications
        )
        self.streams = StreamRegistry(
            self.db, self._executor, settings.streams_per_token, self.concurrency_counts, self._receives_notifications
        )
        # Updated only on the event loop: tool calls by tool and outcome, and their durations by tool.
        self.call_counts, self.call_durations = Counter(), Histogram()
        self._pending_calls = 0
        self._flush_task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Start flushing activity and receiving change notifications."""
        self.change_notifier.start()
        self.concurrency_counts.start()
        self.long_polls.start()
        self.streams.start()
        self._flush_task = asyncio.create_task(self._flush_loop())

    async def stop(self) -> None:
        """Flush the buffered activity and close all connections and threads."""
        await self.long_polls.stop()
        await self.streams.stop()
        await self.change_notifier.stop()
        await self.concurrency_counts.stop()
        if self._flush_task is not None:
            self._flush_task.cancel()
            await asyncio.gather(self._flush_task, return_exceptions=True)
        await self._flush_activity()
        self._executor.close()
        self.db.close()

    def drain(self) -> None:
        """Answer all long polls and end all streams before the process stops."""
        self.long_polls.drain()
        self.streams.drain()

    @property
    def pending_calls(self) -> int:
        """The number of calls that run in a thread or wait for one; safe to read from any thread."""
        return self._pending_calls

    @property
    def queued_calls(self) -> int:
        """The number of calls that wait for a thread; safe to read from any thread."""
        return max(0, self._pending_calls - self.settings.threads)

    def _on_change(self, project_id: int, topics: frozenset[str]) -> None:
        self.long_polls.mark_dirty(project_id, topics)
        self.streams.mark_dirty(project_id, topics)

    def _on_reconnect(self) -> None:
        self.long_polls.mark_all_dirty()
        self.streams.mark_all_dirty()

    def _receives_notifications(self) -> bool:
        return self.change_notifier.is_connected

    async def run_in_thread(self, work: Callable[[], _T], ctx: Ctx | None = None) -> _T:
        """Run engine work in a thread; the tokens of queued calls are served in turn.

        Raises:
            RequestDenied: 503 when too many calls are queued or the database is unavailable.
        """
        if self._pending_calls >= self.settings.queue_limit:
            raise RequestDenied(503, "overloaded")
        self._pending_calls += 1
        try:
            with _translate_to_denials():
                return await self._executor.submit(work, ctx and ctx.token_id)
        finally:
            self._pending_calls -= 1

    async def find_caller(self, token_fingerprint: bytes) -> Ctx | None:
        """Return the facts about a token, from the cache or the database; None if the token was never minted."""
        ctx = self.caller_cache.find_cached(token_fingerprint)
        if ctx is not None:
            return ctx

        def find() -> Ctx | None:
            with self.db.connection() as conn:
                return self.caller_cache.find_and_cache(conn, token_fingerprint)

        return await self.run_in_thread(find)

    async def authorize(self, caller: Caller) -> CallerStatus | None:
        """Check that the caller may call now; None if there is no token.

        Raises:
            RequestDenied: the caller may not call, or the check is not possible at present.
        """
        if caller.ctx is None:
            return None
        ctx = caller.ctx
        return await self.run_as_caller(caller, lambda conn: authentication.authenticate(conn, ctx))

    async def run_as_caller(self, caller: Caller, work: Callable[[Connection], _T]) -> _T:
        """Run one engine call of the caller; a denial is recorded on the caller and raised."""

        def call() -> _T:
            with self.db.connection() as conn:
                return work(conn)

        try:
            result = await self.run_in_thread(call, caller.ctx)
        except RequestDenied as denied:
            caller.denied_status = denied.status
            raise
        if caller.ctx is not None:
            self.activity.record_activity(caller.ctx)
        return result

    async def call_tool(
        self, caller: Caller, tool: Tool, arguments: Any, report_progress: ReportProgress | None = None
    ) -> ToolResult:
        """Call a tool as the caller. An error of the engine is a result; a denial is recorded and raised.

        Args:
            caller: the caller of the request.
            tool: the tool.
            arguments: the arguments as sent, not validated yet.
            report_progress: called during a long poll with the seconds waited and the timeout.
        Raises:
            RequestDenied: the caller may not call, or the call cannot run at present.
        """
        ctx = caller.ctx
        if ctx is None:
            return _error_result(
                BusError(
                    "forbidden",
                    "No live token: set LLM_BUS_TOKEN to a token of this bus and start this server again.",
                )
            )
        started = time.perf_counter()
        # Exceptions that are not handled below are defects.
        outcome = "error"
        try:
            if tool.is_long_poll:
                result = await self._call_long_poll(ctx, tool, arguments, report_progress)
            else:
                result = await self.run_in_thread(lambda: self._call_tool(ctx, tool, arguments), ctx)
            outcome = result.content["error"]["code"] if result.is_error else "ok"
        except RequestDenied as denied:
            caller.denied_status = denied.status
            outcome = denied.outcome
            raise
        except asyncio.CancelledError:
            outcome = "gone"
            raise
        finally:
            elapsed = time.perf_counter() - started
            self.call_counts.increment(tool.name, outcome)
            self.call_durations.observe(elapsed, tool.name)
            if telemetry.is_tracing():
                telemetry.record_span(tool.name, elapsed, outcome=outcome)
        self.activity.record_activity(ctx)
        if tool.notifies and not result.is_error:
            self.change_notifier.publish(ctx.project_id, tool.notifies)
        return result

    async def listen(
        self, caller: Caller, context: ServerRequestContext[Any, Any], params: SubscriptionsListenRequestParams
    ) -> SubscriptionsListenResult:
        """Serve a stream of the caller's project.

        Raises:
            RequestDenied: the caller may not subscribe, or has too many open streams.
        """
        try:
            if caller.ctx is None:
                raise RequestDenied(401, "unauthenticated")
            with _translate_to_denials():
                return await self.streams.listen(caller.ctx, context, params)
        except RequestDenied as denied:
            caller.denied_status = denied.status
            raise

    async def _call_long_poll(
        self, ctx: Ctx, tool: Tool, arguments: Any, report_progress: ReportProgress | None
    ) -> ToolResult:
        def begin() -> tuple[WaitRequest, float]:
            decoded = tool.decode(arguments)
            with self.db.connection() as conn:
                request: WaitRequest = tool.function(conn, ctx, **decoded)
                return request, decoded.get("timeout_seconds", DEFAULT_TIMEOUT_SECONDS)

        try:
            request, timeout_seconds = await self.run_in_thread(begin, ctx)
            with _translate_to_denials():
                result = await self.long_polls.wait(request, timeout_seconds, report_progress)
        except BusError as error:
            # An unauthorized caller is denied before it learns which arguments are valid.
            await self.run_in_thread(lambda: self._check_access(ctx), ctx)
            return _error_result(error)
        if result is None:
            content: dict[str, Any] = {"timed_out": True}
            if self.long_polls.is_draining:
                content["message"] = "The bus is restarting; call wait_for again."
        else:
            kind, page = result
            if isinstance(page, PostPage) and page.surfacing:
                self.activity.record_shown_posts(ctx, page.surfacing)
            content = {"kind": kind, **render(page)}
            if kind != "inbox" and page.unread:
                content["_unread_posts"] = page.unread
            if kind == "task" and request.take:
                self.change_notifier.publish(ctx.project_id, frozenset({"tasks", "ledger"}))
        return _success_result(content)

    def _call_tool(self, ctx: Ctx, tool: Tool, arguments: Any) -> ToolResult:
        try:
            decoded = tool.decode(arguments)
        except BusError as error:
            # An unauthorized caller is denied before it learns which arguments are valid.
            self._check_access(ctx)
            return _error_result(error)
        try:
            with self.db.transaction() if tool.transaction else self.db.connection() as conn:
                result = tool.function(conn, ctx, **decoded)
                unread: int | None = 0
                if tool.reports_unread:
                    unread = (
                        result.get(UNREAD_FIELD) if isinstance(result, dict) else getattr(result, UNREAD_FIELD, None)
                    )
                    if unread is None:
                        unread = authentication.authenticate(conn, ctx).unread
        except Unavailable:
            raise
        except BusError as error:
            # The engine may have refused before its first statement authenticated the caller.
            self._check_access(ctx)
            return _error_result(error)
        if isinstance(result, PostPage) and result.surfacing:
            self.activity.record_shown_posts(ctx, result.surfacing)
        render_with_endpoints = RESULT_RENDERERS.get(type(result))
        content = render(result) if render_with_endpoints is None else render_with_endpoints(self.endpoints, result)
        if unread:
            content["_unread_posts"] = unread
        return _success_result(content)

    def _check_access(self, ctx: Ctx) -> None:
        """Raise NotAuthenticated or OwnerSuspended if the caller may not call."""
        with self.db.connection() as conn:
            authentication.authenticate(conn, ctx)

    async def _flush_loop(self) -> None:
        while True:
            await asyncio.sleep(FLUSH_INTERVAL_SECONDS)
            await self._flush_activity()

    async def _flush_activity(self) -> None:
        try:
            await self._executor.submit(lambda: self.activity.flush(self.db))
        except Exception:  # noqa: BLE001
            # Presence is advisory; the next flush writes this activity too.
            _log.warning("activity was not flushed", exc_info=True)


@contextmanager
def _translate_to_denials() -> Iterator[None]:
    """Turn exceptions that deny a request into RequestDenied with their HTTP status."""
    try:
        yield
    except ConcurrencyLimitExceeded:
        raise RequestDenied(429, "too_many") from None
    except Unavailable:
        raise RequestDenied(503, "unavailable") from None
    except NotAuthenticated:
        raise RequestDenied(401, "unauthenticated") from None
    except OwnerSuspended:
        raise RequestDenied(403, "suspended") from None


def _success_result(content: dict[str, Any]) -> ToolResult:
    return ToolResult(content, msgspec.json.encode(content).decode(), False)


def _error_result(error: BusError) -> ToolResult:
    message = message_with_hint(error)
    return ToolResult({"error": {"code": error.code, "message": message, **error.data}}, message, True)
