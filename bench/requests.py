"""Prebuilt HTTP requests of tool calls, and parsers of the responses, in both protocol eras.

The requests equal those of tests/mcp_gateway/mcp_client.py, but are built before the measurement starts.
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
    """The address of a server: a loopback host and a port."""

    host: str
    port: int


def build_request(
    address: Address, token: str, method: str, params: dict[str, Any], *, era: str = MODERN, name: str = ""
) -> bytes:
    """Build a JSON-RPC request as HTTP/1.1 for a persistent connection.

    Args:
        address: the server.
        token: the bearer token.
        method: the JSON-RPC method.
        params: its parameters.
        era: MODERN or LEGACY.
        name: the value of `Mcp-Name` in the modern era: the tool, the prompt or the resource; empty for none.
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
    """Build a `tools/call` request."""
    return build_request(address, token, "tools/call", {"name": tool, "arguments": arguments}, era=era, name=tool)


_CONTENT_LENGTH_PATTERN = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_LAST_CHUNK = b"\r\n0\r\n\r\n"


def is_complete_response(response: bytes) -> bool:
    """Whether these bytes are a whole HTTP response. Without pipelining it cannot be more than one.

    The text of a response is JSON without bare line breaks, so no other chunk ends like the last one.
    """
    end = response.find(b"\r\n\r\n")
    if end < 0:
        return False
    length = _CONTENT_LENGTH_PATTERN.search(response, 0, end + 2)
    if length is not None:
        return len(response) >= end + 4 + int(length.group(1))
    return response.endswith(_LAST_CHUNK)


def is_successful_response(response: bytes) -> bool:
    """Whether a whole response is a success: status 200, a result, and no tool error."""
    return (
        response.startswith(b"HTTP/1.1 200")
        and b'"result"' in response
        and b'"isError":true' not in response
        and b'"isError": true' not in response
    )


def is_refusal(response: bytes) -> bool:
    """Whether a whole response is a tool error: the engine refused the call."""
    return response.startswith(b"HTTP/1.1 200") and b'"isError":true' in response


def parse_response(response: bytes) -> tuple[int, bytes]:
    """Parse a whole response into its status and its body, with chunks joined."""
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
    """Parse the JSON-RPC message in a body, which is JSON or a stream of one event."""
    text = body.decode()
    if not text.startswith("{"):
        text = "".join(line[5:] for line in text.splitlines() if line.startswith("data:"))
    message: dict[str, Any] = json.loads(text)
    return message
