"""The ASGI application: checks of an HTTP request before and after the protocol handles it."""

import asyncio
import gc
import logging
import time
from collections.abc import Mapping, MutableMapping
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Any

from mcp.server.transport_security import TransportSecuritySettings
from starlette.requests import Request

from bus import __version__
from bus.config.redaction import MaskedSetting
from bus.config.settings import Settings
from bus.operations.counters import Counter
from bus.operations.heartbeat import HeartbeatReporter, request_counts
from bus.operations.logs import REQUEST_ID, accept_correlation_id, log_context
from bus.operations.metrics import CONTENT_TYPE, MetricsEndpoint
from mcp_gateway.caller import Caller
from mcp_gateway.denials import RequestDenied
from mcp_gateway.direct_call import SSE_HEADERS, DirectCallCodec, ToolCall
from mcp_gateway.health import check_readiness
from mcp_gateway.host_origin_policy import HostOriginPolicy
from mcp_gateway.http_responses import (
    Headers,
    HttpResponse,
    Receive,
    ResponseSender,
    Send,
    denial_response,
    json_response,
    replay_body,
)
from mcp_gateway.jsonrpc import find_message_error
from mcp_gateway.mcp_handlers import RequestContext
from mcp_gateway.mcp_server import build_server
from mcp_gateway.metrics import build_collector
from mcp_gateway.rate_limit import RateLimit
from mcp_gateway.request_head import RequestHeadReader
from mcp_gateway.service import Service
from mcp_gateway.tools import all_tools

Scope = MutableMapping[str, Any]

_log = logging.getLogger("mcp_gateway.request")
# Agents send small bodies in one piece; a slower client is not an agent.
_BODY_TIMEOUT_SECONDS = 30
# A body up to this many times the limit is read and discarded before it is refused.
_MAX_DISCARDED_BODY_FACTOR = 8
# Proxies close a silent stream after some time; the SDK uses the same interval.
_PING_INTERVAL_SECONDS = 15.0
_PING_COMMENT = b": ping\r\n\r\n"


