"""The MCP endpoint: the checks of a request, and then a direct call or the SDK."""

import asyncio
import logging
from collections.abc import MutableMapping
from dataclasses import replace
from typing import Any

from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from mcp.server.transport_security import TransportSecuritySettings
from starlette.requests import Request

from bus.config.settings import Settings, serves_oauth
from mcp_gateway.caller import Caller
from mcp_gateway.delivery import DELIVERY_EXTENSION
from mcp_gateway.denials import RequestDenied
from mcp_gateway.direct_call import SSE_HEADERS, DirectCallCodec, ToolCall, encode_progress_event
from mcp_gateway.host_origin_policy import HostOriginPolicy
from mcp_gateway.http_responses import (
    HttpResponse,
    Receive,
    ResponseSender,
    denial_response,
    json_response,
    replay_body,
)
from mcp_gateway.long_poll import ReportProgress
from mcp_gateway.mcp_handlers import RequestContext
from mcp_gateway.mcp_server import build_server
from mcp_gateway.rate_limit import RateLimit
from mcp_gateway.request_body import BodyReader
from mcp_gateway.request_head import RequestHeadReader
from mcp_gateway.sdk_adapter import AnswerConverter, adapt_request
from mcp_gateway.service import Service
from mcp_gateway.tools import all_tools

Scope = MutableMapping[str, Any]

_log = logging.getLogger(__name__)
# Proxies close a silent stream after some time; the SDK uses the same interval.
_PING_INTERVAL_SECONDS = 15.0
_PING_COMMENT = b": ping\r\n\r\n"
# There is no stream to GET and no transport session to DELETE.
_METHOD_NOT_ALLOWED = json_response(
    405, {"error": "method not allowed", "message": "POST JSON-RPC to /mcp."}, [(b"allow", b"POST")]
)


