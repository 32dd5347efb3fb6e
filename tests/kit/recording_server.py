"""A server on the loopback interface that records each request and answers all of them alike."""

import contextlib
import json
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from tests.kit import faulty_servers


@dataclass
class RecordingServer:
    """The address of the server, and the requests that it received: head and body."""

    url: str = ""
    requests: list[str] = field(default_factory=list)


@contextlib.contextmanager
def running_recorder(
    result: dict[str, Any] | None = None, document: dict[str, Any] | None = None
) -> Iterator[RecordingServer]:
    """Run a server that answers each call of a tool with `result`.

    Args:
        document: what it answers besides, as the endpoint of the sessions does.
    """
    recorder = RecordingServer()
    tool_result = {
        "jsonrpc": "2.0",
        "id": 1,
        "result": {"content": [{"type": "text", "text": json.dumps(result or {})}]},
    }
    body = json.dumps({**tool_result, **(document or {})}).encode()
    head = (
        f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )

    def respond(connection: socket.socket) -> None:
        recorder.requests.append(read_request(connection).decode("latin-1"))
        connection.sendall(head.encode() + body)
        connection.close()

    with faulty_servers.running_server(respond) as port:
        recorder.url = f"http://127.0.0.1:{port}/mcp"
        yield recorder


def read_request(connection: socket.socket) -> bytes:
    """Read a request with its body, as far as the client sends it."""
    connection.settimeout(10)
    received = b""
    while b"\r\n\r\n" not in received:
        part = connection.recv(65536)
        if not part:
            return received
        received += part
    head, _, body = received.partition(b"\r\n\r\n")
    length = next(
        (int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")), 0
    )
    while len(body) < length:
        part = connection.recv(65536)
        if not part:
            break
        body += part
    return head + b"\r\n\r\n" + body
