"""HTTP responses: complete ones with their documented bodies, and the sender that passes them to the ASGI server."""

import json
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from typing import Any

from bus import scopes
from bus.scopes import DEFAULT_CLIENT_SCOPE, Scope
from mcp_gateway.caller import Caller
from mcp_gateway.denials import RequestDenied, advise_scope

Headers = list[tuple[bytes, bytes]]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

_RETRY_AFTER_SECONDS = {429: "1", 503: "2"}
_DENIAL_BODIES = {
    401: {
        "error": "unauthorized",
        "message": "Send a live token as Authorization: Bearer lbus_…; an owner or project-admin mints one.",
    },
    403: {"error": "suspended due to non-payment"},
    429: {"error": "rate limited", "message": "Too many calls with this token; wait as Retry-After says."},
    # For the log and the metrics: the client is not there to read it.
    499: {"error": "disconnected"},
    503: {
        "error": "unavailable",
        "message": "The bus cannot answer just now; try again as Retry-After says.",
    },
}


@dataclass(frozen=True, slots=True)
class HttpResponse:
    """A complete HTTP response."""

    status: int
    headers: Headers
    body: bytes


def json_response(status: int, body: dict[str, Any], headers: Headers | None = None) -> HttpResponse:
    """Build a response with a JSON object as its body.

    Args:
        status: the HTTP status.
        body: the object.
        headers: headers in addition to those of the content.
    """
    content = json.dumps(body, ensure_ascii=False).encode()
    all_headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(content)).encode()),
        (b"cache-control", b"no-store"),
        *(headers or []),
    ]
    return HttpResponse(status, all_headers, content)


def denial_response(denied: RequestDenied, *, close_connection: bool = False) -> HttpResponse:
    """Build a 401, 403, 429, 499 or 503 with its documented body.

    Args:
        denied: why.
        close_connection: whether to close the connection, because the request was not read to its end.
    """
    headers = [(b"connection", b"close")] if close_connection else []
    if denied.needed_scope is not None:
        return _insufficient_scope_response(denied.needed_scope, headers)
    if denied.status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    if denied.status in _RETRY_AFTER_SECONDS:
        headers.append((b"retry-after", _RETRY_AFTER_SECONDS[denied.status].encode()))
    return json_response(denied.status, _DENIAL_BODIES[denied.status], headers)


def _insufficient_scope_response(needed: Scope, headers: Headers) -> HttpResponse:
    """Build the 403 of RFC 6750, 3.1. It names all scopes that the client should ask for, with those that it has."""
    advice = advise_scope(needed)
    body = {"error": "insufficient_scope", "message": advice[0].upper() + advice[1:], "scope": scopes.to_oauth(needed)}
    challenge = f'Bearer error="insufficient_scope", scope="{scopes.to_oauth(needed)}"'
    return json_response(403, body, [*headers, (b"www-authenticate", challenge.encode())])


class ResponseSender:
    """Sends one response with the request's id, and replaces it with a denial if the caller was denied meanwhile.

    The SDK sends the headers of a stream before the handler runs, so the start is held back until the first part of the
    body: by then the handler's own statement has checked the token.

    Args:
        send: of the ASGI server.
        request_id: becomes a header.
        resource_metadata_url: added to challenges; there clients find the authorization server. None if there is none.
    """

    def __init__(self, send: Send, request_id: str, resource_metadata_url: str | None = None) -> None:
        self._send = send
        self._resource_metadata_url = resource_metadata_url
        self._added_headers: Headers = [(b"x-request-id", request_id.encode())]
        self._pending_start: Message | None = None
        self._is_replaced = False
        self.caller: Caller | None = None
        self.status = 0
        self.is_complete = False

    def add_headers(self, headers: Headers) -> None:
        """Add headers to the response, whatever it will be."""
        self._added_headers = [*self._added_headers, *headers]

    async def __call__(self, message: Message) -> None:
        """Send one ASGI message of the response."""
        if self._is_replaced:
            return
        if message["type"] == "http.response.start":
            self._pending_start = message
            return
        if self.caller is not None and self.caller.denied is not None and self._pending_start is not None:
            self._pending_start = None
            await self.send_response(denial_response(self.caller.denied))
            self._is_replaced = True
            return
        if self._pending_start is not None:
            start, self._pending_start = self._pending_start, None
            self.status = start["status"]
            await self._send({**start, "headers": [*start["headers"], *self._added_headers]})
        await self._send(message)
        self.is_complete = not message.get("more_body", False)

    async def start_stream(self, headers: Headers) -> None:
        """Begin a response of status 200 that is sent in chunks."""
        self.status = 200
        await self._send({"type": "http.response.start", "status": 200, "headers": [*headers, *self._added_headers]})

    async def send_chunk(self, chunk: bytes, *, is_last: bool = False) -> None:
        """Send a part of a stream."""
        await self._send({"type": "http.response.body", "body": chunk, "more_body": not is_last})
        self.is_complete = is_last

    async def send_response(self, response: HttpResponse) -> None:
        """Send a complete response."""
        self.status = response.status
        headers = [*response.headers, *self._added_headers]
        if response.status in (401, 403):
            headers = [
                (name, self._extend_challenge(value) if name == b"www-authenticate" else value)
                for name, value in headers
            ]
        await self._send({"type": "http.response.start", "status": response.status, "headers": headers})
        await self._send({"type": "http.response.body", "body": response.body})
        self.is_complete = True

    def _extend_challenge(self, challenge: bytes) -> bytes:
        """Add to a challenge where clients find the authorization server, and what they should ask it for."""
        if self._resource_metadata_url is None:
            return challenge
        address = f'resource_metadata="{self._resource_metadata_url}"'
        if challenge == b"Bearer":
            return f'Bearer {address}, scope="{scopes.to_oauth(DEFAULT_CLIENT_SCOPE)}"'.encode()
        return challenge + f", {address}".encode()


def replay_body(body: bytes, receive: Receive) -> Receive:
    """Return a `receive` that yields a body that was already read, and then the messages after it."""
    unread: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replay() -> Message:
        return unread.pop() if unread else await receive()

    return replay
