"""The Flask application as an ASGI application: requests run in threads, board streams on the event loop."""

from flask import Flask
from hypercorn.middleware import AsyncioWSGIMiddleware

from bus.config.settings import Settings
from webapp.http_server import use_http1_only
from webapp.streams import BoardStreams, Message, Receive, Scope, Send


class WebApplication:
    """The web process as an ASGI application."""

    def __init__(self, app: Flask, settings: Settings) -> None:
        use_http1_only()
        # Flask answers an oversized body with 413; hypercorn would answer with an empty 400.
        self._wsgi = AsyncioWSGIMiddleware(app, 16 * settings.max_body_bytes)
        self._max_body_bytes = settings.max_body_bytes
        self._streams = BoardStreams(app, settings)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request."""
        if scope["type"] == "http":
            # WSGI cannot distinguish X_Email from X-Email, and a proxy that strips one may pass the other.
            headers = [(name, value) for name, value in scope["headers"] if b"_" not in name]
            scope = {**scope, "headers": headers}
            if self._streams.is_stream_request(scope) and await self._streams.serve(scope, receive, send):
                return
            if _declared_length(headers) > self._max_body_bytes:
                # Flask refuses it by the declared length, so nothing is read; hypercorn then closes the connection.
                receive = _receive_nothing
        await self._wsgi(scope, receive, send)  # type: ignore[arg-type]

    def drain(self) -> None:
        """Close open streams, which would delay the shutdown."""
        self._streams.close_all()


def _declared_length(headers: list[tuple[bytes, bytes]]) -> int:
    declared = next((value for name, value in headers if name == b"content-length"), b"0")
    return int(declared[:20]) if declared.isdigit() else 0


async def _receive_nothing() -> Message:
    return {"type": "http.request", "body": b"", "more_body": False}
