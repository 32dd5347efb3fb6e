"""The Flask application as an ASGI one: in threads, and with headers that mean one thing only."""

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from flask import Flask
from hypercorn.middleware import AsyncioWSGIMiddleware

from bus.settings import Settings
from webapp.boards import Looks

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


class Web:
    """The web for an ASGI server."""

    def __init__(self, app: Flask, settings: Settings) -> None:
        # Flask answers a body over the limit with 413; the server would cut it off with an empty 400.
        self._wsgi = AsyncioWSGIMiddleware(app, 16 * settings.max_body_bytes)
        self._looks = Looks(app, settings)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            # WSGI cannot tell X_Email from X-Email, and a proxy that removes the one may let the other through.
            headers = [(name, value) for name, value in scope["headers"] if b"_" not in name]
            scope = {**scope, "headers": headers}
            if self._looks.is_look(scope["method"], scope["path"], headers):
                loop = asyncio.get_running_loop()
                answer = await loop.run_in_executor(None, self._looks.look, scope["path"], headers)
                if answer is not None:
                    await send({"type": "http.response.start", "status": answer.status, "headers": answer.headers})
                    await send({"type": "http.response.body", "body": answer.body})
                    return
        await self._wsgi(scope, receive, send)  # type: ignore[arg-type]
