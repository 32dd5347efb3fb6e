"""One HTTP response on its way out: whole or in parts, with the request's id, and without a right to it replaced."""

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from mcp_gateway.caller import Caller
from mcp_gateway.http_responses import HttpResponse, denial_response, request_id_header

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


class ResponseSender:
    """Sends one response, and replaces it if the caller turns out to have no right to it.

    The SDK sends the headers of a stream before the handler ran, so the start is held back until the first part
    of the body: by then the handler's own statement has said whether the token is good.
    """

    def __init__(self, send: Send, request_id: str) -> None:
        self._send = send
        self._request_id_header = request_id_header(request_id)
        self._pending_start: Message | None = None
        self._is_replaced = False
        self.caller: Caller | None = None
        self.status = 0

    async def __call__(self, message: Message) -> None:
        if self._is_replaced:
            return
        if message["type"] == "http.response.start":
            self._pending_start = message
            return
        if self.caller is not None and self.caller.denied_status is not None and self._pending_start is not None:
            self._pending_start = None
            await self.send_response(denial_response(self.caller.denied_status))
            self._is_replaced = True
            return
        if self._pending_start is not None:
            start, self._pending_start = self._pending_start, None
            self.status = start["status"]
            await self._send({**start, "headers": [*start["headers"], self._request_id_header]})
        await self._send(message)

    async def send_response(self, response: HttpResponse) -> None:
        """Answer with a body that is there in one piece."""
        self.status = response.status
        headers = [*response.headers, self._request_id_header]
        await self._send({"type": "http.response.start", "status": response.status, "headers": headers})
        await self._send({"type": "http.response.body", "body": response.body})


def replay_body(body: bytes, receive: Receive) -> Receive:
    """A `receive` that gives the body that was read already, and then what comes after it."""
    unread: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replay() -> Message:
        return unread.pop() if unread else await receive()

    return replay
