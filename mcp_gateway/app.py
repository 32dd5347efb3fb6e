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
from bus.config.redaction import Setting
from bus.config.settings import Settings
from bus.ctx import Ctx
from bus.operations.counters import Tally
from bus.operations.heartbeat import Reporter, traffic
from bus.operations.logs import REQUEST_ID, accepted_id, belongs_to
from bus.operations.metrics import CONTENT_TYPE, Metrics
from mcp_gateway import metrics as shown_here
from mcp_gateway.caller import Caller, bearer_key
from mcp_gateway.jsonrpc import envelope_error
from mcp_gateway.direct_call import Call, FastPath, Spoken
from mcp_gateway.health import readiness
from mcp_gateway.mcp_server import Context, build_server
from mcp_gateway.rate_limit import RateLimit
from mcp_gateway.http_responses import Headers, Reply, denial, json_reply
from mcp_gateway.response_sender import Receive, Response, Send, replayed
from mcp_gateway.host_origin_policy import Security
from mcp_gateway.service import Denied, Service
from mcp_gateway.tools import all_tools

Scope = MutableMapping[str, Any]

_log = logging.getLogger("mcp_gateway.request")
# Agents send small bodies in one piece; who takes longer than this is not one.
_BODY_SECONDS = 30
# A body up to this many times the limit is read and thrown away before it is refused.
_PATIENCE = 8


@dataclass(frozen=True, slots=True)
class Plain:
    """What the headers of a usual tool call say; it never changes for the same headers.

    Attributes:
        key: the fingerprint of the bearer token.
    """

    key: bytes
    spoken: Spoken


@dataclass(frozen=True, slots=True)
class Usual:
    """A usual tool call and who makes it."""

    call: Call
    ctx: Ctx

    @property
    def waits(self) -> bool:
        """Whether its answer may take most of a minute."""
        return self.call.tool.waits