class McpEndpoint:
    """Answers the requests to /mcp.

    Args:
        settings: limits, hosts and origins.
        service: runs the calls.
        rate_limit: admits calls.
    Attributes:
        heads, bodies: read requests.
    """

    def __init__(self, settings: Settings, service: Service, rate_limit: RateLimit) -> None:
        self._service = service
        self._rate_limit = rate_limit
        self.bodies = BodyReader(settings.max_body_bytes)
        self._mcp_server = build_server(service, _get_caller)
        self._sdk_app = self._mcp_server.streamable_http_app(
            json_response=False,
            stateless_http=True,
            max_request_body_size=settings.max_body_bytes,
            # HostOriginPolicy checks hosts and origins before the body is read.
            transport_security=TransportSecuritySettings(enable_dns_rebinding_protection=False),
        )
        self._codec = DirectCallCodec(all_tools(), self._mcp_server)
        self.heads = RequestHeadReader(
            HostOriginPolicy(settings),
            service.authenticator.cache,
            self._codec.parse_headers if settings.fast_path else lambda _: None,
            settings.mcp_url if serves_oauth(settings) else None,
        )

    @property
    def session_manager(self) -> StreamableHTTPSessionManager:
        """The SDK's session manager, which must run while requests are answered."""
        return self._mcp_server.session_manager

    async def handle(self, scope: Scope, receive: Receive, response: ResponseSender) -> None:
        """Answer one request."""
        head = self.heads.read(scope["method"], scope["headers"])
        if head.cors_headers is not None:
            response.add_headers(head.cors_headers)
        if head.rejection is not None:
            await self._reject(scope, receive, response, head.rejection)
            return
        if head.token_fingerprint is None:
            is_empty = await self.bodies.discard(scope, receive)
            await self._deny(RequestDenied(401, "unauthenticated"), None, response, close_connection=not is_empty)
            return
        body = await self.bodies.read(scope, receive)
        if body is None:
            # A client that disconnected gets the same answer and does not read it.
            error = {"error": "too large", "message": f"Send at most {self.bodies.max_bytes} bytes, without pauses."}
            await response.send_response(json_response(413, error, [(b"connection", b"close")]))
            return
        call = None
        try:
            ctx = await self._service.authenticator.find_caller(head.token_fingerprint)
            if ctx is None:
                raise RequestDenied(401, "unauthenticated")
            if scope["method"] != "POST":
                # Checked first: a client that asks with GET whether it must authenticate reads the answer as yes or no.
                await self._service.authenticator.authorize(ctx)
                await response.send_response(_METHOD_NOT_ALLOWED)
                return
            call = None if head.protocol is None else self._codec.parse_call(head.protocol, body)
            if not self._rate_limit.allow(ctx):
                raise RequestDenied(429, "rate_limited")
        except RequestDenied as denied:
            await self._deny(denied, call, response)
            return
        session = head.session if head.session is not None or call is None else call.session
        caller = Caller(
            ctx if session is None and head.client is None else ctx.with_caller(session, head.client),
            watch_delivery=scope.get("extensions", {}).get(DELIVERY_EXTENSION),
        )
        try:
            if call is None:
                await self._call_sdk(scope, body, receive, response, caller)
            elif call.tool.is_long_poll:
                await self._answer_long_poll(call, caller, receive, response)
            else:
                await response.send_response(await self._answer_directly(call, caller))
        finally:
            if caller.delivery is not None and not response.is_complete:
                caller.delivery.settle(False)

    async def _reject(self, scope: Scope, receive: Receive, response: ResponseSender, rejection: HttpResponse) -> None:
        """Refuse a request because of its headers."""
        if not await self.bodies.discard(scope, receive):
            rejection = replace(rejection, headers=[*rejection.headers, (b"connection", b"close")])
        await response.send_response(rejection)

    async def _deny(
        self, denied: RequestDenied, call: ToolCall | None, response: ResponseSender, *, close_connection: bool = False
    ) -> None:
        """Deny a request before its call began."""
        # The tool is unknown where the body was not parsed.
        tool_name = "unknown" if call is None else call.tool.name
        self._service.tool_runner.count_call(tool_name, denied.outcome)
        await response.send_response(denial_response(denied, close_connection=close_connection))

    async def _call_sdk(
        self, scope: Scope, body: bytes, receive: Receive, response: ResponseSender, caller: Caller
    ) -> None:
        """Let the SDK answer a request, once the caller is known to be authorized."""
        response.caller = caller
        try:
            # Checked before the SDK validates the request: an unauthorized caller learns nothing else.
            await self._service.authenticator.authorize(caller.ctx)
        except RequestDenied as denied:
            await response.send_response(denial_response(denied))
            return
        request = adapt_request(scope["headers"], body)
        if isinstance(request, HttpResponse):
            await response.send_response(request)
        else:
            if caller.ctx is not None:
                session, client = caller.ctx.session or request.session, caller.ctx.client or request.client
                caller.ctx = caller.ctx.with_caller(session, client)
                if request.client is not None:
                    # Later calls may not say it.
                    self._service.activity.record_activity(caller.ctx)
            state = {**scope.get("state", {}), "caller": caller}
            sdk_scope = {**scope, "path": "/mcp", "raw_path": b"/mcp", "headers": request.headers, "state": state}
            await self._sdk_app(sdk_scope, replay_body(request.body, receive), AnswerConverter(request, response))

    async def _answer_directly(
        self, call: ToolCall, caller: Caller, report_progress: ReportProgress | None = None
    ) -> HttpResponse:
        """Answer a tool call without the SDK."""
        try:
            result = await self._service.tool_runner.call_tool(caller.ctx, call.tool, call.arguments, report_progress)
            if result.delivery is not None:
                caller.track(result.delivery)
            headers, body = self._codec.encode_result(call, result)
        except RequestDenied as denied:
            return denial_response(denied)
        except Exception:  # noqa: BLE001
            _log.exception("%s failed", call.tool.name)
            if caller.delivery is not None:
                caller.delivery.settle(False)
            headers, body = self._codec.encode_internal_error(call)
        return HttpResponse(200, headers, body)

    async def _answer_long_poll(
        self, call: ToolCall, caller: Caller, receive: Receive, response: ResponseSender
    ) -> None:
        """Answer a long poll; end it when its client disconnects, and keep its connection from falling silent."""
        is_streaming = False
        # A ping and a progress notification may be due at the same moment.
        stream_lock = asyncio.Lock()

        async def send_event(event: bytes) -> None:
            nonlocal is_streaming
            async with stream_lock:
                if not is_streaming:
                    is_streaming = True
                    await response.start_stream(SSE_HEADERS)
                await response.send_chunk(event)

        async def report_progress(progress: float, total: float) -> None:
            await send_event(encode_progress_event(call, progress, total))

        reports_progress = call.may_stream and call.progress_token_json is not None
        answering = asyncio.ensure_future(
            self._answer_directly(call, caller, report_progress if reports_progress else None)
        )
        disconnect = asyncio.ensure_future(_wait_for_disconnect(receive))
        try:
            while not answering.done():
                done, _ = await asyncio.wait(
                    {answering, disconnect}, timeout=_PING_INTERVAL_SECONDS, return_when=asyncio.FIRST_COMPLETED
                )
                if disconnect in done and not answering.done():
                    return
                if not done and call.may_stream:
                    await send_event(_PING_COMMENT)
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


def _get_caller(ctx: RequestContext) -> Caller:
    request = ctx.request
    assert isinstance(request, Request)
    caller: Caller = request.scope["state"]["caller"]
    return caller


async def _wait_for_disconnect(receive: Receive) -> None:
    """Return when the client has disconnected; the body of the request was read before."""
    while (await receive())["type"] != "http.disconnect":
        pass
