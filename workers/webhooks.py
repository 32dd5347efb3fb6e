"""Outgoing webhooks: signed as Standard Webhooks describes, and never into a private network unless that is allowed.

The name is resolved here and the connection made to the very address that was checked, so that a name which changes
its mind in between (DNS rebinding) gains nothing. Redirects are not followed.
"""

import base64
import contextlib
import hashlib
import hmac
import ipaddress
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

import httpx2

from bus import __version__
from bus.notifications.outbox import Notice
from workers.delivery import DeliveryResult

_TIMEOUT_SECONDS = 5.0
# The timeout holds for each piece of an answer; this holds for all of it.
_TOTAL_TIMEOUT_SECONDS = 10.0
_MAX_RESPONSE_BYTES = 2_000
# What a receiver says of itself: it will never want this.
_HTTP_GONE = 410


def send(notice: Notice, *, allow_private: bool) -> DeliveryResult:
    """Post a notice to its webhook; 2xx is delivered."""
    if not notice.secret:
        # It was removed, or went with its project. Anybody can sign with an empty key.
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
        return DeliveryResult(False, f"{host} has no address: {error.strerror or error}")
    if address is None:
        return DeliveryResult(False, f"{host} leads into a private network, which is not allowed here", permanent=True)
    at = f"[{address}]" if ":" in address else address
    url = f"{parts.scheme}://{at}:{port}{parts.path or '/'}{'?' + parts.query if parts.query else ''}"
    headers = {
        "Host": parts.netloc,
        "Content-Type": "application/json",
        "User-Agent": f"llm-bus/{__version__}",
        **build_signature_headers(notice.id, int(time.time()), body, notice.secret),
    }
    try:
        with (
            _connection_deadline(_TOTAL_TIMEOUT_SECONDS) as trace,
            httpx2.Client(timeout=_TIMEOUT_SECONDS, follow_redirects=False, trust_env=False) as client,
            client.stream(
                "POST", url, content=body, headers=headers, extensions={"sni_hostname": host, "trace": trace}
            ) as answer,
        ):
            said = _read_excerpt(answer)
            status = answer.status_code
    except (httpx2.HTTPError, OSError) as error:
        return DeliveryResult(False, f"{type(error).__name__}: {error}")
    return DeliveryResult(200 <= status < 300, f"{status} {said}".strip(), permanent=status == _HTTP_GONE)


@contextlib.contextmanager
def _connection_deadline(seconds: float) -> Iterator[Callable[[str, dict[str, Any]], None]]:
    """Cut the connection when its time is over: a receiver that answers byte by byte holds a thread otherwise.

    Yields:
        What httpx2 is given as `trace`; it hears of each connection that is made.
    """
    lock = threading.Lock()
    sockets: list[socket.socket] = []
    over = False

    def cut(one: socket.socket) -> None:
        # Not the method of a TLS socket, which takes its state away from the thread that reads.
        with contextlib.suppress(OSError):
            socket.socket.shutdown(one, socket.SHUT_RDWR)

    def trace(event: str, info: dict[str, Any]) -> None:
        if event in ("connection.connect_tcp.complete", "connection.start_tls.complete"):
            with lock:
                sockets.append(info["return_value"].get_extra_info("socket"))
                if over:
                    cut(sockets[-1])

    def end() -> None:
        nonlocal over
        with lock:
            over = True
            for one in sockets:
                cut(one)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()
    try:
        yield trace
    finally:
        timer.cancel()


def build_signature_headers(notice_id: int, timestamp: int, body: bytes, secret: str) -> dict[str, str]:
    """The headers that let a receiver know who sent this, when, and that it is the same notice as before.

    Args:
        secret: as the owner was given it: `whsec_` and base64.
    """
    message_id = f"notice_{notice_id}"
    key = base64.b64decode(secret.removeprefix("whsec_"))
    signed = f"{message_id}.{timestamp}.".encode() + body
    digest = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
    return {"webhook-id": message_id, "webhook-timestamp": str(timestamp), "webhook-signature": f"v1,{digest}"}


def resolve_address(host: str, port: int, *, allow_private: bool) -> str | None:
    """The address to connect to; None where any address of the name is not a public one.

    Raises:
        OSError: the name has no address.
    """
    found = [str(entry[4][0]) for entry in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
    if not allow_private and not all(_is_public(address) for address in found):
        return None
    return found[0]


def _is_public(address: str) -> bool:
    parsed = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(parsed, ipaddress.IPv6Address):
        # An IPv4 address in the clothes of IPv6 is judged as what it is.
        inner = parsed.ipv4_mapped or parsed.sixtofour
        if inner is not None:
            parsed = inner
        elif parsed in _NAT64_NETWORK:
            parsed = ipaddress.IPv4Address(int(parsed) & 0xFFFFFFFF)
        elif parsed not in _GLOBAL_UNICAST_NETWORK:
            return False
    if isinstance(parsed, ipaddress.IPv4Address) and any(parsed in one for one in _SPECIAL_IPV4_NETWORKS):
        return False
    return parsed.is_global and not parsed.is_multicast


_NAT64_NETWORK = ipaddress.IPv6Network("64:ff9b::/96")
# What the internet uses of IPv6. What is outside, such as the site's own translation (64:ff9b:1::/48), fec0::/10 and
# the old forms of IPv4, Python calls global or not as its version has it.
_GLOBAL_UNICAST_NETWORK = ipaddress.IPv6Network("2000::/3")
_SPECIAL_IPV4_NETWORKS = (ipaddress.IPv4Network("192.0.0.0/24"), ipaddress.IPv4Network("192.88.99.0/24"))


def _read_excerpt(answer: httpx2.Response) -> str:
    """The first bytes of an answer, as text of one line."""
    read = b""
    for piece in answer.iter_raw():
        read += piece
        if len(read) >= _MAX_RESPONSE_BYTES:
            break
    text = " ".join(read[:_MAX_RESPONSE_BYTES].decode("utf-8", "replace").split())
    return "".join(character for character in text if character.isprintable())[:200]
