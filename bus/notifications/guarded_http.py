"""HTTP requests to addresses that others chose: never into a private network, unless that is allowed.

The host name is resolved here and the connection goes to the address that was checked, so that a name which changes
its address in between (DNS rebinding) gains nothing. Redirects are not followed, and the whole request has a deadline.
"""

import contextlib
import ipaddress
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

import httpx2

from bus import __version__
from bus.config.certificates import trusted_certificates

_NAT64_NETWORK = ipaddress.IPv6Network("64:ff9b::/96")
# The part of IPv6 that the internet uses. Python versions disagree on whether addresses outside are global: a site's
# own translation prefix (64:ff9b:1::/48), fec0::/10 and the deprecated embeddings of IPv4.
_GLOBAL_UNICAST_NETWORK = ipaddress.IPv6Network("2000::/3")
_SPECIAL_IPV4_NETWORKS = (ipaddress.IPv4Network("192.0.0.0/24"), ipaddress.IPv4Network("192.88.99.0/24"))


class PrivateAddressError(Exception):
    """The host of an address leads into a private network."""

    def __init__(self, host: str) -> None:
        super().__init__(f"{host} leads into a private network, which is not allowed here")


class UnknownHostError(OSError):
    """The host of an address has none itself."""


@contextlib.contextmanager
def stream(
    method: str,
    url: str,
    *,
    headers: Mapping[str, str],
    allow_private: bool,
    timeout_seconds: float,
    total_timeout_seconds: float,
    content: bytes | None = None,
) -> Iterator[httpx2.Response]:
    """Send a request and yield the response, whose body is not read yet.

    Args:
        allow_private: whether the host may be in a private network.
        timeout_seconds: for the connection and for each read.
        total_timeout_seconds: for the whole request, also if the receiver answers byte by byte.
    Raises:
        PrivateAddressError: it is in one, and may not.
        UnknownHostError: the host has no address.
        httpx2.HTTPError, OSError: the request failed.
    """
    parts = urlsplit(url)
    host = parts.hostname or ""
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        address = resolve_address(host, port, allow_private=allow_private)
    except OSError as error:
        raise UnknownHostError(f"{host} has no address: {error.strerror or error}") from error
    if address is None:
        raise PrivateAddressError(host)
    url_host = f"[{address}]" if ":" in address else address
    target = f"{parts.scheme}://{url_host}:{port}{parts.path or '/'}{'?' + parts.query if parts.query else ''}"
    with (
        _connection_deadline(total_timeout_seconds) as trace,
        httpx2.Client(
            timeout=timeout_seconds,
            follow_redirects=False,
            trust_env=False,
            verify=trusted_certificates(trust_env=False),
        ) as client,
        client.stream(
            method,
            target,
            content=content,
            headers={"Host": parts.netloc, "User-Agent": f"llm-bus/{__version__}", **headers},
            extensions={"sni_hostname": host, "trace": trace},
        ) as response,
    ):
        yield response


@contextlib.contextmanager
def _connection_deadline(seconds: float) -> Iterator[Callable[[str, dict[str, Any]], None]]:
    """Shut the connection down after `seconds`; a receiver that answers byte by byte would hold a thread otherwise.

    Yields:
        A `trace` callback for httpx2, which is called for each connection that is opened.
    """
    lock = threading.Lock()
    sockets: list[socket.socket] = []
    expired = False

    def shut_down(connection: socket.socket) -> None:
        # Not the method of a TLS socket, which discards state that the reading thread still uses.
        with contextlib.suppress(OSError):
            socket.socket.shutdown(connection, socket.SHUT_RDWR)

    def trace(event: str, info: dict[str, Any]) -> None:
        if event in ("connection.connect_tcp.complete", "connection.start_tls.complete"):
            with lock:
                sockets.append(info["return_value"].get_extra_info("socket"))
                if expired:
                    shut_down(sockets[-1])

    def expire() -> None:
        nonlocal expired
        with lock:
            expired = True
            for connection in sockets:
                shut_down(connection)

    timer = threading.Timer(seconds, expire)
    timer.daemon = True
    timer.start()
    try:
        yield trace
    finally:
        timer.cancel()


def resolve_address(host: str, port: int, *, allow_private: bool) -> str | None:
    """Return the address to connect to; None if any address of the name is not public.

    Raises:
        OSError: the name has no address.
    """
    addresses = [str(entry[4][0]) for entry in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
    if not allow_private and not all(_is_public(address) for address in addresses):
        return None
    return addresses[0]


def _is_public(address: str) -> bool:
    parsed = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(parsed, ipaddress.IPv6Address):
        # Unwrap IPv4-mapped and 6to4 addresses.
        embedded = parsed.ipv4_mapped or parsed.sixtofour
        if embedded is not None:
            parsed = embedded
        elif parsed in _NAT64_NETWORK:
            parsed = ipaddress.IPv4Address(int(parsed) & 0xFFFFFFFF)
        elif parsed not in _GLOBAL_UNICAST_NETWORK:
            return False
    if isinstance(parsed, ipaddress.IPv4Address) and any(parsed in network for network in _SPECIAL_IPV4_NETWORKS):
        return False
    return parsed.is_global and not parsed.is_multicast