class Gateway:
    """The gateway as an ASGI application: /mcp, /healthz, /readyz and /metrics.

    Keeps no state between requests beyond caches of what cannot change, so any request may reach any process.

    Args:
        metrics: where it shows its metrics; its own when left out.
    """

    def __init__(self, settings: Settings, metrics: Metrics | None = None) -> None:
        self.settings = settings
        self.service = Service(settings)
        self._limit = RateLimit(settings.rate_per_minute, settings.redis_url)
        self._server = build_server(self.service, _caller_of)
        self._mcp = self._server.streamable_http_app(
            json_response=False,
            stateless_http=True,
            max_request_body_size=settings.max_body_bytes,
            # Hosts and origins are checked here, before the body is looked at; see security.py.
            transport_security=TransportSecuritySettings(enable_dns_rebinding_protection=False),
        )
        self._fast = FastPath(all_tools(), self._server) if settings.fast_path else None
        self._security = Security(settings)
        # By status.
        self.requests = Tally()
        self._metrics = metrics or Metrics("gateway", settings.metrics_token)
        self._metrics.add(shown_here.collect(self.service, self.requests))
        self._reporter: Reporter | None = None

    def report_as(self, kind: str, shown: Mapping[str, Setting], *others: Tally) -> None:
        """Report the process while this serves; see bus/operations/process_registry.py.

        Args:
            shown: the settings in force, masked.
            others: requests that others in the same process answer.
        """
        self._reporter = Reporter(
            self.service.db,
            kind,
            shown,
            counts=lambda: traffic(self.requests, *others),
            figures=lambda: {
                "waiting": self.service.waiters.count,
                "streams": self.service.streams.count,
                "queued": self.service.queued,
            },
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        elif scope["type"] == "http":
            await self._http(scope, receive, send)
        else:
            # Nothing here speaks WebSocket; the server turns this into 403.
            await receive()
            await send({"type": "websocket.close"})

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        async with AsyncExitStack() as stack:
            await receive()
            try:
                await self.service.start()
                stack.push_async_callback(self.service.stop)
                self._limit.start()
                stack.push_async_callback(self._limit.stop)
                if self._reporter is not None:
                    self._reporter.start()
                    stack.push_async_callback(asyncio.to_thread, self._reporter.stop)
                await stack.enter_async_context(self._server.session_manager.run())
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

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = time.perf_counter()
        sent = next((value.decode("latin-1") for name, value in scope["headers"] if name == b"x-request-id"), None)
        request_id = accepted_id(sent)
        belongs_to.set((REQUEST_ID, request_id))
        response = Response(send, request_id)
        try:
            await self._route(scope, receive, response)
        finally:
            if scope["path"] != "/healthz":
                self._note(scope["method"], scope["path"], response.status, started)

    async def _route(self, scope: Scope, receive: Receive, response: Response) -> None:
        path = scope["path"]
        if path == "/healthz":
            await response.whole(json_reply(200, {"ok": True, "service": "llm-bus", "version": __version__}))
        elif path == "/readyz":
            ready, report = await readiness(self.service)
            await response.whole(json_reply(200 if ready else 503, report))
        elif path == "/metrics" and self.settings.metrics_token is not None:
            await response.whole(await self._shown(scope["headers"]))
        elif path in ("/mcp", "/mcp/"):
            await self._mcp_request({**scope, "path": "/mcp", "raw_path": b"/mcp"}, receive, response)
        else:
            await response.whole(json_reply(404, {"error": "not found", "message": "The MCP endpoint is /mcp."}))

    async def _shown(self, headers: Headers) -> Reply:
        """The metrics of this process, for whoever has the token."""
        authorizations = [value.decode("latin-1") for name, value in headers if name == b"authorization"]
        status = self._metrics.status(authorizations[0] if len(authorizations) == 1 else None)
        if status != 200:
            return denial(status)
        text = await asyncio.to_thread(self._metrics.text)
        return Reply(
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
            async with asyncio.timeout(_BODY_SECONDS):
                while size <= _PATIENCE * self.settings.max_body_bytes:
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

    async def _refuse(self, receive: Receive, response: Response, reply: Reply) -> None:
        """Refuse a request by its headers alone; of its body nothing is kept."""
        if await self._read_body(receive, 0) is None:
            reply.headers.append((b"connection", b"close"))
        await response.whole(reply)

    async def _mcp_request(self, scope: Scope, receive: Receive, response: Response) -> None:
        headers = scope["headers"]
        refusal = self._security.check(headers)
        if refusal is not None:
            await self._refuse(receive, response, refusal)
            return
        if scope["method"] != "POST":
            # No session and no standing stream: there is nothing to GET and nothing to DELETE.
            body = {"error": "method not allowed", "message": "POST JSON-RPC to /mcp."}
            await self._refuse(receive, response, json_reply(405, body, [(b"allow", b"POST")]))
            return
        authorizations = [value for name, value in headers if name == b"authorization"]
        if len(authorizations) > 1:
            message = {"error": "invalid request", "message": "Send one Authorization header."}
            await self._refuse(receive, response, json_reply(400, message))
            return
        key = bearer_key(authorizations[0].decode("latin-1")) if authorizations else None
        content = await self._read_body(receive, self.settings.max_body_bytes if key is not None else 0)
        if content is None and key is not None:
            # Also sent to a client that went away, where nobody reads it.
            message = {
                "error": "too large",
                "message": f"Send at most {self.settings.max_body_bytes} bytes, and at once.",
            }
            await response.whole(json_reply(413, message, [(b"connection", b"close")]))
            return
        try:
            ctx = None if key is None else await self.service.find_caller(key)
            if ctx is None:
                raise Denied(401, "unauthenticated")
            if not self._limit.admit(ctx):
                raise Denied(429, "rate_limited")
        except Denied as denied:
            # Which tool was meant is in the body, which is not read for whoever is refused.
            self.service.calls.add("unknown", denied.outcome)
            await response.whole(denial(denied.status, close=content is None))
            return
        caller = Caller(ctx)
        response.caller = caller
        assert content is not None
        spoken = self._fast.heed(headers) if self._fast is not None else None
        if self._fast is not None and spoken is not None:
            call = self._fast.recognise(spoken, content)
            # A call that waits has to notice that its client went away: see plain.py, and the SDK.
            if call is not None and not call.tool.waits:
                await response.whole(await self._answer(self._fast, call, caller))
                return
        try:
            # Before the SDK says anything about a request: a caller without rights is told nothing else.
            await self.service.standing(caller)
        except Denied as denied:
            await response.whole(denial(denied.status))
            return
        refused = envelope_error(content)
        if refused is not None:
            await response.whole(json_reply(400, refused))
        else:
            state = {**scope.get("state", {}), "caller": caller}
            await self._mcp({**scope, "state": state}, replayed(content, receive), response)

    async def _answer(self, fast: FastPath, call: Call, caller: Caller) -> Reply:
        """Answer a usual tool call directly."""
        try:
            answer = await self.service.call(caller, call.tool, call.arguments)
            headers, content = fast.answer(call, answer)
        except Denied as denied:
            return denial(denied.status)
        except Exception:  # noqa: BLE001
            _log.exception("%s failed", call.tool.name)
            headers, content = fast.failure(call)
        return Reply(200, headers, content)

    def understand(self, headers: Headers) -> Plain | None:
        """What the headers of a POST to /mcp say, where they say nothing but the usual."""
        authorizations = [value for name, value in headers if name == b"authorization"]
        if self._fast is None or len(authorizations) != 1 or self._security.check(headers) is not None:
            return None
        key = bearer_key(authorizations[0].decode("latin-1"))
        spoken = self._fast.heed(headers)
        return None if key is None or spoken is None else Plain(key, spoken)

    def recognise(self, plain: Plain, content: bytes) -> Usual | None:
        """The usual tool call that a head and its body make; None where it is not one."""
        assert self._fast is not None
        # Before anything is decoded: strangers are refused by the longer way, which reads nothing of theirs.
        ctx = self.service.callers.find_cached(plain.key)
        call = None if ctx is None else self._fast.recognise(plain.spoken, content)
        return None if call is None or ctx is None else Usual(call, ctx)

    async def answer(self, usual: Usual, request_id: str) -> Reply:
        """Answer a usual tool call. Whoever sends the reply adds the header with the request's id."""
        assert self._fast is not None
        belongs_to.set((REQUEST_ID, request_id))
        started = time.perf_counter()
        status = 0
        try:
            if self._limit.admit(usual.ctx):
                reply = await self._answer(self._fast, usual.call, Caller(usual.ctx))
            else:
                self.service.calls.add(usual.call.tool.name, "rate_limited")
                reply = denial(429)
            status = reply.status
        finally:
            self._note("POST", "/mcp", status, started)
        return reply

    def _note(self, method: str, path: str, status: int, started: float) -> None:
        """Count an answered request, and write the one line about it."""
        self.requests.add(str(status))
        taken = round((time.perf_counter() - started) * 1000, 1)
        fields = {"method": method, "path": path[:100], "status": status, "ms": taken}
        _log.info("request", extra={"fields": fields})

    def late(self, usual: Usual, reply: Reply) -> bytes:
        """A reply as an event of a stream that began while it was waited for."""
        assert self._fast is not None
        return self._fast.late(usual.call, reply.status, reply.body)


def _caller_of(ctx: Context) -> Caller:
    request = ctx.request
    assert isinstance(request, Request)
    caller: Caller = request.scope["state"]["caller"]
    return caller
