"""Reading the body of a request within bounds of size and time."""

import asyncio
from collections.abc import Mapping
from typing import Any

from mcp_gateway.http_responses import Receive

# The server's ASGI extension with a body that arrived together with its head: {"body": bytes}.
COMPLETE_BODY_EXTENSION = "llm_bus.complete_body"

# Agents send small bodies in one piece; a slower client is not an agent.
_TIMEOUT_SECONDS = 30
# A body up to this many times the limit is read and discarded before it is refused.
_MAX_DISCARDED_FACTOR = 8


class BodyReader:
    """Reads bodies up to a size.

    Args:
        max_bytes: the size; larger bodies are discarded.
    """

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes

    async def read(self, scope: Mapping[str, Any], receive: Receive) -> bytes | None:
        """Return a body; None if it is too large, too slow, or the client disconnected."""
        # A body that is there already needs no timeout, which would cost as much as the rest of reading it.
        extensions = scope.get("extensions")
        if extensions and COMPLETE_BODY_EXTENSION in extensions:
            body: bytes = extensions[COMPLETE_BODY_EXTENSION]["body"]
            return body if len(body) <= self.max_bytes else None
        if _declares_more(scope, self.max_bytes):
            return None
        return await self._read(receive, self.max_bytes)

    async def discard(self, scope: Mapping[str, Any], receive: Receive) -> bool:
        """Discard a body, and return whether there was none.

        It is read to its end, up to a bound: a client that is still sending does not see a response that closes the
        connection. A body that is declared to be too large is not waited for.
        """
        return not _declares_more(scope, self.max_bytes) and await self._read(receive, 0) is not None

    async def _read(self, receive: Receive, limit: int) -> bytes | None:
        chunks: list[bytes] = []
        size = 0
        try:
            async with asyncio.timeout(_TIMEOUT_SECONDS):
                while size <= _MAX_DISCARDED_FACTOR * self.max_bytes:
                    message = await receive()
                    if message["type"] != "http.request":
                        return None
                    chunk = message.get("body", b"")
                    size += len(chunk)
                    if size <= limit:
                        chunks.append(chunk)
                    if not message.get("more_body", False):
                        return b"".join(chunks) if size <= limit else None
        except TimeoutError:
            return None
        return None


def _declares_more(scope: Mapping[str, Any], max_bytes: int) -> bool:
    """Whether a request declares a body of more than so many bytes; the server refuses malformed lengths."""
    declared = next((value for name, value in scope["headers"] if name == b"content-length"), b"0")
    return declared.isdigit() and int(declared[:20]) > max_bytes
