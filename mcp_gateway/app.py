"""The ASGI application: what is decided about an HTTP request before and after the protocol sees it."""

import asyncio
import gc
import logging
import time
from collections.abc import Mapping, MutableMapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

from mcp.server.transport_security import TransportSecuritySettings
from starlette.requests import Request

from bus import __version__
from bus.config.redaction import MaskedSetting
from bus.config.settings import Settings
from bus.ctx import Ctx
from bus.operations.counters import Counter
from bus.operations.heartbeat import HeartbeatReporter, request_counts
from bus.operations.logs import REQUEST_ID, accept_correlation_id, log_context
from bus.operations.metrics import CONTENT_TYPE, MetricsEndpoint
from mcp_gateway import metrics as shown_here
from mcp_gateway.caller import Caller, bearer_token_fingerprint
from mcp_gateway.direct_call import DirectCallCodec, ProtocolInfo, ToolCall
from mcp_gateway.health import check_readiness
from mcp_gateway.host_origin_policy import HostOriginPolicy
from mcp_gateway.http_responses import Headers, HttpResponse, denial_response, json_response
from mcp_gateway.jsonrpc import find_message_error
from mcp_gateway.mcp_server import RequestContext, build_server
from mcp_gateway.rate_limit import RateLimit
from mcp_gateway.response_sender import Receive, ResponseSender, Send, replay_body
from mcp_gateway.service import RequestDenied, Service
from mcp_gateway.tools import all_tools

Scope = MutableMapping[str, Any]

_log = logging.getLogger("mcp_gateway.request")
# Agents send small bodies in one piece; who takes longer than this is not one.
_BODY_TIMEOUT_SECONDS = 30
# A body up to this many times the limit is read and thrown away before it is refused.
_MAX_DISCARDED_BODY_FACTOR = 8


@dataclass(frozen=True, slots=True)
class ParsedHeaders:
    """What the headers of a usual tool call say; it never changes for the same headers.

    Attributes:
        key: the fingerprint of the bearer token.
    """

    token_fingerprint: bytes
    protocol: ProtocolInfo


@dataclass(frozen=True, slots=True)
class DirectCall:
    """A usual tool call and who makes it."""

    call: ToolCall
    ctx: Ctx

    @property
    def is_long_poll(self) -> bool:
        """Whether its answer may take most of a minute."""
        return self.call.tool.is_long_poll


