"""Settings that all processes share, read once from the environment (12-factor) into one frozen value."""

from collections.abc import Mapping
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, ValidationInfo, field_validator
from pydantic.config import JsonDict

from bus.config.database_url import parse_database_url
from bus.config.errors import SettingError
from bus.config.field_types import BaseUrl, LongSecret, Names, RedisUrl, RootUrl, is_secure_url
from bus.config.variables import Environment, EnvironmentSettings, reading

__all__ = ["SettingError", "Settings", "is_allowed", "serves_oauth", "strip_default_port"]

_GATEWAY: JsonDict = {"processes": ["gateway"]}
_HTTP: JsonDict = {"processes": ["gateway", "web"]}
_HTTP_AND_WORKER: JsonDict = {"processes": ["gateway", "web", "worker"]}
_HTTP_AND_CLI: JsonDict = {"processes": ["gateway", "web", "command line"]}
_ALL_BUT_BEAT: JsonDict = {"processes": ["gateway", "web", "worker", "command line"]}
_ALL: JsonDict = {"processes": ["gateway", "web", "worker", "beat", "command line"]}


class Settings(EnvironmentSettings):
    """Settings that all processes share.

    docs/reference/settings.md has the meaning of each; it is generated from these declarations. URLs have no slash at
    their end; `redis_url` and `metrics_token` are None where they are not set.
    """

    database_url: Annotated[
        str,
        AfterValidator(parse_database_url),
        Field(
            validation_alias="DATABASE_URL",
            title="URL: postgresql:// or postgres://",
            description="PostgreSQL 16 or newer, as a libpq URL; see `MIGRATION_DATABASE_URL`",
            examples=["postgresql://USER:PASSWORD@HOST/NAME"],
            json_schema_extra=_ALL
            | {"default_text": "required; the database of `llm-bus up` for its processes and the command line"},
        ),
    ]
    redis_tls_verify: Annotated[
        bool,
        Field(
            validation_alias="REDIS_TLS_VERIFY",
            description="whether the certificate of a `rediss://` server is verified; switch it off only where a"
            " platform's server has a self-signed one",
            json_schema_extra=_ALL,
        ),
    ] = True
    redis_url: Annotated[
        RedisUrl | None,
        Field(
            validation_alias="REDIS_URL",
            description="a Redis-compatible server for change notifications, limits over all processes and the queue of"
            " jobs; without it, notifications and limits stay within a process",
            json_schema_extra=_ALL | {"default_text": "none; required for worker and beat"},
        ),
    ] = None
    public_url: Annotated[
        RootUrl,
        Field(validation_alias="PUBLIC_URL", description="public address of the web", json_schema_extra=_ALL_BUT_BEAT),
    ] = "http://127.0.0.1:8787"
    mcp_url: BaseUrl = Field(
        validation_alias="MCP_URL",
        default_factory=lambda values: f"{values['public_url']}/mcp",
        description="public address of the MCP endpoint; used in all setup instructions",
        json_schema_extra=_HTTP_AND_CLI | {"default_text": "`PUBLIC_URL`/mcp"},
    )
    host: Annotated[
        str,
        Field(
            validation_alias="HOST",
            title="text: an address of this machine; empty: all of them",
            description="where the process listens",
            json_schema_extra=_HTTP_AND_WORKER,
        ),
    ] = "127.0.0.1"
    port: Annotated[
        int,
        Field(
            validation_alias="PORT",
            ge=0,
            le=65535,
            description="port where the process listens; 0: one that is free",
            json_schema_extra=_HTTP | {"default_text": "8788 (gateway), 8787 (web, serve)"},
        ),
    ] = 8788
    threads: Annotated[
        int,
        Field(
            validation_alias="GATEWAY_THREADS",
            ge=1,
            le=256,
            description="threads for engine calls; also the maximum number of database connections of the process",
            json_schema_extra=_HTTP,
        ),
    ] = 4
    queue_limit: Annotated[
        int,
        Field(
            validation_alias="GATEWAY_QUEUE",
            ge=1,
            le=1_000_000,
            description="calls that may wait for a thread before the process answers 503",
            json_schema_extra=_GATEWAY,
        ),
    ] = 1024
    process_count: Annotated[
        int,
        Field(
            validation_alias="WEB_CONCURRENCY",
            ge=1,
            le=64,
            description="gateway processes behind the port of `python -m mcp_gateway`; one for each two cores",
            json_schema_extra=_GATEWAY,
        ),
    ] = 1
    drain_seconds: Annotated[
        int,
        Field(
            validation_alias="DRAIN_SECONDS",
            ge=0,
            le=300,
            description="seconds for which the process still serves after SIGTERM, while `/healthz` and `/readyz`"
            " answer 503 and a balancer that asks sends the next calls elsewhere",
            json_schema_extra=_HTTP,
        ),
    ] = 0
    max_body_bytes: Annotated[
        int,
        Field(
            validation_alias="MAX_BODY_BYTES",
            ge=1024,
            le=64 * 1024 * 1024,
            description="larger request bodies get 413",
            json_schema_extra=_HTTP,
        ),
    ] = 1024 * 1024
    allowed_hosts: Annotated[
        Names,
        Field(
            validation_alias="ALLOWED_HOSTS",
            title="list: host names, separated by commas; `name:*` allows any port",
            description="Host headers that are served, besides those of `PUBLIC_URL` and `MCP_URL`, and loopback;"
            " others get 421",
            json_schema_extra=_HTTP,
        ),
    ] = ()
    allowed_origins: Annotated[
        Names,
        Field(
            validation_alias="ALLOWED_ORIGINS",
            title="list: origins, separated by commas; `http://name:*` allows any port",
            description="Origin headers that are served; others get 403",
            json_schema_extra=_HTTP | {"default_text": "those of `PUBLIC_URL` and `MCP_URL`, and loopback"},
        ),
    ] = ()
    rate_per_minute: Annotated[
        int,
        Field(
            validation_alias="RATE_PER_MINUTE",
            ge=0,
            le=10_000_000,
            description="calls of one token per minute, with a burst of ten seconds' worth; 0: no limit",
            json_schema_extra=_GATEWAY,
        ),
    ] = 0
    waits_per_token: Annotated[
        int,
        Field(
            validation_alias="WAITS_PER_TOKEN",
            ge=1,
            le=1_000_000,
            description="open `wait_for` calls of one token; more get 429",
            json_schema_extra=_GATEWAY,
        ),
    ] = 200
    streams_per_token: Annotated[
        int,
        Field(
            validation_alias="STREAMS_PER_TOKEN",
            ge=1,
            le=1_000_000,
            description="open `subscriptions/listen` streams of one token; more get 429",
            json_schema_extra=_GATEWAY,
        ),
    ] = 50
    oauth_server: Annotated[
        bool,
        Field(
            validation_alias="OAUTH_SERVER",
            description="whether clients may connect with the address alone and sign in by OAuth; also requires"
            " `PUBLIC_URL`, with https:// or of this machine",
            json_schema_extra=_HTTP,
        ),
    ] = True
    fast_path: Annotated[
        bool,
        Field(
            validation_alias="GATEWAY_FAST_PATH",
            description="whether ordinary calls are answered without the MCP SDK; switch it off only for comparison",
            json_schema_extra=_GATEWAY,
        ),
    ] = True
    metrics_token: Annotated[
        LongSecret | None,
        Field(
            validation_alias="METRICS_TOKEN",
            description="bearer token that reads `/metrics`; without it `/metrics` does not exist",
            json_schema_extra=_HTTP_AND_WORKER,
        ),
    ] = None

    @field_validator("redis_url")
    @classmethod
    def _choose_redis_verification(cls, url: str | None, info: ValidationInfo) -> str | None:
        if url is None or not url.startswith("rediss://") or info.data.get("redis_tls_verify", True):
            return url
        separator = "&" if "?" in url else "?"
        return url if "ssl_cert_reqs=" in url else f"{url}{separator}ssl_cert_reqs=none"

    @field_validator("allowed_hosts")
    @classmethod
    def _complete_hosts(cls, names: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        return tuple(dict.fromkeys((*_default_hosts(info.data), *names)))

    @field_validator("allowed_origins")
    @classmethod
    def _complete_origins(cls, names: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        return names or _default_origins(info.data)

    @classmethod
    def from_env(cls, env: Mapping[str, str] | Environment | None = None, *, port: int = 8788) -> "Settings":
        """Read the settings from `env` (default: the process environment).

        Args:
            port: default for PORT.

        Raises:
            SettingError: DATABASE_URL is missing, or values have the wrong form.
        """
        with reading(env) as reader:
            return reader.read(cls, keep_empty="HOST", PORT=port)


def serves_oauth(settings: Settings) -> bool:
    """Return whether the authorization server runs: it is switched on, and its public addresses are set and secure."""
    if not settings.oauth_server or "public_url" not in settings.model_fields_set:
        return False
    return is_secure_url(settings.public_url) and is_secure_url(settings.mcp_url)


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


def _public_addresses(values: Mapping[str, str]) -> list[str]:
    """Return the addresses among the values that were right."""
    return [values[name] for name in ("public_url", "mcp_url") if name in values]


def _default_hosts(values: Mapping[str, str]) -> tuple[str, ...]:
    """Return the hosts of the configured addresses, and loopback, from where health checks come."""
    hosts = [name for base in _LOOPBACK_HOSTS for name in (base, f"{base}:*")]
    for url in _public_addresses(values):
        netloc = strip_default_port(urlsplit(url).netloc.rpartition("@")[2].lower())
        if netloc and netloc not in hosts:
            hosts.append(netloc)
    return tuple(hosts)


def _default_origins(values: Mapping[str, str]) -> tuple[str, ...]:
    origins = [origin for base in _LOOPBACK_HOSTS for origin in (f"http://{base}", f"http://{base}:*")]
    for url in _public_addresses(values):
        parts = urlsplit(url)
        # A browser sends no credentials in this header.
        origin = strip_default_port(f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}".lower())
        if parts.netloc and origin not in origins:
            origins.append(origin)
    return tuple(origins)
