"""Settings of the web process, read once from the environment."""

import ipaddress
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from urllib.parse import urlsplit

from bus.config.settings import SettingError, read_bool, read_int

_DAY_MINUTES = 24 * 60


@dataclass(frozen=True)
class OidcSettings:
    """An OpenID Connect issuer for signing in, configured by discovery."""

    issuer: str
    client_id: str
    client_secret: str = field(repr=False)
    name: str = "Single sign-on"


@dataclass(frozen=True)
class OAuthClientSettings:
    """The id and secret of an OAuth client."""

    client_id: str
    client_secret: str = field(repr=False)


@dataclass(frozen=True)
class WebOptions:
    """Sign-in, sessions, limits and links.

    Attributes:
        secret_key: signs the visitor's cookie; None: a key that all processes share through the database.
        session_idle_timeout: a session that is unused for so long ends.
        session_max_age: a session ends after this time even if it is used.
        reauth_max_age: how long after signing in an operator may act without signing in again.
        proxy_hops: number of trusted proxies whose X-Forwarded headers are used.
        google, github, oidc: the configured sign-in providers.
        provider_timeout_seconds: how long a provider may take for a response.
        sign_up_mode: `open` or `closed`.
        sign_up_allowlist: email addresses, and domains such as `@example.org`, in lower case; if not empty, others
            cannot sign up.
        sso_header, sso_proxy_secret: the header in which an authenticating proxy sends the user's email address, and
            the secret that it sends in X-LLM-Bus-Proxy-Secret; both or neither.
        sign_in_per_minute: sign-in attempts of one client address per minute; 0 disables the limit.
        join_per_minute: views and redemptions of invites by one client address per minute, and a third of it for one
            code; 0 disables the limit.
        public_stats: whether /api/stats is served.
        terms_url, privacy_url: links in the footer.
        top_up_url: where owners buy credits, a web or mail address; `{handle}` is replaced by the owner's handle.
        google_issuer: the issuer of Google's ID tokens.
        github_url, github_api_url: addresses of GitHub or of a GitHub Enterprise server.
    """

    secret_key: str | None = field(default=None, repr=False)
    session_idle_timeout: timedelta = timedelta(days=7)
    session_max_age: timedelta = timedelta(days=30)
    reauth_max_age: timedelta = timedelta(hours=1)
    proxy_hops: int = 0
    google: OAuthClientSettings | None = None
    github: OAuthClientSettings | None = None
    oidc: OidcSettings | None = None
    provider_timeout_seconds: float = 5.0
    sign_up_mode: str = "open"
    sign_up_allowlist: tuple[str, ...] = ()
    sso_header: str | None = None
    sso_proxy_secret: str | None = field(default=None, repr=False)
    sign_in_per_minute: int = 30
    join_per_minute: int = 30
    public_stats: bool = False
    terms_url: str | None = None
    privacy_url: str | None = None
    top_up_url: str | None = None
    google_issuer: str = "https://accounts.google.com"
    github_url: str = "https://github.com"
    github_api_url: str = "https://api.github.com"

    @classmethod
    def from_env(cls, env: Mapping[str, str] | None = None) -> "WebOptions":
        """Read the options from `env` (default: the process environment).

        Raises:
            SettingError: a value is malformed, or one of two settings that belong together is missing.
        """
        env = os.environ if env is None else env
        idle_timeout = timedelta(minutes=read_int(env, "SESSION_IDLE_MINUTES", 7 * _DAY_MINUTES, 1, 365 * _DAY_MINUTES))
        max_age = timedelta(hours=read_int(env, "SESSION_HOURS", 30 * 24, 1, 365 * 24))
        sso_header, sso_secret = _read_pair(env, "SSO_HEADER", "SSO_PROXY_SECRET")
        if sso_secret is not None and len(sso_secret) < 16:
            raise SettingError("SSO_PROXY_SECRET must have at least 16 characters; use a random value.")
        secret_key = _read_text(env, "SECRET_KEY")
        if secret_key is not None and len(secret_key) < 16:
            raise SettingError("SECRET_KEY must have at least 16 characters; use a random value, or leave it out.")
        sign_up = (_read_text(env, "SIGN_UP") or "open").lower()
        allow = tuple(
            part for part in (piece.strip().lower() for piece in env.get("SIGN_UP_ALLOW", "").split(",")) if part
        )
        if sign_up not in ("open", "closed"):
            raise SettingError(f"SIGN_UP must be open or closed; it is {sign_up!r}.")
        for entry in allow:
            if "@" not in entry or entry.endswith("@") or entry.count("@") > 1:
                raise SettingError(
                    f"SIGN_UP_ALLOW lists e-mail addresses and domains as @example.org; {entry!r} is neither."
                )
        return cls(
            secret_key=secret_key,
            session_idle_timeout=min(idle_timeout, max_age),
            session_max_age=max_age,
            reauth_max_age=timedelta(minutes=read_int(env, "OPERATOR_MINUTES", 60, 1, _DAY_MINUTES)),
            proxy_hops=read_int(env, "PROXY_HOPS", 0, 0, 10),
            google=_read_oauth_client(env, "GOOGLE"),
            github=_read_oauth_client(env, "GITHUB"),
            oidc=_read_oidc(env),
            provider_timeout_seconds=float(read_int(env, "PROVIDER_SECONDS", 5, 1, 60)),
            sign_up_mode=sign_up,
            sign_up_allowlist=allow,
            sso_header=sso_header,
            sso_proxy_secret=sso_secret,
            sign_in_per_minute=read_int(env, "SIGN_IN_PER_MINUTE", 30, 0, 1_000_000),
            join_per_minute=read_int(env, "JOIN_PER_MINUTE", 30, 0, 1_000_000),
            public_stats=read_bool(env, "PUBLIC_STATS"),
            terms_url=_read_url(env, "TERMS_URL"),
            privacy_url=_read_url(env, "PRIVACY_URL"),
            top_up_url=_read_top_up_url(env),
            google_issuer=_read_base_url(env, "GOOGLE_ISSUER", cls.google_issuer),
            github_url=_read_base_url(env, "GITHUB_URL", cls.github_url),
            github_api_url=_read_base_url(env, "GITHUB_API_URL", cls.github_api_url),
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


def _read_text(env: Mapping[str, str], name: str) -> str | None:
    return env.get(name, "").strip() or None


def _read_pair(env: Mapping[str, str], first: str, second: str) -> tuple[str | None, str | None]:
    values = _read_text(env, first), _read_text(env, second)
    if (values[0] is None) != (values[1] is None):
        missing, present = (first, second) if values[0] is None else (second, first)
        raise SettingError(f"{present} is set and {missing} is not; set both, or neither.")
    return values


def _read_oauth_client(env: Mapping[str, str], prefix: str) -> OAuthClientSettings | None:
    client_id, secret = _read_pair(env, f"{prefix}_CLIENT_ID", f"{prefix}_CLIENT_SECRET")
    return None if client_id is None or secret is None else OAuthClientSettings(client_id, secret)


def _read_oidc(env: Mapping[str, str]) -> OidcSettings | None:
    client = _read_oauth_client(env, "OIDC")
    issuer = _read_text(env, "OIDC_ISSUER")
    if (issuer is None) != (client is None):
        raise SettingError("OIDC_ISSUER, OIDC_CLIENT_ID and OIDC_CLIENT_SECRET belong together; set all, or none.")
    if issuer is None or client is None:
        return None
    _require_secure_url("OIDC_ISSUER", issuer)
    return OidcSettings(
        issuer, client.client_id, client.client_secret, _read_text(env, "OIDC_NAME") or OidcSettings.name
    )


def _read_url(env: Mapping[str, str], name: str) -> str | None:
    url = _read_text(env, name)
    if url is not None:
        _require_web_url(name, url)
    return url


def _read_top_up_url(env: Mapping[str, str]) -> str | None:
    url = _read_text(env, "TOP_UP_URL")
    if url is not None and not (url.startswith("mailto:") and "@" in url):
        _require_web_url("TOP_UP_URL", url)
    return url


def _read_base_url(env: Mapping[str, str], name: str, default: str) -> str:
    url = _read_url(env, name) or default
    _require_secure_url(name, url)
    return url.rstrip("/")


def _require_web_url(name: str, url: str) -> None:
    parts = urlsplit(url)
    if parts.scheme not in ("https", "http") or not parts.netloc:
        raise SettingError(f"{name} must be a web address such as https://example.org; it is {url!r}.")


def _require_secure_url(name: str, url: str) -> None:
    _require_web_url(name, url)
    if not is_secure_url(url):
        raise SettingError(
            f"{name} must begin with https://, since secrets are sent there. Only this machine may use http://,"
            f" such as http://localhost:8080. It is {url!r}."
        )


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
