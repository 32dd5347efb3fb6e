"""Settings of the web process, read once from the environment."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr

from bus.config.field_types import LongSecret, MarkdownFile, Names, WebUrl, require_web_url
from bus.config.redaction import quote
from bus.config.variables import Environment, EnvironmentSettings, reading
from webapp.provider_settings import Issuer, OAuthClientSettings, OidcSettings, ProviderUrl, require_private_key

PROCESSES = ("web",)
_YEAR_HOURS, _DAY_MINUTES = 365 * 24, 24 * 60


def _require_top_up_url(url: str) -> str:
    return url if url.startswith("mailto:") and "@" in url else require_web_url(url)


def _check_sign_up_entries(entries: tuple[str, ...]) -> tuple[str, ...]:
    for entry in entries:
        if "@" not in entry or entry.endswith("@") or entry.count("@") > 1:
            raise ValueError(f"lists e-mail addresses and domains as @example.org; {quote(entry)} is neither.")
    return entries


class WebOptions(EnvironmentSettings):
    """Sign-in, sessions, limits and links.

    docs/reference/settings.md has the meaning of each; it is generated from these declarations.
    """

    secret_key: Annotated[
        LongSecret | None,
        Field(
            validation_alias="SECRET_KEY",
            description="signs visitors' cookies",
            json_schema_extra={"default_text": "a random key that all processes share through the database"},
        ),
    ] = None
    session_idle_minutes: Annotated[
        int,
        Field(
            validation_alias="SESSION_IDLE_MINUTES",
            ge=1,
            le=365 * _DAY_MINUTES,
            description="a session that is unused for so long ends; at most `SESSION_HOURS`",
        ),
    ] = 7 * _DAY_MINUTES
    session_hours: Annotated[
        int,
        Field(
            validation_alias="SESSION_HOURS",
            ge=1,
            le=_YEAR_HOURS,
            description="a session ends after this time even if it is used",
        ),
    ] = 30 * 24
    operator_minutes: Annotated[
        int,
        Field(
            validation_alias="OPERATOR_MINUTES",
            ge=1,
            le=_DAY_MINUTES,
            description="how long after signing in an operator may act without signing in again",
        ),
    ] = 60
    proxy_hops: Annotated[
        int,
        Field(
            validation_alias="PROXY_HOPS",
            ge=0,
            le=10,
            description="number of proxies in front whose `X-Forwarded-For` and `X-Forwarded-Proto` are trusted",
        ),
    ] = 0
    google_client_id: Annotated[
        str | None, Field(validation_alias="GOOGLE_CLIENT_ID", description="client for sign-in with Google")
    ] = None
    google_client_secret: Annotated[
        SecretStr | None,
        Field(validation_alias="GOOGLE_CLIENT_SECRET", description="its secret; set both or neither"),
    ] = None
    github_client_id: Annotated[
        str | None, Field(validation_alias="GITHUB_CLIENT_ID", description="OAuth app for sign-in with GitHub")
    ] = None
    github_client_secret: Annotated[
        SecretStr | None,
        Field(validation_alias="GITHUB_CLIENT_SECRET", description="its secret; set both or neither"),
    ] = None
    oidc_issuer: Annotated[
        Issuer | None,
        Field(
            validation_alias="OIDC_ISSUER",
            description="issuer for sign-in with OpenID Connect, exactly as its discovery document names it",
        ),
    ] = None
    oidc_client_id: Annotated[
        str | None, Field(validation_alias="OIDC_CLIENT_ID", description="client at the issuer")
    ] = None
    oidc_client_secret: Annotated[
        SecretStr | None,
        Field(
            validation_alias="OIDC_CLIENT_SECRET",
            description="its secret; set issuer, client and secret, or none",
        ),
    ] = None
    oidc_client_key: Annotated[
        SecretStr | None,
        AfterValidator(require_private_key),
        Field(
            validation_alias="OIDC_CLIENT_KEY",
            title="text: a private key (RSA or EC P-256) as PEM",
            description="signs the client's assertions (`private_key_jwt`); set it instead of the secret",
        ),
    ] = None
    oidc_trust_email: Annotated[
        bool,
        Field(
            validation_alias="OIDC_TRUST_EMAIL",
            description="whether e-mail addresses of this issuer count as verified although it does not say so; only"
            " for an issuer whose users cannot choose their address",
        ),
    ] = False
    oidc_name: Annotated[
        str,
        Field(
            validation_alias="OIDC_NAME",
            description="label of the sign-in button",
            json_schema_extra={"default_text": "Single sign-on"},
        ),
    ] = "Single sign-on"
    provider_timeout_seconds: Annotated[
        int,
        Field(
            validation_alias="PROVIDER_SECONDS",
            ge=1,
            le=60,
            description="how long a provider may take for a response",
        ),
    ] = 5
    sign_up_mode: Annotated[
        Literal["open", "closed"],
        BeforeValidator(str.lower),
        Field(validation_alias="SIGN_UP", description="whether a person without an account may open one"),
    ] = "open"
    sign_up_allowlist: Annotated[
        Names,
        AfterValidator(_check_sign_up_entries),
        Field(
            validation_alias="SIGN_UP_ALLOW",
            title="list: e-mail addresses, and domains as `@example.org`, separated by commas",
            description="who may open an account",
            json_schema_extra={"default_text": "all"},
        ),
    ] = ()
    sso_header: Annotated[
        str | None,
        Field(
            validation_alias="SSO_HEADER",
            title="text: the name of a header",
            description="header in which an authenticating proxy sends the person's e-mail address",
        ),
    ] = None
    sso_proxy_secret: Annotated[
        LongSecret | None,
        Field(
            validation_alias="SSO_PROXY_SECRET",
            description="secret that this proxy sends in `X-LLM-Bus-Proxy-Secret`; set both or neither",
        ),
    ] = None
    oauth_registration: Annotated[
        bool,
        Field(
            validation_alias="OAUTH_REGISTRATION",
            description="whether MCP clients without a metadata document may register themselves; see `OAUTH_SERVER`",
        ),
    ] = True
    oauth_per_minute: Annotated[
        int,
        Field(
            validation_alias="OAUTH_PER_MINUTE",
            ge=0,
            le=1_000_000,
            description="OAuth requests per minute of one address or owner, for tokens or consent; 0: no limit",
        ),
    ] = 300
    sign_in_per_minute: Annotated[
        int,
        Field(
            validation_alias="SIGN_IN_PER_MINUTE",
            ge=0,
            le=1_000_000,
            description="sign-in requests per minute of one address and of one account; 0: no limit",
        ),
    ] = 30
    join_per_minute: Annotated[
        int,
        Field(
            validation_alias="JOIN_PER_MINUTE",
            ge=0,
            le=1_000_000,
            description="invite requests per minute of one address, and a third of it for one code; 0: no limit",
        ),
    ] = 30
    shared_board_per_minute: Annotated[
        int,
        Field(
            validation_alias="SHARED_BOARD_PER_MINUTE",
            ge=0,
            le=1_000_000,
            description="requests per minute of one address for boards with a share link; 0: no limit",
        ),
    ] = 300
    public_stats: Annotated[
        bool,
        Field(validation_alias="PUBLIC_STATS", description="whether `/api/stats` publishes totals of the service"),
    ] = False
    source_url: Annotated[
        WebUrl | None,
        Field(validation_alias="SOURCE_URL", description="the source code of this server, linked in the footer"),
    ] = None
    terms_url: Annotated[
        WebUrl | None, Field(validation_alias="TERMS_URL", description="terms of use, linked in the footer")
    ] = None
    privacy_url: Annotated[
        WebUrl | None, Field(validation_alias="PRIVACY_URL", description="privacy notice, linked in the footer")
    ] = None
    terms_file: Annotated[
        MarkdownFile | None,
        Field(
            validation_alias="TERMS_FILE",
            description="terms of use, shown at `/terms` and linked in the footer; instead of `TERMS_URL`",
        ),
    ] = None
    privacy_file: Annotated[
        MarkdownFile | None,
        Field(
            validation_alias="PRIVACY_FILE",
            description="privacy notice, shown at `/privacy` and linked in the footer; instead of `PRIVACY_URL`",
        ),
    ] = None
    top_up_url: Annotated[
        Annotated[str, AfterValidator(_require_top_up_url)] | None,
        Field(
            validation_alias="TOP_UP_URL",
            title="URL: http://, https:// or mailto:",
            description="where owners buy credits; `{handle}` is replaced by the owner's handle",
        ),
    ] = None
    google_issuer: Annotated[
        ProviderUrl, Field(validation_alias="GOOGLE_ISSUER", description="issuer of Google's ID tokens")
    ] = "https://accounts.google.com"
    github_url: Annotated[
        ProviderUrl, Field(validation_alias="GITHUB_URL", description="GitHub, or a GitHub Enterprise server")
    ] = "https://github.com"
    github_api_url: Annotated[
        ProviderUrl, Field(validation_alias="GITHUB_API_URL", description="API of the same server")
    ] = "https://api.github.com"

    @property
    def session_max_age(self) -> timedelta:
        """The age at which a session ends."""
        return timedelta(hours=self.session_hours)

    @property
    def session_idle_timeout(self) -> timedelta:
        """The time without a request after which a session ends; at most its maximum age."""
        return min(timedelta(minutes=self.session_idle_minutes), self.session_max_age)

    @property
    def reauth_max_age(self) -> timedelta:
        """How long after signing in an operator may act."""
        return timedelta(minutes=self.operator_minutes)

    @property
    def google(self) -> OAuthClientSettings | None:
        """The client for sign-in with Google."""
        return _oauth_client(self.google_client_id, self.google_client_secret)

    @property
    def github(self) -> OAuthClientSettings | None:
        """The client for sign-in with GitHub."""
        return _oauth_client(self.github_client_id, self.github_client_secret)

    @property
    def oidc(self) -> OidcSettings | None:
        """The issuer for sign-in with OpenID Connect."""
        secret = self.oidc_client_key or self.oidc_client_secret
        if self.oidc_issuer is None or self.oidc_client_id is None or secret is None:
            return None
        return OidcSettings(
            self.oidc_issuer,
            self.oidc_client_id,
            secret,
            self.oidc_name,
            trust_email=self.oidc_trust_email,
            has_client_key=self.oidc_client_key is not None,
        )

    @classmethod
    def from_env(cls, env: Mapping[str, str] | Environment | None = None) -> "WebOptions":
        """Read the options from `env` (default: the process environment).

        Raises:
            SettingError: values are malformed, or one of the settings that belong together is missing.
        """
        with reading(env) as reader:
            _require_pair(reader, "SSO_HEADER", "SSO_PROXY_SECRET")
            _require_pair(reader, "GOOGLE_CLIENT_ID", "GOOGLE_CLIENT_SECRET")
            _require_pair(reader, "GITHUB_CLIENT_ID", "GITHUB_CLIENT_SECRET")
            has_key = reader.is_given("OIDC_CLIENT_KEY")
            if has_key and reader.is_given("OIDC_CLIENT_SECRET"):
                reader.add_problems(["OIDC_CLIENT_KEY and OIDC_CLIENT_SECRET are both set; set one of them."])
            for name in ("TERMS", "PRIVACY"):
                if reader.is_given(f"{name}_URL") and reader.is_given(f"{name}_FILE"):
                    reader.add_problems([f"{name}_URL and {name}_FILE are both set; set one of them."])
            oidc = ("OIDC_ISSUER", "OIDC_CLIENT_ID", "OIDC_CLIENT_KEY" if has_key else "OIDC_CLIENT_SECRET")
            missing = [name for name in oidc if not reader.is_given(name)]
            if 0 < len(missing) < len(oidc):
                names = "OIDC_ISSUER, OIDC_CLIENT_ID and OIDC_CLIENT_SECRET"
                reader.add_problems(
                    [f"{' and '.join(missing)} must be set too: {names} belong together; set all, or none."]
                )
            return reader.read(cls)

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


def _oauth_client(client_id: str | None, client_secret: SecretStr | None) -> OAuthClientSettings | None:
    return None if client_id is None or client_secret is None else OAuthClientSettings(client_id, client_secret)