class Gateway:
    """The gateway as an ASGI application: /mcp, /healthz, /readyz and /metrics.

    Keeps no state between requests beyond caches of what cannot change, so any request may reach any process.

    Args:
        metrics: where it shows its metrics; its own when left out.
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
            # Hosts and origins are checked here, before the body is looked at; see security.py.
            transport_security=TransportSecuritySettings(enable_dns_rebinding_protection=False),
        )
        self._direct_codec = DirectCallCodec(all_tools(), self._mcp_server) if settings.fast_path else None
        self._host_origin_policy = HostOriginPolicy(settings)
        # By status.
        self.request_counts = Counter()
        self._metrics = metrics or MetricsEndpoint("gateway", settings.metrics_token)
        self._metrics.add_source(shown_here.build_collector(self.service, self.request_counts))
        self._heartbeat: HeartbeatReporter | None = None

    def configure_heartbeat(
        self, kind: str, redacted_settings: Mapping[str, MaskedSetting], *other_request_counts: Counter
    ) -> None:
        """Report the process while this serves; see bus/operations/process_registry.py.

        Args:
            shown: the settings in force, masked.
            others: requests that others in the same process answer.
        """
        self._heartbeat = HeartbeatReporter(
            self.service.db,
            kind,
            redacted_settings,
            counters=lambda: request_counts(self.request_counts, *other_request_counts),
            gauges=lambda: {
                "waiting": self.service.long_polls.count,
                "streams": self.service.streams.count,
                "queued": self.service.queued_calls,
            },
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._handle_lifespan(receive, send)
        elif scope["type"] == "http":
            await self._handle_http(scope, receive, send)
        else:
            # Nothing here speaks WebSocket; the server turns this into 403.
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
            except Exception as error:  # noqa: BLE001 - the server must hear of it, whatever it is
                _log.exception("start-up failed")
                await send({"type": "lifespan.startup.failed", "message": str(error)})
                return
            # What lives as long as the process is not looked through for garbage again.
            gc.collect()
            gc.freeze()
            await send({"type": "lifespan.startup.complete"})
            await receive()
        await send({"type": "lifespan.shutdown.complete"})

    async def _handle_http(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = time.perf_counter()
        sent = next((value.decode("latin-1") for name, value in scope["headers"] if name == b"x-request-id"), None)
        request_id = accept_correlation_id(sent)
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
            ready, report = await check_readiness(self.service)
            await response.send_response(json_response(200 if ready else 503, report))
        elif path == "/metrics" and self.settings.metrics_token is not None:
            await response.send_response(await self._metrics_response(scope["headers"]))
        elif path in ("/mcp", "/mcp/"):
            await self._handle_mcp({**scope, "path": "/mcp", "raw_path": b"/mcp"}, receive, response)
        else:
            await response.send_response(
                json_response(404, {"error": "not found", "message": "The MCP endpoint is /mcp."})
            )

    async def _metrics_response(self, headers: Headers) -> HttpResponse:
        """The metrics of this process, for whoever has the token."""
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
        """The request's body; None where it is larger than `limit`, too slow, or the client went away.

        A body that is refused is still read to its end, within reason: otherwise the server would wait for
        somebody to read it, and the client's next request on this connection would never be answered.
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

    async def _reject(self, receive: Receive, response: ResponseSender, http_response: HttpResponse) -> None:
        """Refuse a request by its headers alone; of its body nothing is kept."""
        if await self._read_body(receive, 0) is None:
            http_response.headers.append((b"connection", b"close"))
        await response.send_response(http_response)

    async def _handle_mcp(self, scope: Scope, receive: Receive, response: ResponseSender) -> None:
        headers = scope["headers"]
        refusal = self._host_origin_policy.find_violation(headers)
        if refusal is not None:
            await self._reject(receive, response, refusal)
            return
        if scope["method"] != "POST":
            # No session and no standing stream: there is nothing to GET and nothing to DELETE.
            body = {"error": "method not allowed", "message": "POST JSON-RPC to /mcp."}
            await self._reject(receive, response, json_response(405, body, [(b"allow", b"POST")]))
            return
        authorizations = [value for name, value in headers if name == b"authorization"]
        if len(authorizations) > 1:
            message = {"error": "invalid request", "message": "Send one Authorization header."}
            await self._reject(receive, response, json_response(400, message))
            return
        key = bearer_token_fingerprint(authorizations[0].decode("latin-1")) if authorizations else None
        content = await self._read_body(receive, self.settings.max_body_bytes if key is not None else 0)
        if content is None and key is not None:
            # Also sent to a client that went away, where nobody reads it.
            message = {
                "error": "too large",
                "message": f"Send at most {self.settings.max_body_bytes} bytes, and at once.",
            }
            await response.send_response(json_response(413, message, [(b"connection", b"close")]))
            return
        try:
            ctx = None if key is None else await self.service.find_caller(key)
            if ctx is None:
                raise RequestDenied(401, "unauthenticated")
            if not self._rate_limit.allow(ctx):
                raise RequestDenied(429, "rate_limited")
        except RequestDenied as denied:
            # Which tool was meant is in the body, which is not read for whoever is refused.
            self.service.call_counts.increment("unknown", denied.outcome)
            await response.send_response(denial_response(denied.status, close_connection=content is None))
            return
        caller = Caller(ctx)
        response.caller = caller
        assert content is not None
        spoken = self._direct_codec.parse_headers(headers) if self._direct_codec is not None else None
        if self._direct_codec is not None and spoken is not None:
            call = self._direct_codec.parse_call(spoken, content)
            # A call that waits has to notice that its client went away: see plain.py, and the SDK.
            if call is not None and not call.tool.is_long_poll:
                await response.send_response(await self._call_tool_directly(self._direct_codec, call, caller))
                return
        try:
            # Before the SDK says anything about a request: a caller without rights is told nothing else.
            await self.service.authorize(caller)
        except RequestDenied as denied:
            await response.send_response(denial_response(denied.status))
            return
        refused = find_message_error(content)
        if refused is not None:
            await response.send_response(json_response(400, refused))
        else:
            state = {**scope.get("state", {}), "caller": caller}
            await self._sdk_app({**scope, "state": state}, replay_body(content, receive), response)

    async def _call_tool_directly(self, codec: DirectCallCodec, call: ToolCall, caller: Caller) -> HttpResponse:
        """Answer a usual tool call directly."""
        try:
            answer = await self.service.call_tool(caller, call.tool, call.arguments)
            headers, content = codec.encode_result(call, answer)
        except RequestDenied as denied:
            return denial_response(denied.status)
        except Exception:  # noqa: BLE001
            _log.exception("%s failed", call.tool.name)
            headers, content = codec.encode_internal_error(call)
        return HttpResponse(200, headers, content)

    def parse_headers(self, headers: Headers) -> ParsedHeaders | None:
        """What the headers of a POST to /mcp say, where they say nothing but the usual."""
        authorizations = [value for name, value in headers if name == b"authorization"]
        if (
            self._direct_codec is None
            or len(authorizations) != 1
            or self._host_origin_policy.find_violation(headers) is not None
        ):
            return None
        key = bearer_token_fingerprint(authorizations[0].decode("latin-1"))
        spoken = self._direct_codec.parse_headers(headers)
        return None if key is None or spoken is None else ParsedHeaders(key, spoken)

    def parse_direct_call(self, headers: ParsedHeaders, content: bytes) -> DirectCall | None:
        """The usual tool call that a head and its body make; None where it is not one."""
        assert self._direct_codec is not None
        # Before anything is decoded: strangers are refused by the longer way, which reads nothing of theirs.
        ctx = self.service.caller_cache.find_cached(headers.token_fingerprint)
        call = None if ctx is None else self._direct_codec.parse_call(headers.protocol, content)
        return None if call is None or ctx is None else DirectCall(call, ctx)

    async def answer_direct_call(self, direct_call: DirectCall, request_id: str) -> HttpResponse:
        """Answer a usual tool call. Whoever sends the reply adds the header with the request's id."""
        assert self._direct_codec is not None
        log_context.set((REQUEST_ID, request_id))
        started = time.perf_counter()
        status = 0
        try:
            if self._rate_limit.allow(direct_call.ctx):
                reply = await self._call_tool_directly(self._direct_codec, direct_call.call, Caller(direct_call.ctx))
            else:
                self.service.call_counts.increment(direct_call.call.tool.name, "rate_limited")
                reply = denial_response(429)
            status = reply.status
        finally:
            self._record_request("POST", "/mcp", status, started)
        return reply

    def _record_request(self, method: str, path: str, status: int, started: float) -> None:
        """Count an answered request, and write the one line about it."""
        self.request_counts.increment(str(status))
        taken = round((time.perf_counter() - started) * 1000, 1)
        fields = {"method": method, "path": path[:100], "status": status, "ms": taken}
        _log.info("request", extra={"fields": fields})

    def encode_stream_event(self, direct_call: DirectCall, http_response: HttpResponse) -> bytes:
        """A reply as an event of a stream that began while it was waited for."""
        assert self._direct_codec is not None
        return self._direct_codec.encode_stream_event(direct_call.call, http_response.status, http_response.body)


def _get_caller(ctx: RequestContext) -> Caller:
    request = ctx.request
    assert isinstance(request, Request)
    caller: Caller = request.scope["state"]["caller"]
    return caller
