"""The ASGI application: what is decided about an HTTP request before and after the protocol sees it."""

import asyncio
import json
import logging
import time
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import AsyncExitStack
from typing import Any

from mcp.server.transport_security import TransportSecuritySettings
from starlette.requests import Request

from bus import __version__
from bus.settings import Settings, without_default_port
from mcp_gateway.caller import Caller, bearer_token
from mcp_gateway.envelope import envelope_error
from mcp_gateway.fast import Call, FastPath
from mcp_gateway.health import readiness
from mcp_gateway.protocol import Context, build_server
from mcp_gateway.ratelimit import RateLimit
from mcp_gateway.service import Denied, Service
from mcp_gateway.tools import all_tools

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

_log = logging.getLogger("mcp_gateway.request")
# Agents send small bodies in one piece; who takes longer than this is not one.
_BODY_SECONDS = 30
# A body up to this many times the limit is read and thrown away before it is refused.
_PATIENCE = 8
_RETRY_AFTER = {429: "1", 503: "2"}
_BODIES = {
    401: {
        "error": "unauthorized",
        "message": "Send a live token as Authorization: Bearer lbus_…; an owner or project-admin mints one.",
    },
    403: {"error": "suspended due to non-payment"},
    429: {"error": "rate limited", "message": "Too many calls with this token; wait as Retry-After says."},
    503: {
        "error": "unavailable",
        "message": "The bus cannot answer just now; try again as Retry-After says.",
    },
}


