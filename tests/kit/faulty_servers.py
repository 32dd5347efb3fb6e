"""Servers that fail in every way that a network can, on loopback."""

import contextlib
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

ConnectionHandler = Callable[[socket.socket], None]


@contextlib.contextmanager
def running_server(handler: ConnectionHandler, context: ssl.SSLContext | None = None) -> Iterator[int]:
    """A port on which each connection goes to `handler`."""
    listener = socket.create_server(("127.0.0.1", 0))
    closing = threading.Event()
    kept: list[socket.socket] = []

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
            kept.append(connection)
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
        for connection in kept:
            connection.close()
        thread.join(5)


def _read_request(connection: socket.socket) -> None:
    connection.settimeout(10)
    held = b""
    while b"\r\n\r\n" not in held:
        held += connection.recv(65536)


def respond_with(
    status: str, body: bytes, content_type: str = "application/json", *more: str, length: int | None = None
) -> ConnectionHandler:
    """A server that reads a request and says this."""

    def answer(connection: socket.socket) -> None:
        _read_request(connection)
        lines = [
            f"HTTP/1.1 {status}",
            f"Content-Type: {content_type}",
            f"Content-Length: {len(body) if length is None else length}",
            *more,
        ]
        connection.sendall("\r\n".join(lines).encode() + b"\r\n\r\n" + body)
        connection.close()

    return answer


def never_respond(connection: socket.socket) -> None:
    """Takes everything and says nothing."""
    connection.settimeout(30)
    with contextlib.suppress(OSError):
        while connection.recv(65536):
            pass


def respond_slowly(connection: socket.socket) -> None:
    """Says a byte now and then, so that no timeout between two of them ever strikes."""
    _read_request(connection)
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n")
    with contextlib.suppress(OSError):
        for _ in range(200):
            connection.sendall(b" ")
            time.sleep(0.1)


def close_after_request(connection: socket.socket) -> None:
    """Closes after the request."""
    _read_request(connection)
    connection.close()


def make_untrusted_tls_context(folder: Path) -> ssl.SSLContext:
    """TLS with a certificate that nobody vouches for."""
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
