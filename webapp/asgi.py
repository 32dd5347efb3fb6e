"""The Flask application as an ASGI application: requests run in threads, board streams on the event loop."""

import asyncio
import contextlib

from flask import Flask
from hypercorn.middleware import AsyncioWSGIMiddleware

from bus.config.settings import Settings
from webapp.http_server import use_http1_only
from webapp.streams import BoardStreams, Message, Receive, Scope, Send

# The time in which a client may send the body that was refused.
_DISCARD_SECONDS = 2.0
_HEALTH_PATHS = ("/healthz", "/readyz")


class WebApplication:
    """The web process as an ASGI application."""

    def __init__(self, app: Flask, settings: Settings) -> None:
        use_http1_only()
        # Flask answers an oversized body with 413; hypercorn would answer with an empty 400.
        self._wsgi = AsyncioWSGIMiddleware(app, 16 * settings.max_body_bytes)
        self._max_body_bytes = settings.max_body_bytes
        self._streams = BoardStreams(app, settings)
        self._is_draining = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request."""
        if scope["type"] == "http":
            # WSGI cannot distinguish X_Email from X-Email, and a proxy that strips one may pass the other.
            headers = [(name, value) for name, value in scope["headers"] if b"_" not in name]
            scope = {**scope, "headers": headers}
            if self._is_draining:
                send = _closing_connection(send)
                if scope["path"] in _HEALTH_PATHS:
                    await _fail_health_check(send)
                    return
            if self._streams.is_stream_request(scope) and await self._streams.serve(scope, receive, send):
                return
            if _declared_length(headers) > self._max_body_bytes:
                await self._refuse_oversized(scope, receive, send)
                return
        await self._wsgi(scope, receive, send)  # type: ignore[arg-type]

    def begin_drain(self) -> None:
        """Fail the health checks, and close each connection with its next answer; requests are still answered."""
        self._is_draining = True

    def drain(self) -> None:
        """Close open streams, which would delay the shutdown."""
        self._streams.close_all()

    async def _refuse_oversized(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send Flask's refusal before the body is read, then discard the body and end the response.

        A connection that is closed while the client sends may lose the answer.
        """

        async def send_unfinished(message: Message) -> None:
            await send({**message, "more_body": True} if message["type"] == "http.response.body" else message)

        # Flask refuses it by the declared length.
        await self._wsgi(scope, _receive_nothing, send_unfinished)  # type: ignore[arg-type]
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_DISCARD_SECONDS):
                await _discard_body(receive, 16 * self._max_body_bytes)
        await send({"type": "http.response.body", "body": b"", "more_body": False})


def _closing_connection(send: Send) -> Send:
    """Return a `send` whose responses close the connection."""

    async def send_and_close(message: Message) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message["headers"], (b"connection", b"close")]}
        await send(message)

    return send_and_close


async def _fail_health_check(send: Send) -> None:
    body = b'{"ok":false,"draining":true}'
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 503, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": False})


async def _discard_body(receive: Receive, max_bytes: int) -> None:
    size = 0
    while size <= max_bytes:
        message = await receive()
        if message["type"] != "http.request" or not message.get("more_body", False):
            return
        size += len(message["body"])


def _declared_length(headers: list[tuple[bytes, bytes]]) -> int:
    declared = next((value for name, value in headers if name == b"content-length"), b"0")
    return int(declared[:20]) if declared.isdigit() else 0


async def _receive_nothing() -> Message:
    return {"type": "http.request", "body": b"", "more_body": False}
