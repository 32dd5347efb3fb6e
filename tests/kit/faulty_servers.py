"""Servers on the loopback interface that fail in every way in which a network can."""

import contextlib
import select
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

ConnectionHandler = Callable[[socket.socket], None]


@contextlib.contextmanager
def running_server(handler: ConnectionHandler, context: ssl.SSLContext | None = None) -> Iterator[int]:
    """Start a server that passes each connection to `handler`, and yield its port."""
    listener = socket.create_server(("127.0.0.1", 0))
    closing = threading.Event()
    connections: list[socket.socket] = []

    def serve(connection: socket.socket) -> None:
        with contextlib.suppress(OSError):
            if context is not None:
                connection = context.wrap_socket(connection, server_side=True)
            handler(connection)

    def accept() -> None:
        while not closing.is_set():
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            connections.append(connection)
            threading.Thread(target=serve, args=(connection,), daemon=True).start()

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        closing.set()
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        for connection in connections:
            connection.close()
        thread.join(5)


def _read_request(connection: socket.socket) -> None:
    connection.settimeout(10)
    received = b""
    while b"\r\n\r\n" not in received:
        received += connection.recv(65536)


def respond_with(
    status: str, body: bytes, content_type: str = "application/json", *headers: str, length: int | None = None
) -> ConnectionHandler:
    """Build a handler that reads a request and sends this response.

    Args:
        length: the value of Content-Length; None for the length of the body.
    """

    def respond(connection: socket.socket) -> None:
        _read_request(connection)
        lines = [
            f"HTTP/1.1 {status}",
            f"Content-Type: {content_type}",
            f"Content-Length: {len(body) if length is None else length}",
            *headers,
        ]
        connection.sendall("\r\n".join(lines).encode() + b"\r\n\r\n" + body)
        connection.close()

    return respond


def never_respond(connection: socket.socket) -> None:
    """Read everything and send nothing."""
    connection.settimeout(30)
    with contextlib.suppress(OSError):
        while connection.recv(65536):
            pass


def respond_slowly(connection: socket.socket) -> None:
    """Send one byte every 100 ms, so that no timeout between two bytes is reached."""
    _read_request(connection)
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n")
    with contextlib.suppress(OSError):
        for _ in range(200):
            connection.sendall(b" ")
            if select.select([connection], [], [], 0.1)[0]:
                break


def close_after_request(connection: socket.socket) -> None:
    """Close the connection after the request."""
    _read_request(connection)
    connection.close()


def make_untrusted_tls_context(folder: Path) -> ssl.SSLContext:
    """Create a TLS context with a self-signed certificate."""
    key, certificate = folder / "key.pem", folder / "cert.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=localhost"),
            *("-keyout", str(key), "-out", str(certificate)),
        ],
        check=True,
        capture_output=True,
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return context
