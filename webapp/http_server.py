"""hypercorn as the web's HTTP server: HTTP/1.1 only, and no request that a proxy in front could understand differently.

hypercorn changes to HTTP/2 on a connection without TLS when a client asks for it, which bypasses the rules of a proxy
that checked only the first request; and h11 ignores a Content-Length beside a Transfer-Encoding.
"""

from typing import Any

import h11
import hypercorn.protocol
from hypercorn.events import Closed
from hypercorn.protocol.h11 import H11Protocol


class Http1Protocol(H11Protocol):
    """One connection, which stays HTTP/1.1 for its life."""

    _is_refused = False

    async def _check_protocol(self, event: h11.Request) -> None:
        """Refuse an ambiguous request, and close the connection; a request to upgrade to HTTP/2 is ignored."""
        names = [name.lower() for name, _ in event.headers]
        is_ambiguous = b"transfer-encoding" in names and b"content-length" in names
        if is_ambiguous or event.http_version not in (b"1.0", b"1.1"):
            self._is_refused = True
            await self._send_error_response(400)
            await self.send(Closed())

    async def _create_stream(self, request: h11.Request) -> None:
        if not self._is_refused:
            await super()._create_stream(request)


def use_http1_only() -> None:
    """Make hypercorn use this protocol; it has no setting for it."""
    module: Any = hypercorn.protocol
    module.H11Protocol = Http1Protocol
