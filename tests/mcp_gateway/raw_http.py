"""Raw requests, in the form that clients send and in unusual forms, and a connection to send them on."""

import json
import select
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import h11

from tests.mcp_gateway.mcp_client import ACCEPT, MODERN
from tests.mcp_gateway.processes import GatewayProcess

_TIMEOUT_SECONDS = 120.0


def build_head(token: str, length: int, version: str | None = MODERN, *more: str, tool: str = "whoami") -> bytes:
    lines = [
        "POST /mcp HTTP/1.1",
        "Host: localhost",
        f"Authorization: Bearer {token}",
        f"Accept: {ACCEPT}",
        "Content-Type: application/json",
        *(
            [f"MCP-Protocol-Version: {version}", "Mcp-Method: tools/call", f"Mcp-Name: {tool}"]
            if version == MODERN
            else []
        ),
        *([f"MCP-Protocol-Version: {version}"] if version not in (None, MODERN) else []),
        *([f"Content-Length: {length}"] if length >= 0 else []),
        *more,
    ]
    return "\r\n".join(lines).encode() + b"\r\n\r\n"


def build_body(version: str | None = MODERN, tool: str = "whoami", **arguments: Any) -> bytes:
    params: dict[str, Any] = {"name": tool, "arguments": arguments}
    if version == MODERN:
        params["_meta"] = {
            "io.modelcontextprotocol/protocolVersion": MODERN,
            "io.modelcontextprotocol/clientCapabilities": {},
        }
    return json.dumps({"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": params}).encode()


def build_tool_call(token: str, version: str | None = MODERN, tool: str = "whoami", **arguments: Any) -> bytes:
    body = build_body(version, tool, **arguments)
    return build_head(token, len(body), version, tool=tool) + body


@dataclass
class RawConnection:
    """One connection, read with h11's client."""

    socket: socket.socket
    parser: h11.Connection = field(default_factory=lambda: h11.Connection(h11.CLIENT))

    def exchange(self, *pieces: bytes, response_count: int = 1, method: str = "POST") -> list[Any]:
        """Send bytes piece by piece and return `response_count` responses, or fewer if the server closed."""
        for number, piece in enumerate(pieces):
            if number:
                # A refusal may come before the last piece.
                select.select([self.socket], [], [], 0.03)
            self.socket.sendall(piece)
        return [response for _ in range(response_count) if (response := self._read_response(method)) is not None]

    def assert_silent(self, seconds: float) -> None:
        """Require that the server sends nothing and keeps the connection open for so long."""
        readable, _, _ = select.select([self.socket], [], [], seconds)
        assert not readable, self.socket.recv(4096, socket.MSG_PEEK)

    def _read_response(self, method: str) -> Any:
        http = self.parser
        # h11 parses a response only after a request.
        http.send(h11.Request(method=method, target="/mcp", headers=[("host", "x")]))
        http.send(h11.EndOfMessage())
        head, body = None, b""
        while True:
            event = http.next_event()
            if event is h11.NEED_DATA:
                try:
                    http.receive_data(self.socket.recv(65536))
                except ConnectionError:
                    http.receive_data(b"")
            elif isinstance(event, h11.InformationalResponse):
                assert event.status_code == 100
            elif isinstance(event, h11.Response):
                head = event
            elif isinstance(event, h11.Data):
                body += bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                assert head is not None
                if http.states[h11.SERVER] is h11.DONE:
                    http.start_next_cycle()
                # The time and the request id differ in each response.
                headers = [
                    (name, b"*" if name == b"x-request-id" else value)
                    for name, value in head.headers.raw_items()
                    if name != b"date"
                ]
                return head.status_code, headers, body
            else:
                return None

    def is_open(self, token: str) -> bool:
        """Whether the server still answers on the connection."""
        if self.parser.states[h11.SERVER] is not h11.IDLE:
            return False
        try:
            (response,) = self.exchange(build_tool_call(token)) or [None]
        except (ConnectionError, h11.RemoteProtocolError):
            return False
        return response is not None and response[0] == 200


@contextmanager
def open_raw_connection(process: GatewayProcess) -> Iterator[RawConnection]:
    address = urlsplit(process.url)
    with socket.create_connection((address.hostname, address.port), _TIMEOUT_SECONDS) as connected:
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        yield RawConnection(connected)


def _build_invalid_utf8_call(token: str, version: str | None) -> bytes:
    body = build_body(version).replace(b'"_meta": {', b'"_meta": {"x": "\xff", ')
    return build_head(token, len(body), version) + body


