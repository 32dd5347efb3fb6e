"""Settings of the web process, read once from the environment."""

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated
from urllib.parse import urlsplit

from bus.config.redaction import Secret
from bus.config.variables import (
    Environment,
    EnvironmentSettings,
    Kind,
    Variable,
    choice,
    duration,
    name_list,
    quote,
    reading,
    require_web_url,
    secret,
    switch,
    text,
    web_url,
    whole_number,
    whole_seconds,
)

PROCESSES = ("web",)
_MINUTE, _HOUR = timedelta(minutes=1), timedelta(hours=1)
_DAY_MINUTES = 24 * 60


def _provider_url() -> Kind[str]:
    return Kind("URL", "https://, or http:// of this machine", lambda text: _parse_provider_url(text).rstrip("/"))


def _parse_provider_url(url: str) -> str:
    require_web_url(url)
    if not is_secure_url(url):
        raise ValueError(
            "must begin with https://, since secrets are sent there. Only this machine may use http://,"
            f" such as http://localhost:8080. It is {quote(url)}."
        )
    return url


def _parse_top_up_url(url: str) -> str:
    if not (url.startswith("mailto:") and "@" in url):
        require_web_url(url)
    return url


def _check_sign_up_entry(entry: str) -> None:
    if "@" not in entry or entry.endswith("@") or entry.count("@") > 1:
        raise ValueError(f"lists e-mail addresses and domains as @example.org; {quote(entry)} is neither.")


@dataclass(frozen=True, repr=False)
class OAuthClientSettings(EnvironmentSettings):
    """The id and secret of an OAuth client."""

    client_id: str
    client_secret: Secret


@dataclass(frozen=True, repr=False)
class OidcSettings(EnvironmentSettings):
    """An OpenID Connect issuer for signing in, configured by discovery."""

    issuer: str
    client_id: str
    client_secret: Secret
    name: str = "Single sign-on"


_GOOGLE_ID = Variable("GOOGLE_CLIENT_ID", text(), "client for sign-in with Google")
_GOOGLE_SECRET = Variable("GOOGLE_CLIENT_SECRET", secret(), "its secret; set both or neither")
_GITHUB_ID = Variable("GITHUB_CLIENT_ID", text(), "OAuth app for sign-in with GitHub")
_GITHUB_SECRET = Variable("GITHUB_CLIENT_SECRET", secret(), "its secret; set both or neither")
_OIDC_ISSUER = Variable(
    "OIDC_ISSUER",
    Kind("URL", "https://, or http:// of this machine", _parse_provider_url),
    "issuer for sign-in with OpenID Connect, exactly as its discovery document names it",
)
_OIDC_ID = Variable("OIDC_CLIENT_ID", text(), "client at the issuer")
_OIDC_SECRET = Variable("OIDC_CLIENT_SECRET", secret(), "its secret; set issuer, client and secret, or none")
_OIDC_NAME = Variable("OIDC_NAME", text(), "label of the sign-in button", default_text=OidcSettings.name)


