"""Execution of tool calls: validation, the engine call, long polls, and rendering of the results."""

import asyncio
import functools
import time
from dataclasses import dataclass
from typing import Any

import msgspec

from bus.client_setup import Endpoints
from bus.coordination.long_poll import WaitRequest
from bus.coordination.posts import PostPage
from bus.ctx import Ctx
from bus.db import Connection
from bus.db.pipeline import run_pipelined
from bus.errors import BusError, InvalidArgument
from bus.operations import telemetry
from bus.operations.counters import make_counter, make_histogram
from bus.tenancy import authentication
from mcp_gateway import session_key
from mcp_gateway.activity_buffer import ActivityBuffer
from mcp_gateway.change_notifications import ChangeNotifier
from mcp_gateway.client_setup import RESULT_RENDERERS
from mcp_gateway.denials import DENYING_ERRORS, RequestDenied
from mcp_gateway.engine_runner import EngineRunner
from mcp_gateway.error_hints import message_with_hint
from mcp_gateway.long_poll import LongPollRegistry, ReportProgress
from mcp_gateway.render import UNREAD_FIELD, render
from mcp_gateway.tool_registry import Tool
from mcp_gateway.tools.long_poll import DEFAULT_TIMEOUT_SECONDS

_UNREAD_KEY = "_unread_posts"


@dataclass(frozen=True, slots=True)
class ToolResult:
    """A tool's result: the object, its compact text, and whether it is an error."""

    content: dict[str, Any]
    text: str
    is_error: bool