def build_unusual_requests(token: str, version: str | None) -> dict[str, tuple[list[bytes], int]]:
    """Requests in unusual forms: their pieces, and the greatest number of responses."""
    body = build_body(version)
    head = build_head(token, len(body), version)
    chunked = build_head(token, -1, version, "Transfer-Encoding: chunked")
    whole = head + body
    other = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "nonsense"}).encode()
    return {
        "usual": ([whole], 1),
        "body after its head": ([head, body], 1),
        "cut in the head": ([whole[:40], whole[40:]], 1),
        "cut in the line ends": ([head[:-2], head[-2:] + body], 1),
        "cut in the body": ([whole[:-9], whole[-9:]], 1),
        "byte after byte at the end": ([head, *(body[n : n + 1] for n in range(9)), body[9:]], 1),
        "three at once": ([whole * 3], 3),
        "three, cut in the second": ([whole + whole[:50], whole[50:] + whole], 3),
        "direct, other, direct": ([whole + build_head(token, len(other), version) + other + whole], 3),
        "an empty line before": ([b"\r\n" + whole], 1),
        "bare line feeds": ([head.replace(b"\r\n", b"\n") + body], 1),
        "a folded header": ([build_head(token, len(body), version, "X-Long: a\r\n b") + body], 1),
        "names in capitals": ([head.replace(b"Accept", b"ACCEPT") + body], 1),
        "no blank after a colon": ([head.replace(b"Accept: ", b"Accept:") + body], 1),
        "blanks around a value": ([head.replace(b"Accept: ", b"Accept:  \t ") + body], 1),
        "a blank before a colon": ([head.replace(b"Accept:", b"Accept :") + body], 1),
        "an empty value": ([build_head(token, len(body), version, "X-Empty:") + body], 1),
        "a value in Latin-1": (
            [build_head(token, len(body), version).replace(b"Host", b"X-A: \xe9\r\nHost") + body],
            1,
        ),
        "a control character": ([build_head(token, len(body), version, "X-A: a\x01b") + body], 1),
        "a nul": ([build_head(token, len(body), version, "X-A: a\x00b") + body], 1),
        "HTTP/1.0": ([whole.replace(b"HTTP/1.1", b"HTTP/1.0")], 1),
        "HTTP/1.2": ([whole.replace(b"HTTP/1.1", b"HTTP/1.2")], 1),
        "not HTTP": ([b"hello\r\n\r\n"], 1),
        "a method in small letters": ([whole.replace(b"POST", b"post")], 1),
        "a whole address": ([whole.replace(b" /mcp ", b" http://localhost/mcp ")], 1),
        "a slash at the end": ([whole.replace(b" /mcp ", b" /mcp/ ")], 1),
        "a query": ([whole.replace(b" /mcp ", b" /mcp?x=1 ")], 1),
        "an escaped path": ([whole.replace(b" /mcp ", b" /m%63p ")], 1),
        "another path": ([whole.replace(b" /mcp ", b" /nowhere ")], 1),
        "close": ([build_head(token, len(body), version, "Connection: close") + body], 1),
        "keep-alive": ([build_head(token, len(body), version, "Connection: keep-alive") + body], 1),
        "Keep-Alive, close": ([build_head(token, len(body), version, "Connection: Keep-Alive, close") + body], 1),
        "upgrade to h2c": (
            [build_head(token, len(body), version, "Connection: upgrade, http2-settings", "Upgrade: h2c") + body],
            1,
        ),
        "expect": ([build_head(token, len(body), version, "Expect: 100-continue"), body], 1),
        "chunked": ([chunked + b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)], 1),
        "trailers": (
            [
                chunked
                + b"%x\r\n%b\r\n0\r\n" % (len(body), body)
                + b"Host: evil.example\r\nAuthorization: Bearer x\r\nMcp-Name: claim\r\nContent-Type: x\r\n\r\n"
            ],
            1,
        ),
        "chunked and a length": (
            [
                build_head(token, len(body), version, "Transfer-Encoding: chunked")
                + b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
            ],
            1,
        ),
        "chunked, but with a correct length": (
            [build_head(token, len(body), version, "Transfer-Encoding: chunked") + body, b"\r\n\r\n"],
            1,
        ),
        "a request in a header of another": ([b"POST /nowhere HTTP/1.1\r\nX-A: ", whole], 1),
        "two equal lengths": ([build_head(token, len(body), version, f"Content-Length: {len(body)}") + body], 1),
        "two lengths": ([build_head(token, len(body), version, "Content-Length: 3") + body], 1),
        "two lengths in one": ([head.replace(b"Length: ", b"Length: 3, ") + body], 1),
        "a length with a sign": ([head.replace(b"Length: ", b"Length: +") + body], 1),
        "a length with a leading zero": ([head.replace(b"Length: ", b"Length: 0") + body], 1),
        "no length": ([build_head(token, -1, version)], 1),
        "an empty body": ([build_head(token, 0, version)], 1),
        "a body that is too short": ([build_head(token, len(body) - 3, version) + body[:-3]], 1),
        "no host": ([head.replace(b"Host: localhost\r\n", b"") + body], 1),
        "two hosts": ([build_head(token, len(body), version, "Host: localhost") + body], 1),
        "another host": ([head.replace(b"Host: localhost", b"Host: evil.example") + body], 1),
        "another origin": ([build_head(token, len(body), version, "Origin: http://evil.example") + body], 1),
        "two tokens": ([build_head(token, len(body), version, f"Authorization: Bearer {token}") + body], 1),
        "another token": ([whole.replace(token.encode(), token[:-1].encode() + b"~")], 1),
        "another scheme": ([whole.replace(b"Bearer", b"Basic")], 1),
        "a scheme in small letters": ([whole.replace(b"Bearer", b"bearer")], 1),
        "not UTF-8": (
            [build_head(token, len(body) + 8, version) + body.replace(b'"params": {', b'"params": {"_": "\xff", ')],
            1,
        ),
        "not UTF-8 in the envelope": ([_build_invalid_utf8_call(token, version)], 1),
        "an encoded body": ([build_head(token, len(body), version, "Content-Encoding: gzip") + body], 1),
        "a large head": ([build_head(token, len(body), version, f"X-Large: {'x' * 12_000}") + body], 1),
        "a head that is too large": ([build_head(token, len(body), version, f"X-Large: {'x' * 200_000}") + body], 1),
        # These arrive whole, so only their parts can be counted.
        "a head a little too large": ([build_head(token, len(body), version, f"X-Large: {'x' * 32_800}") + body], 1),
        "many headers, together too large": (
            [build_head(token, len(body), version, *(f"X-{number}: {'x' * 410}" for number in range(80))) + body],
            1,
        ),
        "an address that is too long": ([head.replace(b" /mcp ", b" /mcp?%b " % (b"x" * 32_800)) + body], 1),
    }