class Gateway:
    """The gateway as an ASGI application: /mcp, /healthz and /readyz.

    Keeps no state between requests beyond caches of what cannot change, so any request may reach any process.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.service = Service(settings)
        self._limit = RateLimit(settings.rate_per_minute)
        self._server = build_server(self.service, _caller_of)
        self._mcp = self._server.streamable_http_app(
            json_response=False,
            stateless_http=True,
            max_request_body_size=settings.max_body_bytes,
            # Hosts and origins are checked here, before the body is looked at; see _Security.
            transport_security=TransportSecuritySettings(enable_dns_rebinding_protection=False),
        )
        self._fast = FastPath(all_tools(), self._server) if settings.fast_path else None
        self._security = _Security(settings)

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
                await stack.enter_async_context(self._server.session_manager.run())
            except Exception as error:  # noqa: BLE001 - the server must hear of it, whatever it is
                _log.exception("start-up failed")
                await send({"type": "lifespan.startup.failed", "message": str(error)})
                return
            await send({"type": "lifespan.startup.complete"})
            await receive()
        await send({"type": "lifespan.shutdown.complete"})

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = time.perf_counter()
        response = _Response(send)
        try:
            await self._route(scope, receive, response)
        finally:
            fields = {
                "method": scope["method"],
                "path": scope["path"][:100],
                "status": response.status,
                "ms": round((time.perf_counter() - started) * 1000, 1),
            }
            if scope["path"] != "/healthz":
                _log.info("request", extra={"fields": fields})

    async def _route(self, scope: Scope, receive: Receive, response: "_Response") -> None:
        path = scope["path"]
        if path == "/healthz":
            await response.json(200, {"ok": True, "service": "llm-bus", "version": __version__})
        elif path == "/readyz":
            ready, report = await readiness(self.service)
            await response.json(200 if ready else 503, report)
        elif path in ("/mcp", "/mcp/"):
            await self._mcp_request({**scope, "path": "/mcp", "raw_path": b"/mcp"}, receive, response)
        else:
            await response.json(404, {"error": "not found", "message": "The MCP endpoint is /mcp."})

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

    async def _refuse(
        self,
        receive: Receive,
        response: "_Response",
        status: int,
        body: dict[str, Any],
        headers: list[tuple[bytes, bytes]] | None = None,
    ) -> None:
        """Refuse a request by its headers alone; of its body nothing is kept."""
        read = await self._read_body(receive, 0)
        close = [] if read is not None else [(b"connection", b"close")]
        await response.json(status, body, [*(headers or []), *close])

    async def _mcp_request(self, scope: Scope, receive: Receive, response: "_Response") -> None:
        headers = scope["headers"]
        refusal = self._security.check(headers)
        if refusal is not None:
            await self._refuse(receive, response, *refusal)
            return
        if scope["method"] != "POST":
            # No session and no standing stream: there is nothing to GET and nothing to DELETE.
            body = {"error": "method not allowed", "message": "POST JSON-RPC to /mcp."}
            await self._refuse(receive, response, 405, body, [(b"allow", b"POST")])
            return
        authorizations = [value for name, value in headers if name == b"authorization"]
        if len(authorizations) > 1:
            message = {"error": "invalid request", "message": "Send one Authorization header."}
            await self._refuse(receive, response, 400, message)
            return
        token = bearer_token(authorizations[0].decode("latin-1")) if authorizations else None
        content = await self._read_body(receive, self.settings.max_body_bytes if token is not None else 0)
        if content is None and token is not None:
            # Also sent to a client that went away, where nobody reads it.
            message = {
                "error": "too large",
                "message": f"Send at most {self.settings.max_body_bytes} bytes, and at once.",
            }
            await response.json(413, message, [(b"connection", b"close")])
            return
        try:
            ctx = None if token is None else await self.service.find_caller(token)
            if ctx is None:
                raise Denied(401)
            if not self._limit.admit(ctx):
                raise Denied(429)
        except Denied as denied:
            await response.deny(denied.status, close=content is None)
            return
        caller = Caller(ctx)
        response.caller = caller
        assert content is not None
        call = self._fast.recognise(headers, content) if self._fast is not None else None
        if call is not None:
            await self._answer(call, caller, response)
            return
        try:
            # Before the SDK says anything about a request: a caller without rights is told nothing else.
            await self.service.standing(caller)
        except Denied as denied:
            await response.deny(denied.status)
            return
        refused = envelope_error(content)
        if refused is not None:
            await response.json(400, refused)
        else:
            state = {**scope.get("state", {}), "caller": caller}
            await self._mcp({**scope, "state": state}, _replayed(content, receive), response)

    async def _answer(self, call: Call, caller: Caller, response: "_Response") -> None:
        """Answer a usual tool call directly."""
        assert self._fast is not None
        try:
            answer = await self.service.call(caller, call.tool, call.arguments)
            headers, content = self._fast.answer(call, answer)
        except Denied as denied:
            await response.deny(denied.status)
            return
        except Exception:  # noqa: BLE001
            _log.exception("%s failed", call.tool.name)
            headers, content = self._fast.failure(call)
        await response.whole(200, headers, content)


def _replayed(body: bytes, receive: Receive) -> Receive:
    """A `receive` that gives the body that was read already, and then what comes after it."""
    unread: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replay() -> Message:
        return unread.pop() if unread else await receive()

    return replay


def _caller_of(ctx: Context) -> Caller:
    request = ctx.request
    assert isinstance(request, Request)
    caller: Caller = request.scope["state"]["caller"]
    return caller


class _Response:
    """Sends one response, and replaces it if the caller turns out to have no right to it.

    The SDK sends the headers of a stream before the handler ran, so the start is held back until the first part
    of the body: by then the handler's own statement has said whether the token is good.
    """

    def __init__(self, send: Send) -> None:
        self._send = send
        self._start: Message | None = None
        self._replaced = False
        self.caller: Caller | None = None
        self.status = 0

    async def __call__(self, message: Message) -> None:
        if self._replaced:
            return
        if message["type"] == "http.response.start":
            self._start = message
            return
        if self.caller is not None and self.caller.denied is not None and self._start is not None:
            self._start = None
            await self.deny(self.caller.denied)
            self._replaced = True
            return
        if self._start is not None:
            start, self._start = self._start, None
            self.status = start["status"]
            await self._send(start)
        await self._send(message)

    async def deny(self, status: int, *, close: bool = False) -> None:
        """Answer 401, 403, 429 or 503 with its documented body; `close` where the request was not read to its end."""
        headers = [(b"connection", b"close")] if close else []
        if status == 401:
            headers.append((b"www-authenticate", b"Bearer"))
        if status in _RETRY_AFTER:
            headers.append((b"retry-after", _RETRY_AFTER[status].encode()))
        await self.json(status, _BODIES[status], headers)

    async def json(self, status: int, body: dict[str, Any], headers: list[tuple[bytes, bytes]] | None = None) -> None:
        """Answer with a JSON object."""
        content = json.dumps(body, ensure_ascii=False).encode()
        head = [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(content)).encode()),
            (b"cache-control", b"no-store"),
            *(headers or []),
        ]
        await self.whole(status, head, content)

    async def whole(self, status: int, headers: list[tuple[bytes, bytes]], content: bytes) -> None:
        """Answer with a body that is there in one piece."""
        self.status = status
        await self._send({"type": "http.response.start", "status": status, "headers": headers})
        await self._send({"type": "http.response.body", "body": content})


class _Security:
    """Host and Origin checks, before anything else is looked at: against DNS rebinding and foreign pages."""

    def __init__(self, settings: Settings) -> None:
        self._hosts = settings.allowed_hosts
        self._origins = settings.allowed_origins

    def check(self, headers: list[tuple[bytes, bytes]]) -> tuple[int, dict[str, Any]] | None:
        """The refusal that these headers earn, or None."""
        hosts = [value.decode("latin-1").lower() for name, value in headers if name == b"host"]
        if len(hosts) != 1 or not _listed(hosts[0], self._hosts):
            return 421, {
                "error": "misdirected request",
                "message": "Unknown Host; set ALLOWED_HOSTS to serve it.",
            }
        for name, value in headers:
            if name == b"origin" and not _listed(value.decode("latin-1").lower(), self._origins):
                return 403, {
                    "error": "forbidden origin",
                    "message": "Unknown Origin; set ALLOWED_ORIGINS to serve it.",
                }
        return None


def _listed(value: str, patterns: tuple[str, ...]) -> bool:
    if without_default_port(value) in patterns:
        return True
    base, separator, port = value.rpartition(":")
    return bool(separator) and port.isdigit() and f"{base}:*" in patterns
