"""Execution of tool calls: validation, the engine call, long polls, and rendering of the results."""

import asyncio
import contextvars
import functools
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec

from bus.client_setup import Endpoints
from bus.coordination import give_back, long_poll
from bus.coordination.digest import Digest
from bus.coordination.long_poll import WaitRequest, WaitResult
from bus.coordination.posts import PostPage
from bus.coordination.tasks import NextTask
from bus.ctx import Ctx
from bus.db import Connection
from bus.db.pipeline import run_pipelined
from bus.errors import BusError, InvalidArgument
from bus.operations import telemetry
from bus.operations.counters import make_counter, make_histogram
from bus.scopes import Scope, includes
from bus.tenancy import authentication
from mcp_gateway import session_key
from mcp_gateway.activity_buffer import ActivityBuffer
from mcp_gateway.change_notifications import ChangeNotifier
from mcp_gateway.client_setup import RESULT_RENDERERS
from mcp_gateway.delivery import Delivery
from mcp_gateway.denials import DENYING_ERRORS, RequestDenied
from mcp_gateway.engine_runner import EngineRunner
from mcp_gateway.error_hints import message_with_hint
from mcp_gateway.long_poll import LongPollRegistry, ReportProgress
from mcp_gateway.render import UNREAD_FIELD, render
from mcp_gateway.tool_registry import Tool
from mcp_gateway.tools.long_poll import DEFAULT_TIMEOUT_SECONDS

