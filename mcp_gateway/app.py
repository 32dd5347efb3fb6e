"""The ASGI application: its paths, its start and stop, and the count and log line of each request."""

import asyncio
import functools
import gc
import logging
import time
from collections.abc import Mapping
from contextlib import AsyncExitStack
from pathlib import Path

from bus import __version__
from bus.config.redaction import MaskedSetting
from bus.config.settings import Settings, serves_oauth
from bus.operations.counters import Counter, make_counter
from bus.operations.heartbeat import HeartbeatReporter, request_counts
from bus.operations.logs import REQUEST_ID, accept_correlation_id, log_context
from bus.operations.metrics import CONTENT_TYPE, MetricsEndpoint
from mcp_gateway.denials import RequestDenied
from mcp_gateway.group_metrics import GroupMetrics
from mcp_gateway.health import check_readiness
from mcp_gateway.http_responses import (
    Headers,
    HttpResponse,
    Receive,
    ResponseSender,
    Send,
    denial_response,
    json_response,
)
from mcp_gateway.mcp_endpoint import McpEndpoint, Scope
from mcp_gateway.metrics import build_collector
from mcp_gateway.rate_limit import RateLimit
from mcp_gateway.resource_metadata import ResourceMetadata
from mcp_gateway.service import Service
from mcp_gateway.session_endpoint import SessionEndpoint

_log = logging.getLogger("mcp_gateway.request")
# By path: the methods and what they do, for the reference page; `Gateway` routes them.
ROUTES = {
    "/healthz": ("GET", "*API.* The process answers and does not drain; its dependencies are not checked."),
    "/mcp": ("POST", "*API.* The MCP endpoint, for both eras of the protocol; also `/mcp/`. GET and DELETE get 405."),
    "/mcp/session": ("POST", "*API.* Reports of hooks about a session: its beginning and its end, and new mail."),
    "/metrics": ("GET", "*API.* Metrics of this process, or of its group, with `METRICS_TOKEN`."),
    "/readyz": ("GET", "*API.* The process has what it needs: the database, at a schema that it can use; else 503."),
}
_LOGGED_PATHS = frozenset({"/mcp/", *ROUTES} - {"/healthz"})


class Gateway:
    """The gateway as an ASGI application: /mcp and its metadata, /mcp/session, /healthz, /readyz and /metrics.

    Keeps no state between requests except caches of immutable facts, so any request may reach any process.

    Args:
        metrics: the endpoint that its metrics are added to; by default it creates one.
    """

    def __init__(self, settings: Settings, metrics: MetricsEndpoint | None = None) -> None:
        self.settings = settings
        self.service = Service(settings)
        self._rate_limit = RateLimit(settings.rate_per_minute, settings.redis_url)
        self._mcp_endpoint = McpEndpoint(settings, self.service, self._rate_limit)
        self._session_endpoint = SessionEndpoint(self._mcp_endpoint, self.service, self._rate_limit)
        self._resource_metadata = ResourceMetadata(settings) if serves_oauth(settings) else None
        # Labelled by HTTP status.
        self.request_counts = make_counter("gateway_requests", "HTTP requests to the gateway.", ("status",))
        self._requests_by_status = functools.cache(self.request_counts.labels)
        self._metrics = metrics or MetricsEndpoint("gateway", settings.metrics_token)
        self._metrics.add_source(build_collector(self.service, self.request_counts))
        self._group_metrics: GroupMetrics | None = None
        self._heartbeat: HeartbeatReporter | None = None
        self._is_draining = False

    def begin_drain(self) -> None:
        """Fail the health checks, and close each connection with its next answer; calls are still answered."""
        self._is_draining = True

    def configure_group(self, metrics_socket: str) -> None:
        """Answer scrapes with the metrics of all processes of a group.

        Args:
            metrics_socket: the path of the socket on which this process serves its own.
        """
        self._group_metrics = GroupMetrics(Path(metrics_socket), self._metrics.render)

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
                if self._group_metrics is not None:
                    await self._group_metrics.start()
                    stack.push_async_callback(self._group_metrics.stop)
                await stack.enter_async_context(self._mcp_endpoint.session_manager.run())
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
        sent_id = None
        for name, value in scope["headers"]:
            if name == b"x-request-id":
                sent_id = value.decode("latin-1")
                break
        request_id = accept_correlation_id(sent_id)
        log_context.set((REQUEST_ID, request_id))
        metadata = self._resource_metadata
        response = ResponseSender(send, request_id, None if metadata is None else metadata.url)
        if self._is_draining:
            response.add_headers([(b"connection", b"close")])
        try:
            await self._route(scope, receive, response)
        finally:
            if scope["path"] != "/healthz":
                self._record_request(scope["method"], scope["path"], response.status, started)

    async def _route(self, scope: Scope, receive: Receive, response: ResponseSender) -> None:
        path = scope["path"]
        if self._is_draining and path in ("/healthz", "/readyz"):
            await response.send_response(json_response(503, {"ok": False, "draining": True}))
        elif path == "/healthz":
            await response.send_response(json_response(200, {"ok": True, "service": "llm-bus", "version": __version__}))
        elif path == "/readyz":
            is_ready, report = await check_readiness(self.service.engine)
            await response.send_response(json_response(200 if is_ready else 503, report))
        elif path == "/metrics" and self.settings.metrics_token is not None:
            await response.send_response(await self._metrics_response(scope["headers"]))
        elif path in ("/mcp", "/mcp/"):
            await self._mcp_endpoint.handle(scope, receive, response)
        elif path == "/mcp/session":
            await self._session_endpoint.handle(scope, receive, response)
        elif self._resource_metadata is not None and path in self._resource_metadata.paths:
            await response.send_response(self._resource_metadata.respond(scope["method"]))
        else:
            await response.send_response(
                json_response(404, {"error": "not found", "message": "The MCP endpoint is /mcp."})
            )

    async def _metrics_response(self, headers: Headers) -> HttpResponse:
        """Return the metrics of this process, or of its group, if the request carries the metrics token."""
        authorizations = [value.decode("latin-1") for name, value in headers if name == b"authorization"]
        status = self._metrics.authorize(authorizations[0] if len(authorizations) == 1 else None)
        if status != 200:
            return denial_response(RequestDenied(status, "unauthenticated"))
        if self._group_metrics is not None:
            text = await self._group_metrics.collect()
        else:
            text = await asyncio.to_thread(self._metrics.render)
        return HttpResponse(
            200,
            [(b"content-type", CONTENT_TYPE.encode()), (b"content-length", str(len(text)).encode())],
            text,
        )

    def _record_request(self, method: str, path: str, status: int, started: float) -> None:
        """Count an answered request and log it in one line."""
        self._requests_by_status(str(status)).inc()
        elapsed_ms = round((time.perf_counter() - started) * 1000, 1)
        # Another path may be one of the web, sent to the wrong port, and contain a code or a token.
        shown_path = path if path in _LOGGED_PATHS else "other"
        fields = {"method": method, "path": shown_path, "status": status, "ms": elapsed_ms}
        _log.info("request", extra={"fields": fields})