@dataclass(frozen=True, repr=False)
class WebOptions(EnvironmentSettings):
    """Sign-in, sessions, limits and links.

    docs/reference/settings.md has the meaning of each; it is generated from these declarations.
    """

    secret_key: Annotated[
        Secret | None,
        Variable(
            "SECRET_KEY",
            secret(16),
            "signs visitors' cookies",
            default_text="a random key that all processes share through the database",
        ),
    ] = None
    session_idle_timeout: Annotated[
        timedelta,
        Variable(
            "SESSION_IDLE_MINUTES",
            duration(_MINUTE, 1, 365 * _DAY_MINUTES),
            "a session that is unused for so long ends; at most `SESSION_HOURS`",
        ),
    ] = timedelta(days=7)
    session_max_age: Annotated[
        timedelta,
        Variable("SESSION_HOURS", duration(_HOUR, 1, 365 * 24), "a session ends after this time even if it is used"),
    ] = timedelta(days=30)
    reauth_max_age: Annotated[
        timedelta,
        Variable(
            "OPERATOR_MINUTES",
            duration(_MINUTE, 1, _DAY_MINUTES),
            "how long after signing in an operator may act without signing in again",
        ),
    ] = timedelta(hours=1)
    proxy_hops: Annotated[
        int,
        Variable(
            "PROXY_HOPS",
            whole_number(0, 10),
            "number of proxies in front whose `X-Forwarded-For` and `X-Forwarded-Proto` are trusted",
        ),
    ] = 0
    google: Annotated[OAuthClientSettings | None, _GOOGLE_ID, _GOOGLE_SECRET] = None
    github: Annotated[OAuthClientSettings | None, _GITHUB_ID, _GITHUB_SECRET] = None
    oidc: Annotated[OidcSettings | None, _OIDC_ISSUER, _OIDC_ID, _OIDC_SECRET, _OIDC_NAME] = None
    provider_timeout_seconds: Annotated[
        float, Variable("PROVIDER_SECONDS", whole_seconds(1, 60), "how long a provider may take for a response")
    ] = 5.0
    sign_up_mode: Annotated[
        str,
        Variable("SIGN_UP", choice("open", "closed"), "whether a person without an account may open one"),
    ] = "open"
    sign_up_allowlist: Annotated[
        tuple[str, ...],
        Variable(
            "SIGN_UP_ALLOW",
            name_list("e-mail addresses, and domains as `@example.org`, separated by commas", _check_sign_up_entry),
            "who may open an account",
            default_text="all",
        ),
    ] = ()
    sso_header: Annotated[
        str | None,
        Variable(
            "SSO_HEADER",
            text("the name of a header"),
            "header in which an authenticating proxy sends the person's e-mail address",
        ),
    ] = None
    sso_proxy_secret: Annotated[
        Secret | None,
        Variable(
            "SSO_PROXY_SECRET",
            secret(16),
            "secret that this proxy sends in `X-LLM-Bus-Proxy-Secret`; set both or neither",
        ),
    ] = None
    sign_in_per_minute: Annotated[
        int,
        Variable(
            "SIGN_IN_PER_MINUTE",
            whole_number(0, 1_000_000),
            "sign-in requests per minute of one address and of one account; 0: no limit",
        ),
    ] = 30
    join_per_minute: Annotated[
        int,
        Variable(
            "JOIN_PER_MINUTE",
            whole_number(0, 1_000_000),
            "invite requests per minute of one address, and a third of it for one code; 0: no limit",
        ),
    ] = 30
    public_stats: Annotated[
        bool, Variable("PUBLIC_STATS", switch(), "whether `/api/stats` publishes totals of the service")
    ] = False
    terms_url: Annotated[str | None, Variable("TERMS_URL", web_url(), "terms of use, linked in the footer")] = None
    privacy_url: Annotated[str | None, Variable("PRIVACY_URL", web_url(), "privacy notice, linked in the footer")] = (
        None
    )
    top_up_url: Annotated[
        str | None,
        Variable(
            "TOP_UP_URL",
            Kind("URL", "http://, https:// or mailto:", _parse_top_up_url),
            "where owners buy credits; `{handle}` is replaced by the owner's handle",
        ),
    ] = None
    google_issuer: Annotated[str, Variable("GOOGLE_ISSUER", _provider_url(), "issuer of Google's ID tokens")] = (
        "https://accounts.google.com"
    )
    github_url: Annotated[str, Variable("GITHUB_URL", _provider_url(), "GitHub, or a GitHub Enterprise server")] = (
        "https://github.com"
    )
    github_api_url: Annotated[str, Variable("GITHUB_API_URL", _provider_url(), "API of the same server")] = (
        "https://api.github.com"
    )

    @classmethod
    def from_env(cls, env: Mapping[str, str] | Environment | None = None) -> "WebOptions":
        """Read the options from `env` (default: the process environment).

        Raises:
            SettingError: values are malformed, or one of two settings that belong together is missing.
        """
        with reading(env) as reader:
            values = reader.read_fields(cls)
            values["session_idle_timeout"] = min(values["session_idle_timeout"], values["session_max_age"])
            _require_pair(reader, "SSO_HEADER", "SSO_PROXY_SECRET")
            return cls(
                **values,
                google=_read_oauth_client(reader, _GOOGLE_ID, _GOOGLE_SECRET),
                github=_read_oauth_client(reader, _GITHUB_ID, _GITHUB_SECRET),
                oidc=_read_oidc(reader),
            )

    def allows_sign_up(self, email: str) -> bool:
        """Whether an owner of this verified email address may sign up."""
        if self.sign_up_mode == "closed":
            return False
        address = email.lower()
        return (
            not self.sign_up_allowlist
            or address in self.sign_up_allowlist
            or f"@{address.rpartition('@')[2]}" in self.sign_up_allowlist
        )


def _require_pair(reader: Environment, first: str, second: str) -> None:
    if reader.is_given(first) != reader.is_given(second):
        present, missing = (first, second) if reader.is_given(first) else (second, first)
        reader.add_problems([f"{present} is set and {missing} is not; set both, or neither."])


def _read_oauth_client(
    reader: Environment, id_variable: Variable[str], secret_variable: Variable[Secret]
) -> OAuthClientSettings | None:
    _require_pair(reader, id_variable.name, secret_variable.name)
    client_id, client_secret = reader.read(id_variable), reader.read(secret_variable)
    return None if client_id is None or client_secret is None else OAuthClientSettings(client_id, client_secret)


def _read_oidc(reader: Environment) -> OidcSettings | None:
    required = (_OIDC_ISSUER, _OIDC_ID, _OIDC_SECRET)
    issuer, client_id, client_secret = (reader.read(variable) for variable in required)
    name = reader.read(_OIDC_NAME, OidcSettings.name)
    given = [reader.is_given(variable.name) for variable in required]
    if any(given) and not all(given):
        missing = " and ".join(variable.name for variable in required if not reader.is_given(variable.name))
        names = "OIDC_ISSUER, OIDC_CLIENT_ID and OIDC_CLIENT_SECRET"
        reader.add_problems([f"{missing} must be set too: {names} belong together; set all, or none."])
    if issuer is None or client_id is None or client_secret is None:
        return None
    return OidcSettings(issuer, client_id, client_secret, name)


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
    return parts.scheme == "http" and _is_loopback(host)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
