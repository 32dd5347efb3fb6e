"""Settings of the web alone, read from the environment once and handed on as one frozen value."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from urllib.parse import urlsplit

from bus.config.settings import SettingError, number, switch

_DAY_MINUTES = 24 * 60


@dataclass(frozen=True)
class OidcSettings:
    """An OpenID Connect issuer that people may sign in with, found by discovery."""

    issuer: str
    client_id: str
    client_secret: str = field(repr=False)
    name: str = "Single sign-on"


@dataclass(frozen=True)
class OAuthSettings:
    """A client at a provider whose addresses are known."""

    client_id: str
    client_secret: str = field(repr=False)


@dataclass(frozen=True)
class WebOptions:
    """How people come in and what the web shows.

    Attributes:
        secret_key: signs what a visitor's cookie holds; None: a key that all processes share through the database.
        session_idle: how long a session may go unused.
        session_lasts: after which a session is over, used or not.
        reauth: how long after signing in an operator may act in others' affairs before they sign in once more.
        proxy_hops: proxies in front whose X-Forwarded headers are believed; 0 believes none.
        google, github, oidc: the providers that people may sign in with.
        provider_seconds: how long a provider may take for one answer.
        sign_up: `open`, `closed`, or `listed`: only addresses and domains of `sign_up_allow`.
        sign_up_allow: e-mail addresses, and domains as `@example.org`, in lower case.
        sso_header, sso_secret: the header in which a proxy names the e-mail address of who is there, and the secret
            with which the proxy proves in X-LLM-Bus-Proxy-Secret that it is the proxy. Both or none.
        sign_in_per_minute: acts of signing in that one address may do in a minute; 0 switches the limit off.
        join_per_minute: looks at invites and tries to redeem one that one address may make in a minute, and a third of
            it for one code; 0 switches the limit off.
        stats: whether /api/stats answers.
        terms_url, privacy_url: links in the footer.
        top_up_url: where owners get credits, a web or mail address; `{handle}` in it stands for the owner's handle.
        github_web, github_api: where GitHub is; an own GitHub server has other addresses.
    """

    secret_key: str | None = field(default=None, repr=False)
    session_idle: timedelta = timedelta(days=7)
    session_lasts: timedelta = timedelta(days=30)
    reauth: timedelta = timedelta(hours=1)
    proxy_hops: int = 0
    google: OAuthSettings | None = None
    github: OAuthSettings | None = None
    oidc: OidcSettings | None = None
    provider_seconds: float = 5.0
    sign_up: str = "open"
    sign_up_allow: tuple[str, ...] = ()
    sso_header: str | None = None
    sso_secret: str | None = field(default=None, repr=False)
    sign_in_per_minute: int = 30
    join_per_minute: int = 30
    stats: bool = False
    terms_url: str | None = None
    privacy_url: str | None = None
    top_up_url: str | None = None
    google_issuer: str = "https://accounts.google.com"
    github_web: str = "https://github.com"
    github_api: str = "https://api.github.com"

    @classmethod
    def from_env(cls, env: Mapping[str, str] | None = None) -> "WebOptions":
        """Read the options from `env` (default: the process environment).

        Raises:
            SettingError: a value has the wrong form, or one of two that belong together is missing.
        """
        env = os.environ if env is None else env
        idle = timedelta(minutes=number(env, "SESSION_IDLE_MINUTES", 7 * _DAY_MINUTES, 1, 365 * _DAY_MINUTES))
        lasts = timedelta(hours=number(env, "SESSION_HOURS", 30 * 24, 1, 365 * 24))
        sso_header, sso_secret = _pair(env, "SSO_HEADER", "SSO_PROXY_SECRET")
        if sso_secret is not None and len(sso_secret) < 16:
            raise SettingError("SSO_PROXY_SECRET must have at least 16 characters; make it random.")
        secret_key = _text(env, "SECRET_KEY")
        if secret_key is not None and len(secret_key) < 16:
            raise SettingError("SECRET_KEY must have at least 16 characters; make it random, or leave it out.")
        sign_up = (_text(env, "SIGN_UP") or "open").lower()
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
            session_idle=min(idle, lasts),
            session_lasts=lasts,
            reauth=timedelta(minutes=number(env, "OPERATOR_MINUTES", 60, 1, _DAY_MINUTES)),
            proxy_hops=number(env, "PROXY_HOPS", 0, 0, 10),
            google=_oauth(env, "GOOGLE"),
            github=_oauth(env, "GITHUB"),
            oidc=_oidc(env),
            provider_seconds=float(number(env, "PROVIDER_SECONDS", 5, 1, 60)),
            sign_up=sign_up,
            sign_up_allow=allow,
            sso_header=sso_header,
            sso_secret=sso_secret,
            sign_in_per_minute=number(env, "SIGN_IN_PER_MINUTE", 30, 0, 1_000_000),
            join_per_minute=number(env, "JOIN_PER_MINUTE", 30, 0, 1_000_000),
            stats=switch(env, "PUBLIC_STATS"),
            terms_url=_link(env, "TERMS_URL"),
            privacy_url=_link(env, "PRIVACY_URL"),
            top_up_url=_top_up(env),
            google_issuer=_base(env, "GOOGLE_ISSUER", cls.google_issuer),
            github_web=_base(env, "GITHUB_URL", cls.github_web),
            github_api=_base(env, "GITHUB_API_URL", cls.github_api),
        )

    def may_sign_up(self, email: str) -> bool:
        """Whether somebody with this verified address may open an account: by list, if there is one."""
        if self.sign_up == "closed":
            return False
        address = email.lower()
        return (
            not self.sign_up_allow
            or address in self.sign_up_allow
            or f"@{address.rpartition('@')[2]}" in self.sign_up_allow
        )


def _text(env: Mapping[str, str], name: str) -> str | None:
    return env.get(name, "").strip() or None


def _pair(env: Mapping[str, str], first: str, second: str) -> tuple[str | None, str | None]:
    one, other = _text(env, first), _text(env, second)
    if (one is None) != (other is None):
        missing, there = (first, second) if one is None else (second, first)
        raise SettingError(f"{there} is set and {missing} is not; set both, or neither.")
    return one, other


def _oauth(env: Mapping[str, str], name: str) -> OAuthSettings | None:
    client_id, secret = _pair(env, f"{name}_CLIENT_ID", f"{name}_CLIENT_SECRET")
    return None if client_id is None or secret is None else OAuthSettings(client_id, secret)


def _oidc(env: Mapping[str, str]) -> OidcSettings | None:
    client = _oauth(env, "OIDC")
    issuer = _text(env, "OIDC_ISSUER")
    if (issuer is None) != (client is None):
        raise SettingError("OIDC_ISSUER, OIDC_CLIENT_ID and OIDC_CLIENT_SECRET belong together; set all, or none.")
    if issuer is None or client is None:
        return None
    _web_address("OIDC_ISSUER", issuer)
    return OidcSettings(issuer, client.client_id, client.client_secret, _text(env, "OIDC_NAME") or OidcSettings.name)


def _link(env: Mapping[str, str], name: str) -> str | None:
    url = _text(env, name)
    if url is not None:
        _web_address(name, url)
    return url


def _top_up(env: Mapping[str, str]) -> str | None:
    url = _text(env, "TOP_UP_URL")
    if url is not None and not (url.startswith("mailto:") and "@" in url):
        _web_address("TOP_UP_URL", url)
    return url


def _base(env: Mapping[str, str], name: str, default: str) -> str:
    return (_link(env, name) or default).rstrip("/")


def _web_address(name: str, url: str) -> None:
    parts = urlsplit(url)
    if parts.scheme not in ("https", "http") or not parts.netloc:
        raise SettingError(f"{name} must be a web address such as https://example.org; it is {url!r}.")
