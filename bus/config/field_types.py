"""Types of the fields of settings classes."""

import ipaddress
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr

from bus.config.redaction import quote


def _split_names(value: str | tuple[str, ...]) -> tuple[str, ...]:
    names = value.split(",") if isinstance(value, str) else value
    return tuple(name for name in (name.strip().lower() for name in names) if name)


def _require_readable_url(url: str) -> str:
    try:
        urlsplit(url)
    except ValueError:
        raise ValueError(f"must be a web address such as https://example.org; it is {quote(url)}.") from None
    return url.rstrip("/")


def require_web_url(url: str) -> str:
    """Return what is a web address.

    Raises:
        ValueError: the scheme is another, or the host is missing.
    """
    try:
        parts = urlsplit(url)
        is_web_url = parts.scheme in ("https", "http") and bool(parts.netloc)
    except ValueError:
        is_web_url = False
    if not is_web_url:
        raise ValueError(f"must be a web address such as https://example.org; it is {quote(url)}.")
    return url


def require_redis_url(url: str) -> str:
    """Return what is the address of a Redis server.

    Raises:
        ValueError: the scheme is another, or the host or the path of the socket is missing.
    """
    try:
        parts = urlsplit(url)
        is_redis_url = bool(parts.hostname if parts.scheme in ("redis", "rediss") else parts.path)
        is_redis_url = is_redis_url and parts.scheme in ("redis", "rediss", "unix")
    except ValueError:
        is_redis_url = False
    if not is_redis_url:
        raise ValueError(f"must be an address such as redis://localhost:6379/0; it is {quote(url)}.")
    return url


def is_secure_url(url: object) -> bool:
    """Whether secrets may be sent to an address: it uses TLS, or does not leave this machine."""
    if not isinstance(url, str):
        return False
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
    except ValueError:
        return False
    if parts.scheme == "https":
        return bool(host)
    return parts.scheme == "http" and is_loopback_host(host)


def is_loopback_host(host: str) -> bool:
    """Whether a host name or address of a URL is this machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def _require_root_url(url: str) -> str:
    parts = urlsplit(_require_readable_url(url))
    if parts.path or parts.query or parts.fragment:
        raise ValueError(
            "must be an address without a path, such as https://bus.example.org: the web takes a host name for itself."
        )
    return _require_readable_url(url)


def _require_text_file(name: str) -> Path:
    path = Path(name)
    if not path.is_absolute():
        raise ValueError(f"must be an absolute path; it is {quote(name)}.")
    try:
        path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        reason = (
            "it is not UTF-8" if isinstance(error, UnicodeDecodeError) else getattr(error, "strerror", None) or error
        )
        raise ValueError(f"must be a file of text that can be read; {quote(name)} cannot: {reason}.") from None
    return path


# Names in lower case, separated by commas.
Names = Annotated[tuple[str, ...], BeforeValidator(_split_names)]
# An address to which paths are added; slashes at its end are dropped.
BaseUrl = Annotated[str, AfterValidator(_require_readable_url), Field(title="URL: a web address")]
RootUrl = Annotated[str, AfterValidator(_require_root_url), Field(title="URL: a web address without a path")]
WebUrl = Annotated[str, AfterValidator(require_web_url), Field(title="URL: http:// or https://")]
RedisUrl = Annotated[str, AfterValidator(require_redis_url), Field(title="URL: redis://, rediss:// or unix://")]
# A file that is read again at each use; it must be readable at the start.
MarkdownFile = Annotated[
    Path, BeforeValidator(_require_text_file), Field(title="path: a Markdown file in UTF-8, absolute")
]
# A text that is never shown, and too long to guess.
LongSecret = Annotated[SecretStr, Field(min_length=16)]
