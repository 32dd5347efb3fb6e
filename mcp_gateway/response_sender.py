"""One HTTP response on its way out: whole or in parts, with the request's id, and without a right to it replaced."""

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from mcp_gateway.caller import Caller
from mcp_gateway.http_responses import Reply, denial, id_header

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


class Response:
    """Sends one response, and replaces it if the caller turns out to have no right to it.

    The SDK sends the headers of a stream before the handler ran, so the start is held back until the first part
    of the body: by then the handler's own statement has said whether the token is good.
    """

    def __init__(self, send: Send, request_id: str) -> None:
        self._send = send
        self._id = id_header(request_id)
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
            await self.whole(denial(self.caller.denied))
            self._replaced = True
            return
        if self._start is not None:
            start, self._start = self._start, None
            self.status = start["status"]
            await self._send({**start, "headers": [*start["headers"], self._id]})
        await self._send(message)

    async def whole(self, reply: Reply) -> None:
        """Answer with a body that is there in one piece."""
        self.status = reply.status
        headers = [*reply.headers, self._id]
        await self._send({"type": "http.response.start", "status": reply.status, "headers": headers})
        await self._send({"type": "http.response.body", "body": reply.body})


def replayed(body: bytes, receive: Receive) -> Receive:
    """A `receive` that gives the body that was read already, and then what comes after it."""
    unread: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replay() -> Message:
        return unread.pop() if unread else await receive()

    return replay
