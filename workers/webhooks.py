"""Delivery and signing of webhooks (Standard Webhooks), never into a private network unless that is allowed.

The host name is resolved here and the connection goes to the address that was checked, so that a name which changes
its address in between (DNS rebinding) gains nothing. Redirects are not followed.
"""

import contextlib
import ipaddress
import json
import socket
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

import httpx2
from standardwebhooks import Webhook

from bus import __version__
from bus.config.certificates import trusted_certificates
from bus.notifications.outbox import OutboxMessage
from workers.delivery import DeliveryResult

_TIMEOUT_SECONDS = 5.0
# _TIMEOUT_SECONDS bounds each read; this bounds the whole request.
_TOTAL_TIMEOUT_SECONDS = 10.0
_MAX_RESPONSE_BYTES = 2_000
# The receiver wants no further messages.
_HTTP_GONE = 410
_NAT64_NETWORK = ipaddress.IPv6Network("64:ff9b::/96")
# The part of IPv6 that the internet uses. Python versions disagree on whether addresses outside are global: a site's
# own translation prefix (64:ff9b:1::/48), fec0::/10 and the deprecated embeddings of IPv4.
_GLOBAL_UNICAST_NETWORK = ipaddress.IPv6Network("2000::/3")
_SPECIAL_IPV4_NETWORKS = (ipaddress.IPv4Network("192.0.0.0/24"), ipaddress.IPv4Network("192.88.99.0/24"))


def send(notice: OutboxMessage, *, allow_private: bool) -> DeliveryResult:
    """Post a notice to its webhook; any 2xx response is a delivery."""
    if not notice.secret:
        # The webhook or its project was removed. A signature with an empty key proves nothing.
        return DeliveryResult(False, "the webhook was removed", permanent=True)
    body = json.dumps(
        {
            "type": notice.kind,
            "timestamp": notice.created_at.isoformat(),
            "data": notice.content,
        },
        ensure_ascii=False,
    ).encode()
    parts = urlsplit(notice.target)
    host = parts.hostname or ""
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        address = resolve_address(host, port, allow_private=allow_private)
    except OSError as error:
        return DeliveryResult(False, f"{host} has no address: {error.strerror or error}", unreachable=True)
    if address is None:
        return DeliveryResult(False, f"{host} leads into a private network, which is not allowed here", permanent=True)
    url_host = f"[{address}]" if ":" in address else address
    url = f"{parts.scheme}://{url_host}:{port}{parts.path or '/'}{'?' + parts.query if parts.query else ''}"
    headers = {
        "Host": parts.netloc,
        "Content-Type": "application/json",
        "User-Agent": f"llm-bus/{__version__}",
        **build_signature_headers(notice.id, datetime.now(UTC), body, notice.secret),
    }
    try:
        with (
            _connection_deadline(_TOTAL_TIMEOUT_SECONDS) as trace,
            httpx2.Client(
                timeout=_TIMEOUT_SECONDS,
                follow_redirects=False,
                trust_env=False,
                verify=trusted_certificates(trust_env=False),
            ) as client,
            client.stream(
                "POST", url, content=body, headers=headers, extensions={"sni_hostname": host, "trace": trace}
            ) as response,
        ):
            excerpt = _read_excerpt(response)
            status = response.status_code
    except (httpx2.HTTPError, OSError) as error:
        return DeliveryResult(False, f"{type(error).__name__}: {error}", unreachable=True)
    return DeliveryResult(200 <= status < 300, f"{status} {excerpt}".strip(), permanent=status == _HTTP_GONE)


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


def build_signature_headers(notice_id: int, sent_at: datetime, body: bytes, secret: str) -> dict[str, str]:
    """Sign a message as Standard Webhooks describes: its id, time and signature as headers.

    Args:
        notice_id: the same in each attempt, so that a receiver can discard duplicates.
        sent_at: in UTC, since the library ignores other offsets.
        secret: as shown to the owner: `whsec_` and base64.
    """
    message_id = f"notice_{notice_id}"
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(int(sent_at.timestamp())),
        "webhook-signature": Webhook(secret).sign(message_id, sent_at, body.decode()),
    }


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


def _read_excerpt(response: httpx2.Response) -> str:
    """Read the first bytes of a response as one line of text."""
    content = b""
    for chunk in response.iter_raw():
        content += chunk
        if len(content) >= _MAX_RESPONSE_BYTES:
            break
    text = " ".join(content[:_MAX_RESPONSE_BYTES].decode("utf-8", "replace").split())
    return "".join(character for character in text if character.isprintable())[:200]
