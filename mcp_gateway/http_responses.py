"""Whole HTTP answers: a status, its headers and a body that is there in one piece."""

import json
from dataclasses import dataclass
from typing import Any

Headers = list[tuple[bytes, bytes]]

_RETRY_AFTER_SECONDS = {429: "1", 503: "2"}
_DENIAL_BODIES = {
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


@dataclass(frozen=True, slots=True)
class HttpResponse:
    """One HTTP answer."""

    status: int
    headers: Headers
    body: bytes


def request_id_header(request_id: str) -> tuple[bytes, bytes]:
    """The header that says which request an answer is for."""
    return (b"x-request-id", request_id.encode())


def json_response(status: int, body: dict[str, Any], headers: Headers | None = None) -> HttpResponse:
    """A JSON object, with headers of its own where it has some."""
    content = json.dumps(body, ensure_ascii=False).encode()
    head = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(content)).encode()),
        (b"cache-control", b"no-store"),
        *(headers or []),
    ]
    return HttpResponse(status, head, content)


def denial_response(status: int, *, close_connection: bool = False) -> HttpResponse:
    """401, 403, 429 or 503 with its documented body; `close` where the request was not read to its end."""
    headers = [(b"connection", b"close")] if close_connection else []
    if status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    if status in _RETRY_AFTER_SECONDS:
        headers.append((b"retry-after", _RETRY_AFTER_SECONDS[status].encode()))
    return json_response(status, _DENIAL_BODIES[status], headers)
