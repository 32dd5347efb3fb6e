"""The Flask application as an ASGI one: in threads, and with headers that mean one thing only."""

from flask import Flask
from hypercorn.middleware import AsyncioWSGIMiddleware

from bus.config.settings import Settings
from webapp.streams import BoardStreams, Receive, Scope, Send


class WebApplication:
    """The web for an ASGI server."""

    def __init__(self, app: Flask, settings: Settings) -> None:
        # Flask answers a body over the limit with 413; the server would cut it off with an empty 400.
        self._wsgi = AsyncioWSGIMiddleware(app, 16 * settings.max_body_bytes)
        self._streams = BoardStreams(app, settings)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            # WSGI cannot tell X_Email from X-Email, and a proxy that removes the one may let the other through.
            headers = [(name, value) for name, value in scope["headers"] if b"_" not in name]
            scope = {**scope, "headers": headers}
            if self._streams.is_stream_request(scope) and await self._streams.serve(scope, receive, send):
                return
        await self._wsgi(scope, receive, send)  # type: ignore[arg-type]

    def drain(self) -> None:
        """End what would hold the process up when it is told to stop: open streams."""
        self._streams.close_all()
