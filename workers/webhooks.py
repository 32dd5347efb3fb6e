"""Outgoing webhooks: signed as Standard Webhooks describes, and never into a private network unless that is allowed.

The name is resolved here and the connection made to the very address that was checked, so that a name which changes
its mind in between (DNS rebinding) gains nothing. Redirects are not followed.
"""

import base64
import hashlib
import hmac
import ipaddress
import json
import socket
import time
from urllib.parse import urlsplit

import httpx2

from bus import __version__
from bus.notices import Notice
from workers.sent import Sent

_TIMEOUT_SECONDS = 5.0
_MOST_READ = 2_000
# What a receiver says of itself: it will never want this.
_GONE = 410


def send(notice: Notice, *, to_private: bool) -> Sent:
    """Post a notice to its webhook; 2xx is delivered."""
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
        address = resolve(host, port, to_private=to_private)
    except OSError as error:
        return Sent(False, f"{host} has no address: {error.strerror or error}")
    if address is None:
        return Sent(False, f"{host} leads into a private network, which is not allowed here", final=True)
    at = f"[{address}]" if ":" in address else address
    url = f"{parts.scheme}://{at}:{port}{parts.path or '/'}{'?' + parts.query if parts.query else ''}"
    headers = {
        "Host": parts.netloc,
        "Content-Type": "application/json",
        "User-Agent": f"llm-bus/{__version__}",
        **signature(notice.id, int(time.time()), body, notice.secret),
    }
    try:
        with (
            httpx2.Client(timeout=_TIMEOUT_SECONDS, follow_redirects=False, trust_env=False) as client,
            client.stream("POST", url, content=body, headers=headers, extensions={"sni_hostname": host}) as answer,
        ):
            said = _beginning(answer)
            status = answer.status_code
    except (httpx2.HTTPError, OSError) as error:
        return Sent(False, f"{type(error).__name__}: {error}")
    return Sent(200 <= status < 300, f"{status} {said}".strip(), final=status == _GONE)


def signature(notice_id: int, timestamp: int, body: bytes, secret: str) -> dict[str, str]:
    """The headers that let a receiver know who sent this, when, and that it is the same notice as before.

    Args:
        secret: as the owner was given it: `whsec_` and base64.
    """
    message_id = f"notice_{notice_id}"
    key = base64.b64decode(secret.removeprefix("whsec_"))
    signed = f"{message_id}.{timestamp}.".encode() + body
    digest = base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()
    return {"webhook-id": message_id, "webhook-timestamp": str(timestamp), "webhook-signature": f"v1,{digest}"}


def resolve(host: str, port: int, *, to_private: bool) -> str | None:
    """The address to connect to; None where any address of the name is not a public one.

    Raises:
        OSError: the name has no address.
    """
    found = [str(entry[4][0]) for entry in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
    if not to_private and not all(_is_public(address) for address in found):
        return None
    return found[0]


def _is_public(address: str) -> bool:
    parsed = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(parsed, ipaddress.IPv6Address):
        # An IPv4 address in the clothes of IPv6 is judged as what it is.
        inner = parsed.ipv4_mapped or parsed.sixtofour
        if inner is not None:
            parsed = inner
        elif parsed in _TRANSLATED:
            parsed = ipaddress.IPv4Address(int(parsed) & 0xFFFFFFFF)
    return parsed.is_global and not parsed.is_multicast


_TRANSLATED = ipaddress.IPv6Network("64:ff9b::/96")


def _beginning(answer: httpx2.Response) -> str:
    """The first bytes of an answer, as text of one line."""
    read = b""
    for piece in answer.iter_raw():
        read += piece
        if len(read) >= _MOST_READ:
            break
    text = " ".join(read[:_MOST_READ].decode("utf-8", "replace").split())
    return "".join(character for character in text if character.isprintable())[:200]
