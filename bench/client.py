"""A blocking client for scenarios that make one call at a time: growth, context, idle agents."""

import socket
import time
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from bench.checks import require
from bench.requests import (
    MODERN,
    Address,
    build_request,
    build_tool_call,
    is_complete_response,
    parse_message,
    parse_response,
)

_TIMEOUT_SECONDS = 30.0


@dataclass(frozen=True)
class Response:
    """A response: HTTP status, body, and the seconds from the first byte sent to the last byte read."""

    status: int
    body: bytes
    seconds: float

    @cached_property
    def result(self) -> dict[str, Any]:
        """The result of the JSON-RPC message; an error ends the benchmark."""
        require(self.status == 200, f"status {self.status}: {self.body[:600]!r}")
        message = parse_message(self.body)
        require("result" in message and not message["result"].get("isError"), f"refused: {self.body[:600]!r}")
        result: dict[str, Any] = message["result"]
        return result

    @property
    def structured_content(self) -> dict[str, Any]:
        """The result of a tool as an object."""
        content: dict[str, Any] = self.result["structuredContent"]
        return content

    @property
    def text(self) -> str:
        """The result of a tool as the text that enters an agent's context."""
        return str(self.result["content"][0]["text"])


class Client:
    """A persistent connection of one agent; a context manager that closes it."""

    def __init__(self, address: Address, token: str, era: str = MODERN) -> None:
        self._address, self._token, self._era = address, token, era
        self._socket = socket.create_connection((address.host, address.port), _TIMEOUT_SECONDS)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()

    def call(self, tool: str, /, **arguments: Any) -> Response:
        """Call a tool."""
        return self.send(build_tool_call(self._address, self._token, tool, self._era, **arguments))

    def request(self, method: str, **params: Any) -> Response:
        """Send a request for any method."""
        return self.send(build_request(self._address, self._token, method, params, era=self._era))

    def send(self, content: bytes) -> Response:
        """Send prebuilt bytes and read the whole response."""
        started_at = time.perf_counter()
        self._socket.sendall(content)
        received = self._socket.recv(65_536)
        while not is_complete_response(received):
            chunk = self._socket.recv(1 << 20)
            require(bool(chunk), f"the server closed the connection during a response: {received[:300]!r}")
            received += chunk
        seconds = time.perf_counter() - started_at
        return Response(*parse_response(received), seconds)
