"""Cross-origin access of browsers (CORS): preflights, and the headers that show answers to pages of allowed origins.

HostOriginPolicy has refused other origins before. Credentials are never allowed: the token is a header that the page
sets itself, and no answer depends on a cookie.
"""

import re
from typing import Final

from mcp_gateway.http_responses import Headers, HttpResponse

ALLOWED_METHODS: Final = "POST"
ALLOWED_REQUEST_HEADERS: Final = (
    "Accept, Authorization, Content-Type, Last-Event-ID, MCP-Protocol-Version, Mcp-Method, Mcp-Name, Mcp-Session-Id, "
    "traceparent, tracestate, X-Bus-Session, X-Request-Id"
)
EXPOSED_RESPONSE_HEADERS: Final = "Retry-After, WWW-Authenticate, X-Request-Id"
_PREFLIGHT_SECONDS: Final = 7200
# Revision 2026-07-28 mirrors arguments into headers of this form.
_PARAMETER_HEADER: Final = re.compile(r"mcp-param-[a-z0-9_-]{1,64}")


def cors_headers(headers: Headers) -> Headers:
    """Return the response headers for a request of an allowed origin; none for a request without an Origin."""
    origin = _find(headers, b"origin")
    if origin is None:
        return []
    return [
        (b"access-control-allow-origin", origin),
        (b"access-control-expose-headers", EXPOSED_RESPONSE_HEADERS.encode()),
        (b"vary", b"Origin"),
    ]


def answer_preflight(method: str, headers: Headers) -> HttpResponse | None:
    """Return the response to a preflight request of an allowed origin; None for every other request."""
    if method != "OPTIONS" or _find(headers, b"origin") is None or not _find(headers, b"access-control-request-method"):
        return None
    requested = (_find(headers, b"access-control-request-headers") or b"").decode("latin-1").lower().split(",")
    mirrored = [name for name in map(str.strip, requested) if _PARAMETER_HEADER.fullmatch(name)]
    allowed = ", ".join([ALLOWED_REQUEST_HEADERS, *mirrored])
    answer = [
        (b"access-control-allow-methods", ALLOWED_METHODS.encode()),
        (b"access-control-allow-headers", allowed.encode()),
        (b"access-control-max-age", str(_PREFLIGHT_SECONDS).encode()),
    ]
    # A page of the Internet that calls a bus on this machine or in this network.
    if _find(headers, b"access-control-request-private-network") == b"true":
        answer.append((b"access-control-allow-private-network", b"true"))
    return HttpResponse(204, answer, b"")


def _find(headers: Headers, name: bytes) -> bytes | None:
    return next((value for header_name, value in headers if header_name == name), None)
