"""Settings, read once from the environment (12-factor) into one frozen value."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

_MIN_SECRET_LENGTH = 16


class SettingError(ValueError):
    """A setting is missing or malformed; the message names the variable and a valid value."""


@dataclass(frozen=True)
class Settings:
    """Settings that all processes share.

    Attributes:
        database_url: libpq URL of PostgreSQL 16 or newer.
        redis_url: URL of a Redis-compatible server; with None, notifications and limits stay within the process.
        public_url: address of the web, without a trailing slash.
        mcp_url: address of the gateway's MCP endpoint.
        host, port: address that this process listens on.
        threads: worker threads for engine calls; also the maximum number of database connections.
        queue_limit: calls that may wait for a thread before the process answers 503.
        max_body_bytes: larger request bodies are refused with 413.
        allowed_hosts: Host headers that are served; others get 421. `name:*` allows any port.
        allowed_origins: Origin headers that are served; others get 403.
        rate_per_minute: calls that one token may make in a minute; 0 switches the limit off.
        waits_per_token: calls of one token that may wait concurrently; more get 429.
        streams_per_token: streams of one token that may be open concurrently; more get 429.
        fast_path: answer ordinary tool calls without the MCP SDK; switch it off only for comparison.
        metrics_token: bearer token that reads /metrics; with None, /metrics does not exist.
    """

    database_url: str
    redis_url: str | None = None
    public_url: str = "http://127.0.0.1:8787"
    mcp_url: str = "http://127.0.0.1:8788/mcp"
    host: str = "127.0.0.1"
    port: int = 8788
    threads: int = 4
    queue_limit: int = 1024
    max_body_bytes: int = 1024 * 1024
    allowed_hosts: tuple[str, ...] = field(default=())
    allowed_origins: tuple[str, ...] = field(default=())
    rate_per_minute: int = 0
    waits_per_token: int = 200
    streams_per_token: int = 50
    fast_path: bool = True
    metrics_token: str | None = field(default=None, repr=False)

    @classmethod
    def from_env(cls, env: Mapping[str, str] | None = None, *, port: int = 8788) -> "Settings":
        """Read the settings from `env` (default: the process environment).

        Args:
            port: default for PORT.

        Raises:
            SettingError: DATABASE_URL is missing, or a value has the wrong form.
        """
        env = os.environ if env is None else env
        database_url = env.get("DATABASE_URL", "").strip()
        if not database_url:
            raise SettingError(
                "DATABASE_URL is not set. Set it to the address of a PostgreSQL, such as postgresql://USER:PASSWORD@HOST/NAME."
            )
        public_url = env.get("PUBLIC_URL", "http://127.0.0.1:8787").rstrip("/")
        mcp_url = env.get("MCP_URL", f"{public_url}/mcp").rstrip("/")
        hosts = _read_list(env, "ALLOWED_HOSTS") or _default_hosts(public_url, mcp_url)
        origins = _read_list(env, "ALLOWED_ORIGINS") or _default_origins(public_url, mcp_url)
        return cls(
            database_url=normalise_database_url(database_url),
            redis_url=env.get("REDIS_URL", "").strip() or None,
            public_url=public_url,
            mcp_url=mcp_url,
            host=env.get("HOST", "127.0.0.1"),
            port=read_int(env, "PORT", port, 0, 65535),
            threads=read_int(env, "GATEWAY_THREADS", 4, 1, 256),
            queue_limit=read_int(env, "GATEWAY_QUEUE", 1024, 1, 1_000_000),
            max_body_bytes=read_int(env, "MAX_BODY_BYTES", 1024 * 1024, 1024, 64 * 1024 * 1024),
            allowed_hosts=hosts,
            allowed_origins=origins,
            rate_per_minute=read_int(env, "RATE_PER_MINUTE", 0, 0, 10_000_000),
            waits_per_token=read_int(env, "WAITS_PER_TOKEN", 200, 1, 1_000_000),
            streams_per_token=read_int(env, "STREAMS_PER_TOKEN", 50, 1, 1_000_000),
            fast_path=read_bool(env, "GATEWAY_FAST_PATH", True),
            metrics_token=_read_secret(env, "METRICS_TOKEN"),
        )


def normalise_database_url(url: str) -> str:
    """Accept the spelling `postgres://` that platforms use, and drop SQLAlchemy's driver suffix.

    Raises:
        SettingError: the URL has another scheme.
    """
    scheme, separator, rest = url.partition("://")
    if not separator or scheme.split("+")[0] not in ("postgres", "postgresql"):
        raise SettingError("DATABASE_URL must start with postgresql:// (or postgres://).")
    return f"postgresql://{rest}"


def _read_list(env: Mapping[str, str], name: str) -> tuple[str, ...]:
    return tuple(part for part in (piece.strip().lower() for piece in env.get(name, "").split(",")) if part)


def _read_secret(env: Mapping[str, str], name: str) -> str | None:
    text = env.get(name, "").strip() or None
    if text is not None and len(text) < _MIN_SECRET_LENGTH:
        raise SettingError(
            f"{name} must have at least {_MIN_SECRET_LENGTH} characters; use a random value, or leave it unset."
        )
    return text


def read_int(env: Mapping[str, str], name: str, default: int, minimum: int, maximum: int) -> int:
    """Read a whole number.

    Raises:
        SettingError: the value is not a whole number, or is outside `minimum` to `maximum`.
    """
    # The default is passed along because the environment may record it (RecordingEnvironment).
    text = env.get(name, str(default)).strip()
    if not text:
        return default
    if not text.isascii() or not text.isdecimal() or not minimum <= int(text) <= maximum:
        raise SettingError(f"{name} must be a whole number from {minimum} to {maximum}; it is {text!r}.")
    return int(text)


_TRUE_VALUES, _FALSE_VALUES = ("1", "true", "yes", "on"), ("0", "false", "no", "off")


def read_bool(env: Mapping[str, str], name: str, default: bool = False) -> bool:
    """Read a setting that is on or off.

    Raises:
        SettingError: the value is neither.
    """
    text = env.get(name, "1" if default else "0").strip().lower()
    if text and text not in _TRUE_VALUES + _FALSE_VALUES:
        raise SettingError(f"{name} must be 1 or 0; it is {text!r}.")
    return text in _TRUE_VALUES if text else default


def is_allowed(allowed: tuple[str, ...], header_value: str) -> bool:
    """Return whether a Host or Origin header matches an allowed name; `name:*` allows any port."""
    value = header_value.lower()
    if strip_default_port(value) in allowed:
        return True
    base, separator, port = value.rpartition(":")
    return bool(separator) and port.isdigit() and f"{base}:*" in allowed


def strip_default_port(authority: str) -> str:
    """Return a host or an origin without the port 80 or 443."""
    return authority.removesuffix(":443").removesuffix(":80")


_LOOPBACK_HOSTS = ("127.0.0.1", "localhost", "[::1]")


def _default_hosts(*urls: str) -> tuple[str, ...]:
    """Return the hosts of the configured addresses, and loopback, from where health checks come."""
    hosts = [name for base in _LOOPBACK_HOSTS for name in (base, f"{base}:*")]
    for url in urls:
        netloc = strip_default_port(urlsplit(url).netloc.rpartition("@")[2].lower())
        if netloc and netloc not in hosts:
            hosts.append(netloc)
    return tuple(hosts)


def _default_origins(*urls: str) -> tuple[str, ...]:
    origins = [origin for base in _LOOPBACK_HOSTS for origin in (f"http://{base}", f"http://{base}:*")]
    for url in urls:
        parts = urlsplit(url)
        origin = strip_default_port(f"{parts.scheme}://{parts.netloc}".lower())
        if parts.netloc and origin not in origins:
            origins.append(origin)
    return tuple(origins)
