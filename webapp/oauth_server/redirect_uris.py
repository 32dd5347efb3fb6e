"""Redirect URIs of clients: which are accepted, which match, and how they are described to people."""

import re
from dataclasses import dataclass
from typing import Literal
from urllib.parse import SplitResult, urlsplit

from bus.config.field_types import is_loopback_host

MAX_LENGTH = 2000
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]{1,63}")
# A browser or the mail program handles these, so no program of the client receives what is sent there.
_BROWSER_SCHEMES = frozenset({
    "about", "blob", "chrome", "data", "file", "filesystem", "ftp", "intent", "jar", "javascript", "mailto", "sms",
    "tel", "vbscript", "view-source", "ws", "wss",
})  # fmt: skip


@dataclass(frozen=True, slots=True)
class ReturnTarget:
    """Where a client is sent back.

    Attributes:
        kind: a program on the computer of the browser, a web site, or an app that has claimed a scheme.
        shown: host and port, the host, or the scheme.
    """

    kind: Literal["loopback", "web", "app"]
    shown: str


def is_acceptable(uri: str) -> bool:
    """Whether a client may have a redirect URI: https, http of this machine, or a scheme of an app."""
    parts = _split(uri)
    if (
        parts is None
        or not uri.isascii()
        or not uri.isprintable()
        or " " in uri
        or "\\" in uri
        or len(uri) > MAX_LENGTH
    ):
        return False
    if parts.fragment or uri.endswith("#") or parts.username is not None:
        return False
    if parts.scheme == "https":
        return bool(parts.hostname)
    if parts.scheme == "http":
        return is_loopback_host(parts.hostname or "")
    return bool(_SCHEME.fullmatch(parts.scheme)) and parts.scheme not in _BROWSER_SCHEMES


def matches(registered: str, requested: str) -> bool:
    """Whether a requested URI is a registered one; on this machine its port may be any (RFC 8252, 7.3)."""
    if registered == requested:
        return True
    first, second = _split(registered), _split(requested)
    if first is None or second is None or first.scheme != "http" or not is_loopback_host(first.hostname or ""):
        return False
    return _without_port(first) == _without_port(second) and is_acceptable(requested)


def describe(uri: str) -> ReturnTarget:
    """Return what to tell a person about an acceptable URI."""
    parts = urlsplit(uri)
    if parts.scheme == "http":
        return ReturnTarget("loopback", parts.netloc)
    if parts.scheme == "https":
        return ReturnTarget("web", parts.netloc)
    return ReturnTarget("app", f"{parts.scheme}:")


def _split(uri: str) -> SplitResult | None:
    try:
        parts = urlsplit(uri)
        _ = parts.port
    except ValueError:
        return None
    return parts


def _without_port(parts: SplitResult) -> tuple[str | None, ...]:
    return (parts.scheme, parts.hostname, parts.path, parts.query, parts.fragment, parts.username)