class Gateway:
    """The gateway as an ASGI application: /mcp, /healthz, /readyz and /metrics.

    Keeps no state between requests except caches of immutable facts, so any request may reach any process.

    Args:
        metrics: the endpoint that its metrics are added to; by default it creates one.
    """

    def __init__(self, settings: Settings, metrics: MetricsEndpoint | None = None) -> None:
        self.settings = settings
        self.service = Service(settings)
        self._rate_limit = RateLimit(settings.rate_per_minute, settings.redis_url)
        self._mcp_server = build_server(self.service, _get_caller)
        self._sdk_app = self._mcp_server.streamable_http_app(
            json_response=False,
            stateless_http=True,
            max_request_body_size=settings.max_body_bytes,
            # HostOriginPolicy checks hosts and origins before the body is read.
            transport_security=TransportSecuritySettings(enable_dns_rebinding_protection=False),
        )
        self._codec = DirectCallCodec(all_tools(), self._mcp_server)
        self._heads = RequestHeadReader(
            HostOriginPolicy(settings),
            self.service.authenticator.cache,
            self._codec.parse_headers if settings.fast_path else lambda _: None,
        )
        # Labelled by HTTP status.
        self.request_counts = Counter()
        self._metrics = metrics or MetricsEndpoint("gateway", settings.metrics_token)
        self._metrics.add_source(build_collector(self.service, self.request_counts))
        self._heartbeat: HeartbeatReporter | None = None

    def configure_heartbeat(
        self, kind: str, redacted_settings: Mapping[str, MaskedSetting], *other_request_counts: Counter
    ) -> None:
        """Report the process to the process registry while the gateway serves.

        Args:
            redacted_settings: the settings in force, with secrets masked.
            other_request_counts: requests that other applications in the same process answer.
        """
        self._heartbeat = HeartbeatReporter(
            self.service.engine.db,
            kind,
            redacted_settings,
            counters=lambda: request_counts(self.request_counts, *other_request_counts),
            gauges=lambda: {
                "waiting": self.service.long_polls.count,
                "streams": self.service.streams.count,
                "queued": self.service.engine.queued_calls,
            },
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one ASGI connection."""
        if scope["type"] == "lifespan":
            await self._handle_lifespan(receive, send)
        elif scope["type"] == "http":
            await self._handle_http(scope, receive, send)
        else:
            # WebSocket is not supported; the server turns this into 403.
            await receive()
            await send({"type": "websocket.close"})

    async def _handle_lifespan(self, receive: Receive, send: Send) -> None:
        async with AsyncExitStack() as stack:
            await receive()
            try:
                await self.service.start()
                stack.push_async_callback(self.service.stop)
                self._rate_limit.start()
                stack.push_async_callback(self._rate_limit.stop)
                if self._heartbeat is not None:
                    self._heartbeat.start()
                    stack.push_async_callback(asyncio.to_thread, self._heartbeat.stop)
                await stack.enter_async_context(self._mcp_server.session_manager.run())
            except Exception as error:  # noqa: BLE001 - every failure is reported to the server
                _log.exception("start-up failed")
                await send({"type": "lifespan.startup.failed", "message": str(error)})
                return
            # Freeze long-lived objects so that the collector skips them.
            gc.collect()
            gc.freeze()
            await send({"type": "lifespan.startup.complete"})
            await receive()
        await send({"type": "lifespan.shutdown.complete"})

    async def _handle_http(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = time.perf_counter()
        sent_id = next((value.decode("latin-1") for name, value in scope["headers"] if name == b"x-request-id"), None)
        request_id = accept_correlation_id(sent_id)
        log_context.set((REQUEST_ID, request_id))
        response = ResponseSender(send, request_id)
        try:
            await self._route(scope, receive, response)
        finally:
            if scope["path"] != "/healthz":
                self._record_request(scope["method"], scope["path"], response.status, started)

    async def _route(self, scope: Scope, receive: Receive, response: ResponseSender) -> None:
        path = scope["path"]
        if path == "/healthz":
            await response.send_response(json_response(200, {"ok": True, "service": "llm-bus", "version": __version__}))
        elif path == "/readyz":
            is_ready, report = await check_readiness(self.service.engine)
            await response.send_response(json_response(200 if is_ready else 503, report))
        elif path == "/metrics" and self.settings.metrics_token is not None:
            await response.send_response(await self._metrics_response(scope["headers"]))
        elif path in ("/mcp", "/mcp/"):
            await self._handle_mcp(scope, receive, response)
        else:
            await response.send_response(
                json_response(404, {"error": "not found", "message": "The MCP endpoint is /mcp."})
            )

    async def _metrics_response(self, headers: Headers) -> HttpResponse:
        """Return the metrics of this process if the request carries the metrics token."""
        authorizations = [value.decode("latin-1") for name, value in headers if name == b"authorization"]
        status = self._metrics.authorize(authorizations[0] if len(authorizations) == 1 else None)
        if status != 200:
            return denial_response(status)
        text = await asyncio.to_thread(self._metrics.render)
        return HttpResponse(
            200,
            [(b"content-type", CONTENT_TYPE.encode()), (b"content-length", str(len(text)).encode())],
            text,
        )

    async def _read_body(self, receive: Receive, limit: int) -> bytes | None:
        """Read the request's body; None if it is larger than `limit`, too slow, or the client disconnected.

        A refused body is still read to its end, up to a bound. Otherwise the server would wait for the application to
        read it, and the next request on this connection would never be answered.
        """
        chunks: list[bytes] = []
        size = 0
        try:
            async with asyncio.timeout(_BODY_TIMEOUT_SECONDS):
                while size <= _MAX_DISCARDED_BODY_FACTOR * self.settings.max_body_bytes:
                    message = await receive()
                    if message["type"] != "http.request":
                        return None
                    chunk = message.get("body", b"")
                    size += len(chunk)
                    if size <= limit:
                        chunks.append(chunk)
                    if not message.get("more_body", False):
                        return b"".join(chunks) if size <= limit else None
        except TimeoutError:
            return None
        return None

    async def _reject(self, receive: Receive, response: ResponseSender, rejection: HttpResponse) -> None:
        """Refuse a request because of its headers; its body is discarded."""
        if await self._read_body(receive, 0) is None:
            rejection = replace(rejection, headers=[*rejection.headers, (b"connection", b"close")])
        await response.send_response(rejection)

    async def _handle_mcp(self, scope: Scope, receive: Receive, response: ResponseSender) -> None:
        head = self._heads.read(scope["method"], scope["headers"])
        if head.rejection is not None:
            await self._reject(receive, response, head.rejection)
            return
        fingerprint = head.token_fingerprint
        body = await self._read_body(receive, self.settings.max_body_bytes if fingerprint is not None else 0)
        if body is None and fingerprint is not None:
            # A client that disconnected gets the same answer and does not read it.
            error = {
                "error": "too large",
                "message": f"Send at most {self.settings.max_body_bytes} bytes, without pauses.",
            }
            await response.send_response(json_response(413, error, [(b"connection", b"close")]))
            return
        call = None
        try:
            ctx = None if fingerprint is None else await self.service.authenticator.find_caller(fingerprint)
            if ctx is None:
                raise RequestDenied(401, "unauthenticated")
            assert body is not None
            call = None if head.protocol is None else self._codec.parse_call(head.protocol, body)
            if not self._rate_limit.allow(ctx):
                raise RequestDenied(429, "rate_limited")
        except RequestDenied as denied:
            # The tool is unknown where the body was not parsed.
            self.service.tool_runner.call_counts.increment(
                "unknown" if call is None else call.tool.name, denied.outcome
            )
            await response.send_response(denial_response(denied.status, close_connection=body is None))
            return
        caller = Caller(ctx)
        if call is None:
            await self._call_sdk(scope, body, receive, response, caller)
        elif call.tool.is_long_poll:
            await self._answer_long_poll(call, caller, receive, response)
        else:
            await response.send_response(await self._answer_directly(call, caller))

    async def _call_sdk(
        self, scope: Scope, body: bytes, receive: Receive, response: ResponseSender, caller: Caller
    ) -> None:
        """Let the SDK answer a request, once the caller is known to be authorized."""
        response.caller = caller
        try:
            # Checked before the SDK validates the request: an unauthorized caller learns nothing else.
            await self.service.authenticator.authorize(caller.ctx)
        except RequestDenied as denied:
            await response.send_response(denial_response(denied.status))
            return
        message_error = find_message_error(body)
        if message_error is not None:
            await response.send_response(json_response(400, message_error))
        else:
            state = {**scope.get("state", {}), "caller": caller}
            sdk_scope = {**scope, "path": "/mcp", "raw_path": b"/mcp", "state": state}
            await self._sdk_app(sdk_scope, replay_body(body, receive), response)

    async def _answer_directly(self, call: ToolCall, caller: Caller) -> HttpResponse:
        """Answer a tool call without the SDK."""
        try:
            result = await self.service.tool_runner.call_tool(caller.ctx, call.tool, call.arguments)
            headers, body = self._codec.encode_result(call, result)
        except RequestDenied as denied:
            return denial_response(denied.status)
        except Exception:  # noqa: BLE001
            _log.exception("%s failed", call.tool.name)
            headers, body = self._codec.encode_internal_error(call)
        return HttpResponse(200, headers, body)

    async def _answer_long_poll(
        self, call: ToolCall, caller: Caller, receive: Receive, response: ResponseSender
    ) -> None:
        """Answer a long poll; end it when its client disconnects, and keep its connection from falling silent."""
        answering = asyncio.ensure_future(self._answer_directly(call, caller))
        disconnect = asyncio.ensure_future(_wait_for_disconnect(receive))
        is_streaming = False
        try:
            while not answering.done():
                done, _ = await asyncio.wait(
                    {answering, disconnect}, timeout=_PING_INTERVAL_SECONDS, return_when=asyncio.FIRST_COMPLETED
                )
                if disconnect in done and not answering.done():
                    return
                if not done:
                    if not is_streaming:
                        await response.start_stream(SSE_HEADERS)
                        is_streaming = True
                    await response.send_chunk(_PING_COMMENT)
            answer = answering.result()
            if is_streaming:
                event = self._codec.encode_stream_event(call, answer.status, answer.body)
                await response.send_chunk(event, is_last=True)
            else:
                await response.send_response(answer)
        finally:
            for task in (answering, disconnect):
                task.cancel()
            await asyncio.gather(answering, disconnect, return_exceptions=True)

    def _record_request(self, method: str, path: str, status: int, started: float) -> None:
        """Count an answered request and log it in one line."""
        self.request_counts.increment(str(status))
        elapsed_ms = round((time.perf_counter() - started) * 1000, 1)
        fields = {"method": method, "path": path[:100], "status": status, "ms": elapsed_ms}
        _log.info("request", extra={"fields": fields})


def _get_caller(ctx: RequestContext) -> Caller:
    request = ctx.request
    assert isinstance(request, Request)
    caller: Caller = request.scope["state"]["caller"]
    return caller


async def _wait_for_disconnect(receive: Receive) -> None:
    """Return when the client has disconnected; the body of the request was read before."""
    while (await receive())["type"] != "http.disconnect":
        pass