_UNREAD_KEY = "_unread_posts"
# The engine's work that gives back what a result took.
GiveBack = Callable[[Connection], None]
# Between tries to give back while the database is away; the last is repeated.
_GIVE_BACK_RETRY_SECONDS = (0.1, 0.5, 2.0, 5.0)
_MAX_GIVE_BACK_TRIES = 30
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ToolResult:
    """A tool's result.

    Attributes:
        content_json: the object as compact JSON.
        text: the text block: the same JSON, or the sentence of an error.
        error_code: the code of an error; None if the call succeeded.
        delivery: gives back what the call took if the result does not reach the client; None if it took nothing.
    """

    content_json: bytes
    text: str
    error_code: str | None = None
    delivery: Delivery | None = None

    @property
    def is_error(self) -> bool:
        """Whether it is an error."""
        return self.error_code is not None

    @property
    def content(self) -> dict[str, Any]:
        """The object, decoded. Direct calls need only its JSON."""
        content: dict[str, Any] = msgspec.json.decode(self.content_json)
        return content


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
        self.undelivered = make_counter(
            "undelivered_answers", "Answers that did not reach the client, whose taking was given back.", ("tool",)
        )
        self._give_backs: set[asyncio.Task[None]] = set()
        self._loop: asyncio.AbstractEventLoop | None = None

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
        self._loop = self._loop or asyncio.get_running_loop()
        # Exceptions that are not handled below are defects.
        outcome = "error"
        refusal: ToolResult | None = None
        try:
            if not includes(ctx.scope, tool.scope):
                # Its own statements would refuse the call as well. Here it joins no batch, and no argument is judged.
                refusal = await self._engine.run_call(ctx, functools.partial(self._require_scope, ctx, tool.scope))
            if refusal is not None:
                result = refusal
            elif tool.is_long_poll:
                result = await self._run_long_poll(ctx, tool, arguments, report_progress)
            elif tool.batch is None or _has_idempotency_key(arguments):
                result = await self._engine.run_call(ctx, lambda: self._run_alone(ctx, tool, arguments))
            else:
                result = await self._engine.run_batched(
                    ctx, lambda conn: self._run_on(conn, ctx, tool, arguments), is_write=tool.batch == "write"
                )
            outcome = result.error_code or "ok"
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
        return self._render(ctx, tool, result, unread)

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
        return self._render(ctx, tool, result, unread)

    def _render(self, ctx: Ctx, tool: Tool, result: Any, unread: int) -> ToolResult:
        self._record_shown_posts(ctx, result)
        render_with_endpoints = RESULT_RENDERERS.get(type(result))
        content = render(result) if render_with_endpoints is None else render_with_endpoints(self._endpoints, result)
        if unread:
            content[_UNREAD_KEY] = unread
        return _success_result(content, self._track(ctx, tool.name, self._find_give_back(ctx, result)))

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
            result = await self._long_polls.wait(
                request,
                timeout_seconds,
                report_progress,
                lambda lost: self._give_back_later(ctx, tool.name, self._find_give_back_of_wait(request, lost)),
            )
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
        delivery = self._track(ctx, tool.name, self._find_give_back_of_wait(request, result))
        try:
            self._record_shown_posts(ctx, page)
            content = {"kind": kind, **render(page)}
            if kind != "inbox" and page.unread:
                content[_UNREAD_KEY] = page.unread
            if kind == "task" and request.take:
                self._change_notifier.publish(ctx.project_id, frozenset({"tasks", "ledger"}))
            return _success_result(content, delivery)
        except Exception:
            if delivery is not None:
                delivery.settle(False)
            raise

    async def finish_give_backs(self) -> None:
        """Wait until what undelivered answers took is given back, before the process stops."""
        while self._give_backs:
            await asyncio.gather(*self._give_backs, return_exceptions=True)

    def _find_give_back(self, ctx: Ctx, result: Any) -> GiveBack | None:
        """Find out what gives back what a result of the engine took; None if it took nothing."""
        if isinstance(result, PostPage):
            return self._find_unmarking(ctx, result)
        if isinstance(result, NextTask) and result.taken is not None:
            return lambda conn: long_poll.give_back_next_task(conn, ctx, result)
        if isinstance(result, Digest) and result.cursor_move is not None:
            move = result.cursor_move
            return lambda conn: give_back.move_digest_cursor_back(conn, ctx, move)
        return None

    def _find_give_back_of_wait(self, request: WaitRequest, result: WaitResult) -> GiveBack | None:
        kind, page = result
        unmark = self._find_unmarking(request.ctx, page) if isinstance(page, PostPage) and kind == "inbox" else None
        if kind == "inbox" and unmark is None and request.ctx.session is None:
            return None

        def give_back_all(conn: Connection) -> None:
            if unmark is not None:
                unmark(conn)
            long_poll.give_back_result(conn, request, result)

        return give_back_all

    def _find_unmarking(self, ctx: Ctx, page: PostPage) -> GiveBack | None:
        if not page.surfacing:
            return None

        def unmark(conn: Connection) -> None:
            self._activity.forget_shown_posts(ctx, page.surfacing)
            give_back.unmark_surfaced(conn, ctx, page.surfacing)

        return unmark

    def _track(self, ctx: Ctx, tool_name: str, work: GiveBack | None) -> Delivery | None:
        if work is None:
            return None
        return Delivery(lambda: self._give_back_later(ctx, tool_name, work))

    def _give_back_later(self, ctx: Ctx, tool_name: str, work: GiveBack | None) -> None:
        """Give back in the background what an undelivered answer took. Called on the event loop."""
        if work is None or self._loop is None or self._loop.is_closed():
            return
        self.undelivered.labels(tool_name).inc()
        # In a context of its own: work of a client that is gone is dropped.
        task = self._loop.create_task(self._give_back(ctx, tool_name, work), context=contextvars.Context())
        self._give_backs.add(task)
        task.add_done_callback(self._give_backs.discard)

    async def _give_back(self, ctx: Ctx, tool_name: str, work: GiveBack) -> None:
        def run() -> None:
            with self._engine.db.transaction() as conn:
                work(conn)

        for number in range(_MAX_GIVE_BACK_TRIES):
            try:
                await self._engine.executor.submit(run, ctx.project_id)
            except Exception:  # noqa: BLE001 - the database may be away; the taking must not outlive it
                _log.warning("what an answer of %s took was not given back yet", tool_name, exc_info=True)
                await asyncio.sleep(_GIVE_BACK_RETRY_SECONDS[min(number, len(_GIVE_BACK_RETRY_SECONDS) - 1)])
            else:
                # Other calls may wait for it.
                self._change_notifier.publish(ctx.project_id, frozenset({"tasks", "acks", "leases", "inbox", "ledger"}))
                return
        _log.error("what an answer of %s took could not be given back", tool_name)

    def _require_scope(self, ctx: Ctx, scope: Scope) -> ToolResult | None:
        """Raise InsufficientScope; return an error that a wider scope would not change. Called in a thread."""
        try:
            with self._engine.db.connection() as conn:
                authentication.require_scope(conn, ctx, scope)
        except BusError as error:
            return _error_result(error)
        return None

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
    return result, authentication.count_unread(conn, ctx) if unread is None else unread


def _has_idempotency_key(arguments: Any) -> bool:
    # In a batch, which holds the clock, the lock of the key would be taken after the clock.
    return isinstance(arguments, str) or (isinstance(arguments, dict) and arguments.get("idempotency_key") is not None)


def _success_result(content: dict[str, Any], delivery: Delivery | None = None) -> ToolResult:
    content_json = msgspec.json.encode(content)
    return ToolResult(content_json, content_json.decode(), delivery=delivery)


def _error_result(error: BusError) -> ToolResult:
    message = message_with_hint(error)
    content = {"error": {"code": error.code, "message": message, **error.data}}
    return ToolResult(msgspec.json.encode(content), message, error.code)
