"""One blocking connection for scenarios that make one call at a time: growth, context, idle agents."""

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
    """One answer: its HTTP status, its body, and how long it took from the first byte sent to the last one read."""

    status: int
    body: bytes
    seconds: float

    @cached_property
    def result(self) -> dict[str, Any]:
        """The result of the JSON-RPC message; anything else ends the benchmark."""
        require(self.status == 200, f"status {self.status}: {self.body[:600]!r}")
        said = parse_message(self.body)
        require("result" in said and not said["result"].get("isError"), f"refused: {self.body[:600]!r}")
        found: dict[str, Any] = said["result"]
        return found

    @property
    def structured_content(self) -> dict[str, Any]:
        """What a tool answered, as an object."""
        found: dict[str, Any] = self.result["structuredContent"]
        return found

    @property
    def text(self) -> str:
        """What a tool answered, as the text that an agent holds in its context."""
        return str(self.result["content"][0]["text"])


class Client:
    """A kept connection of one agent; closes with its `with` block."""

    def __init__(self, address: Address, token: str, era: str = MODERN) -> None:
        self._address, self._token, self._era = address, token, era
        self._socket = socket.create_connection((address.host, address.port), _TIMEOUT_SECONDS)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._socket.close()

    def call(self, tool: str, /, **arguments: Any) -> Response:
        """Call a tool."""
        return self.send(build_tool_call(self._address, self._token, tool, self._era, **arguments))

    def request(self, method: str, **params: Any) -> Response:
        """Send any other request."""
        return self.send(build_request(self._address, self._token, method, params, era=self._era))

    def send(self, content: bytes) -> Response:
        """Send prebuilt bytes and read the whole answer."""
        started = time.perf_counter()
        self._socket.sendall(content)
        received = self._socket.recv(65_536)
        while not is_complete_response(received):
            more = self._socket.recv(1 << 20)
            require(bool(more), f"the connection was closed in the middle of an answer: {received[:300]!r}")
            received += more
        seconds = time.perf_counter() - started
        return Response(*parse_response(received), seconds)