class ToolRunner:
    """Runs the tool calls of one process.

    Args:
        engine: runs the engine.
        long_polls: keeps long polls open.
        change_notifier: publishes what a call changed.
        activity: records callers and the posts that they were shown.
        endpoints: the addresses in results that contain client configuration.
    Attributes:
        calls: counts tool calls by tool and outcome.
        durations: their durations by tool.
    """

    def __init__(
        self,
        engine: EngineRunner,
        long_polls: LongPollRegistry,
        change_notifier: ChangeNotifier,
        activity: ActivityBuffer,
        endpoints: Endpoints,
    ) -> None:
        self.calls = make_counter("tool_calls", "Tool calls by tool and outcome.", ("tool", "outcome"))
        self.durations = make_histogram("tool_call_seconds", "Duration of tool calls, all outcomes.", ("tool",))
        # To find the child of a label costs as much as three updates.
        self._calls_by_labels = functools.cache(self.calls.labels)
        self._durations_by_label = functools.cache(self.durations.labels)
        self._engine = engine
        self._long_polls = long_polls
        self._change_notifier = change_notifier
        self._activity = activity
        self._endpoints = endpoints

    async def call_tool(
        self, ctx: Ctx | None, tool: Tool, arguments: Any, report_progress: ReportProgress | None = None
    ) -> ToolResult:
        """Call a tool. An error of the engine is a result.

        Args:
            ctx: the caller; None if there is no token.
            tool: the tool.
            arguments: the arguments as sent, not validated yet.
            report_progress: called during a long poll with the seconds waited and the timeout.
        Raises:
            RequestDenied: the caller may not call, or the call cannot run at present.
        """
        if ctx is None:
            return _error_result(
                BusError(
                    "forbidden",
                    "No live token: set LLM_BUS_TOKEN to a token of this bus and start this server again.",
                )
            )
        try:
            arguments, session = session_key.take_from_arguments(arguments)
        except session_key.InvalidSessionKey:
            await self._engine.run_in_thread(functools.partial(self._check_access, ctx), ctx)
            return _error_result(InvalidArgument(f"{session_key.ARGUMENT} must be {session_key.KEY_FORM}."))
        if session is not None:
            ctx = ctx.with_session(session)
        started = time.perf_counter()
        # Exceptions that are not handled below are defects.
        outcome = "error"
        try:
            if tool.is_long_poll:
                result = await self._run_long_poll(ctx, tool, arguments, report_progress)
            elif tool.batch is None or _has_idempotency_key(arguments):
                result = await self._engine.run_call(ctx, lambda: self._run_alone(ctx, tool, arguments))
            else:
                result = await self._engine.run_batched(
                    ctx, lambda conn: self._run_on(conn, ctx, tool, arguments), is_write=tool.batch == "write"
                )
            outcome = result.content["error"]["code"] if result.is_error else "ok"
        except RequestDenied as denied:
            outcome = denied.outcome
            raise
        except asyncio.CancelledError:
            outcome = "gone"
            raise
        finally:
            elapsed = time.perf_counter() - started
            self.count_call(tool.name, outcome)
            self._durations_by_label(tool.name).observe(elapsed)
            if telemetry.is_tracing():
                telemetry.record_span(tool.name, elapsed, outcome=outcome)
        self._activity.record_activity(ctx)
        if tool.notifies and not result.is_error:
            self._change_notifier.publish(ctx.project_id, tool.notifies)
        return result

    def count_call(self, tool_name: str, outcome: str) -> None:
        """Count a call, such as one that was denied before it began."""
        self._calls_by_labels(tool_name, outcome).inc()

    def _run_alone(self, ctx: Ctx, tool: Tool, arguments: Any) -> ToolResult:
        """Run a tool on a connection of its own. Called in a thread of the engine."""
        if not tool.transaction:
            (outcome,) = run_pipelined(self._engine.db, [lambda conn: self._run_on(conn, ctx, tool, arguments)])
            return outcome.get()
        try:
            with self._engine.db.transaction() as conn:
                result, unread = _call_engine(conn, ctx, tool, arguments)
        except DENYING_ERRORS:
            raise
        except BusError as error:
            self._check_access(ctx)
            return _error_result(error)
        return self._render(ctx, result, unread)

    def _run_on(self, conn: Connection, ctx: Ctx, tool: Tool, arguments: Any) -> ToolResult:
        """Run a tool whose statements commit alone. Called in a thread of the engine."""
        try:
            result, unread = _call_engine(conn, ctx, tool, arguments)
        except DENYING_ERRORS:
            raise
        except BusError as error:
            # The arguments were refused before a statement authenticated the caller. An unauthorized caller is denied
            # before it learns which arguments are valid.
            authentication.authenticate(conn, ctx)
            return _error_result(error)
        return self._render(ctx, result, unread)

    def _render(self, ctx: Ctx, result: Any, unread: int) -> ToolResult:
        self._record_shown_posts(ctx, result)
        render_with_endpoints = RESULT_RENDERERS.get(type(result))
        content = render(result) if render_with_endpoints is None else render_with_endpoints(self._endpoints, result)
        if unread:
            content[_UNREAD_KEY] = unread
        return _success_result(content)

    async def _run_long_poll(
        self, ctx: Ctx, tool: Tool, arguments: Any, report_progress: ReportProgress | None
    ) -> ToolResult:
        """Begin a long poll in a thread, and wait for its end without one."""

        def begin() -> tuple[WaitRequest, float]:
            decoded = tool.decode(arguments)
            with self._engine.db.connection() as conn:
                request: WaitRequest = tool.function(conn, ctx, **decoded)
                return request, decoded.get("timeout_seconds", DEFAULT_TIMEOUT_SECONDS)

        try:
            request, timeout_seconds = await self._engine.run_in_thread(begin, ctx)
            result = await self._long_polls.wait(request, timeout_seconds, report_progress)
        except DENYING_ERRORS as error:
            raise RequestDenied.from_error(error) from None
        except BusError as error:
            # An unauthorized caller is denied before it learns which arguments are valid.
            await self._engine.run_in_thread(lambda: self._check_access(ctx), ctx)
            return _error_result(error)
        if result is None:
            content: dict[str, Any] = {"timed_out": True}
            if self._long_polls.is_draining:
                content["message"] = "The bus is restarting; call wait_for again."
            return _success_result(content)
        kind, page = result
        self._record_shown_posts(ctx, page)
        content = {"kind": kind, **render(page)}
        if kind != "inbox" and page.unread:
            content[_UNREAD_KEY] = page.unread
        if kind == "task" and request.take:
            self._change_notifier.publish(ctx.project_id, frozenset({"tasks", "ledger"}))
        return _success_result(content)

    def _check_access(self, ctx: Ctx) -> None:
        """Raise NotAuthenticated or OwnerSuspended if the caller may not call. Called in a thread of the engine."""
        with self._engine.db.connection() as conn:
            authentication.authenticate(conn, ctx)

    def _record_shown_posts(self, ctx: Ctx, result: Any) -> None:
        if isinstance(result, PostPage) and result.surfacing:
            self._activity.record_shown_posts(ctx, result.surfacing)


def _call_engine(conn: Connection, ctx: Ctx, tool: Tool, arguments: Any) -> tuple[Any, int]:
    """Validate the arguments and call the tool's function; return its result and the caller's unread posts to report.

    Raises:
        BusError: the arguments are not valid, or the engine refused.
    """
    result = tool.function(conn, ctx, **tool.decode(arguments))
    if not tool.reports_unread:
        return result, 0
    unread = result.get(UNREAD_FIELD) if isinstance(result, dict) else getattr(result, UNREAD_FIELD, None)
    return result, authentication.authenticate(conn, ctx).unread if unread is None else unread


def _has_idempotency_key(arguments: Any) -> bool:
    # In a batch, which holds the clock, the lock of the key would be taken after the clock.
    return isinstance(arguments, str) or (isinstance(arguments, dict) and arguments.get("idempotency_key") is not None)


def _success_result(content: dict[str, Any]) -> ToolResult:
    return ToolResult(content, msgspec.json.encode(content).decode(), False)


def _error_result(error: BusError) -> ToolResult:
    message = message_with_hint(error)
    return ToolResult({"error": {"code": error.code, "message": message, **error.data}}, message, True)
