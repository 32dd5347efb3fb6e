"""Settings that all processes share, read once from the environment (12-factor) into one frozen value."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any
from urllib.parse import urlsplit

from bus.config.redaction import Secret
from bus.config.variables import (
    Environment,
    EnvironmentSettings,
    Kind,
    SettingError,
    Variable,
    base_url,
    name_list,
    reading,
    secret,
    server_url,
    switch,
    text,
    whole_number,
)

__all__ = ["SettingError", "Settings", "is_allowed", "normalise_database_url", "strip_default_port"]

ALL_PROCESSES = ("gateway", "web", "worker", "beat", "command line")
_HTTP_PROCESSES = ("gateway", "web")
_GATEWAY = ("gateway",)


def normalise_database_url(url: str) -> str:
    """Accept the spelling `postgres://` that platforms use, and drop SQLAlchemy's driver suffix.

    Raises:
        SettingError: the URL has another scheme.
    """
    try:
        return _parse_database_url(url)
    except ValueError as error:
        raise SettingError(f"DATABASE_URL {error}") from None


def _parse_database_url(url: str) -> str:
    scheme, separator, rest = url.partition("://")
    if not separator or scheme.split("+")[0] not in ("postgres", "postgresql"):
        # Only a scheme is shown: what has another form may begin with a password.
        given = f"it starts with {scheme}://" if separator and scheme.isalnum() else "it has no such start"
        raise ValueError(f"must start with postgresql:// (or postgres://); {given}.")
    return f"postgresql://{rest}"


@dataclass(frozen=True, repr=False)
class Settings(EnvironmentSettings):
    """Settings that all processes share.

    docs/reference/settings.md has the meaning of each; it is generated from these declarations. URLs have no slash at
    their end; `redis_url` and `metrics_token` are None where they are not set.
    """

    database_url: Annotated[
        str,
        Variable(
            "DATABASE_URL",
            Kind("URL", "postgresql:// or postgres://", _parse_database_url),
            "PostgreSQL 16 or newer, as a libpq URL",
            default_text="required; the database of `llm-bus up` for its processes and the command line",
            processes=ALL_PROCESSES,
            if_missing="Set it to the address of a PostgreSQL, such as postgresql://USER:PASSWORD@HOST/NAME.",
        ),
    ]
    redis_url: Annotated[
        str | None,
        Variable(
            "REDIS_URL",
            server_url("redis://, rediss:// or unix://"),
            "a Redis-compatible server for change notifications, limits over all processes and the queue of jobs;"
            " without it, notifications and limits stay within a process",
            default_text="none; required for worker and beat",
            processes=ALL_PROCESSES,
        ),
    ] = None
    public_url: Annotated[
        str,
        Variable(
            "PUBLIC_URL",
            base_url(),
            "public address of the web",
            processes=(*_HTTP_PROCESSES, "worker", "command line"),
        ),
    ] = "http://127.0.0.1:8787"
    mcp_url: Annotated[
        str,
        Variable(
            "MCP_URL",
            base_url(),
            "public address of the MCP endpoint; used in all setup instructions",
            default_text="`PUBLIC_URL`/mcp",
            processes=(*_HTTP_PROCESSES, "command line"),
        ),
    ] = "http://127.0.0.1:8788/mcp"
    host: Annotated[
        str,
        Variable(
            "HOST",
            text("an address of this machine; empty: all of them", is_raw=True),
            "where the process listens",
            processes=(*_HTTP_PROCESSES, "worker"),
        ),
    ] = "127.0.0.1"
    port: Annotated[
        int,
        Variable(
            "PORT",
            whole_number(0, 65535),
            "port where the process listens; 0: one that is free",
            default_text="8788 (gateway), 8787 (web, serve)",
            processes=_HTTP_PROCESSES,
        ),
    ] = 8788
    threads: Annotated[
        int,
        Variable(
            "GATEWAY_THREADS",
            whole_number(1, 256),
            "threads for engine calls; also the maximum number of database connections of the process",
            processes=_HTTP_PROCESSES,
        ),
    ] = 4
    queue_limit: Annotated[
        int,
        Variable(
            "GATEWAY_QUEUE",
            whole_number(1, 1_000_000),
            "calls that may wait for a thread before the process answers 503",
            processes=_GATEWAY,
        ),
    ] = 1024
    max_body_bytes: Annotated[
        int,
        Variable(
            "MAX_BODY_BYTES",
            whole_number(1024, 64 * 1024 * 1024),
            "larger request bodies get 413",
            processes=_HTTP_PROCESSES,
        ),
    ] = 1024 * 1024
    allowed_hosts: Annotated[
        tuple[str, ...],
        Variable(
            "ALLOWED_HOSTS",
            name_list("host names, separated by commas; `name:*` allows any port"),
            "Host headers that are served; others get 421",
            default_text="those of `PUBLIC_URL` and `MCP_URL`, and loopback",
            processes=_HTTP_PROCESSES,
        ),
    ] = ()
    allowed_origins: Annotated[
        tuple[str, ...],
        Variable(
            "ALLOWED_ORIGINS",
            name_list("origins, separated by commas; `http://name:*` allows any port"),
            "Origin headers that are served; others get 403",
            default_text="those of `PUBLIC_URL` and `MCP_URL`, and loopback",
            processes=_HTTP_PROCESSES,
        ),
    ] = ()
    rate_per_minute: Annotated[
        int,
        Variable(
            "RATE_PER_MINUTE",
            whole_number(0, 10_000_000),
            "calls of one token per minute, with a burst of ten seconds' worth; 0: no limit",
            processes=_GATEWAY,
        ),
    ] = 0
    waits_per_token: Annotated[
        int,
        Variable(
            "WAITS_PER_TOKEN",
            whole_number(1, 1_000_000),
            "open `wait_for` calls of one token; more get 429",
            processes=_GATEWAY,
        ),
    ] = 200
    streams_per_token: Annotated[
        int,
        Variable(
            "STREAMS_PER_TOKEN",
            whole_number(1, 1_000_000),
            "open `subscriptions/listen` streams of one token; more get 429",
            processes=_GATEWAY,
        ),
    ] = 50
    fast_path: Annotated[
        bool,
        Variable(
            "GATEWAY_FAST_PATH",
            switch(),
            "whether ordinary calls are answered without the MCP SDK; switch it off only for comparison",
            processes=_GATEWAY,
        ),
    ] = True
    metrics_token: Annotated[
        Secret | None,
        Variable(
            "METRICS_TOKEN",
            secret(16),
            "bearer token that reads `/metrics`; without it `/metrics` does not exist",
            processes=(*_HTTP_PROCESSES, "worker"),
        ),
    ] = None

    @classmethod
    def from_env(cls, env: Mapping[str, str] | Environment | None = None, *, port: int = 8788) -> "Settings":
        """Read the settings from `env` (default: the process environment).

        Args:
            port: default for PORT.

        Raises:
            SettingError: DATABASE_URL is missing, or values have the wrong form.
        """
        with reading(env) as reader:
            values = reader.read_fields(
                cls,
                port=port,
                mcp_url=lambda values: f"{values['public_url']}/mcp",
                allowed_hosts=_default_hosts,
                allowed_origins=_default_origins,
            )
            # A list without a name, such as a comma, is one that is not set.
            values["allowed_hosts"] = values["allowed_hosts"] or _default_hosts(values)
            values["allowed_origins"] = values["allowed_origins"] or _default_origins(values)
            return cls(**values)


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


def _default_hosts(values: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the hosts of the configured addresses, and loopback, from where health checks come."""
    hosts = [name for base in _LOOPBACK_HOSTS for name in (base, f"{base}:*")]
    for url in (values["public_url"], values["mcp_url"]):
        netloc = strip_default_port(urlsplit(url).netloc.rpartition("@")[2].lower())
        if netloc and netloc not in hosts:
            hosts.append(netloc)
    return tuple(hosts)


def _default_origins(values: Mapping[str, Any]) -> tuple[str, ...]:
    origins = [origin for base in _LOOPBACK_HOSTS for origin in (f"http://{base}", f"http://{base}:*")]
    for url in (values["public_url"], values["mcp_url"]):
        parts = urlsplit(url)
        origin = strip_default_port(f"{parts.scheme}://{parts.netloc}".lower())
        if parts.netloc and origin not in origins:
            origins.append(origin)
    return tuple(origins)
