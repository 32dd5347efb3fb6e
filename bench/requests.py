"""The bytes of a tool call, built once and sent many times, in both eras of the protocol.

The requests are those of tests/mcp_gateway/mcp_client.py; here they cost nothing while the clock runs.
"""

import json
import re
from dataclasses import dataclass
from typing import Any

MODERN, LEGACY = "modern", "legacy"
ERAS = (MODERN, LEGACY)
_PROTOCOL_VERSION = "2026-07-28"
_REQUEST_META = {
    "io.modelcontextprotocol/protocolVersion": _PROTOCOL_VERSION,
    "io.modelcontextprotocol/clientCapabilities": {},
}


@dataclass(frozen=True, slots=True)
class Address:
    """Where a server listens: a loopback host and a port."""

    host: str
    port: int


def build_request(
    address: Address, token: str, method: str, params: dict[str, Any], *, era: str = MODERN, name: str = ""
) -> bytes:
    """One JSON-RPC request as HTTP/1.1 on a connection that is kept.

    Args:
        name: what the modern era mirrors in `Mcp-Name`: the tool, the prompt or the resource; empty for none.
    """
    lines = [
        "POST /mcp HTTP/1.1",
        f"Host: {address.host}:{address.port}",
        f"Authorization: Bearer {token}",
        "Accept: application/json, text/event-stream",
        "Content-Type: application/json",
    ]
    if era == MODERN:
        params = {**params, "_meta": _REQUEST_META}
        lines += [f"MCP-Protocol-Version: {_PROTOCOL_VERSION}", f"Mcp-Method: {method}"]
        if name:
            lines.append(f"Mcp-Name: {name}")
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).encode()
    lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def build_tool_call(address: Address, token: str, tool: str, /, era: str = MODERN, **arguments: Any) -> bytes:
    """A `tools/call` request."""
    return build_request(address, token, "tools/call", {"name": tool, "arguments": arguments}, era=era, name=tool)


_CONTENT_LENGTH_PATTERN = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_LAST_CHUNK = b"\r\n0\r\n\r\n"


def is_complete_response(response: bytes) -> bool:
    """Whether these bytes are a whole HTTP answer. Nothing is pipelined, so it cannot be more than one.

    The text of an answer is JSON, which holds no bare line break, so a chunk cannot end like the last one.
    """
    end = response.find(b"\r\n\r\n")
    if end < 0:
        return False
    length = _CONTENT_LENGTH_PATTERN.search(response, 0, end + 2)
    if length is not None:
        return len(response) >= end + 4 + int(length.group(1))
    return response.endswith(_LAST_CHUNK)


def is_successful_response(response: bytes) -> bool:
    """Whether a whole answer is the success of a call: status 200, a result, and no error of a tool."""
    return (
        response.startswith(b"HTTP/1.1 200")
        and b'"result"' in response
        and b'"isError":true' not in response
        and b'"isError": true' not in response
    )


def parse_response(response: bytes) -> tuple[int, bytes]:
    """The status and the body of a whole answer, chunks put together."""
    head, _, rest = response.partition(b"\r\n\r\n")
    status = int(head.split(b" ", 2)[1])
    if _CONTENT_LENGTH_PATTERN.search(head + b"\r\n"):
        return status, rest
    body = b""
    while True:
        size_line, _, rest = rest.partition(b"\r\n")
        size = int(size_line, 16)
        if size == 0:
            return status, body
        body += rest[:size]
        rest = rest[size + 2 :]


def parse_message(body: bytes) -> dict[str, Any]:
    """The JSON-RPC message in a body, whether it came as JSON or as a stream of one event."""
    text = body.decode()
    if not text.startswith("{"):
        text = "".join(line[5:] for line in text.splitlines() if line.startswith("data:"))
    found: dict[str, Any] = json.loads(text)
    return found
