"""The web's HTTP server at a raw socket: no HTTP/2 without TLS, no ambiguous request, no body beyond the limit."""

import socket
from collections.abc import Iterator
from http.client import HTTPConnection
from urllib.parse import urlsplit

import pytest

from tests.webapp.live_server import running_live_server

_TIMEOUT_SECONDS = 20.0


@pytest.fixture(scope="module")
def url(shared_database_url: str) -> Iterator[str]:
    with running_live_server(shared_database_url) as address:
        yield address


def _exchange(url: str, *parts: str) -> bytes:
    """Send a request, and return everything until the server closes the connection."""
    address = urlsplit(url)
    with socket.create_connection((address.hostname, address.port), _TIMEOUT_SECONDS) as connection:
        connection.sendall("".join(parts).replace("\n", "\r\n").encode())
        received = b""
        while chunk := connection.recv(65536):
            received += chunk
    return received


@pytest.mark.parametrize("method", ["GET", "OPTIONS"])
def test_an_upgrade_to_http2_is_ignored(url: str, method: str) -> None:
    answer = _exchange(
        url,
        f"{method} /healthz HTTP/1.1\nHost: 127.0.0.1\nConnection: Upgrade, HTTP2-Settings\nUpgrade: h2c\n"
        "HTTP2-Settings: AAMAAABkAAQAAP__\n\n",
        "GET /healthz HTTP/1.1\nHost: 127.0.0.1\nConnection: close\n\n",
    )
    assert answer.startswith(b"HTTP/1.1 200"), answer
    assert b" 101 " not in answer
    assert answer.count(b"HTTP/1.1 200") == 2


def test_http2_without_an_upgrade_is_refused(url: str) -> None:
    answer = _exchange(url, "PRI * HTTP/2.0\n\nSM\n\n")
    assert answer.startswith(b"HTTP/1.1 4") or answer == b"", answer


@pytest.mark.parametrize("order", [False, True])
def test_a_length_beside_a_transfer_encoding_is_refused_and_closed(url: str, order: bool) -> None:
    lengths = ["Content-Length: 5\n", "Transfer-Encoding: chunked\n"]
    answer = _exchange(
        url,
        "POST /join HTTP/1.1\nHost: 127.0.0.1\n",
        *(reversed(lengths) if order else lengths),
        "\n0\n\nGET /healthz HTTP/1.1\nHost: 127.0.0.1\nConnection: close\n\n",
    )
    assert answer.startswith(b"HTTP/1.1 400"), answer
    assert answer.count(b"HTTP/1.1") == 1


def test_an_oversized_body_is_discarded_and_the_connection_stays(url: str) -> None:
    address = urlsplit(url)
    connection = HTTPConnection(str(address.hostname), address.port, timeout=_TIMEOUT_SECONDS)
    for _ in range(3):
        connection.request("POST", "/join", b"x" * 2_000_000)
        response = connection.getresponse()
        assert response.status == 413
        assert b"too large" in response.read()
        first_socket = connection.sock
        connection.request("GET", "/healthz")
        assert connection.getresponse().read()
        assert connection.sock is first_socket
    connection.close()


@pytest.mark.parametrize("path", ["/join", "/sign-out"])
def test_a_declared_length_beyond_the_limit_is_answered_at_once(url: str, path: str) -> None:
    """Before a byte of the body is sent."""
    answer = _exchange(url, f"POST {path} HTTP/1.1\nHost: 127.0.0.1\nContent-Length: 1000000000\n\n")
    assert answer.startswith(b"HTTP/1.1 413"), answer[:200]
