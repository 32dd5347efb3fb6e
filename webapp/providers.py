"""Who vouches for people: OpenID Connect issuers and GitHub, spoken to through Authlib.

Each provider begins with an address to send the browser to and the secrets of this one attempt, and finishes with what
the browser brings back: a claim about who is there. Nothing here looks into our database.
"""

import threading
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Protocol

import httpx2
from authlib.common.errors import AuthlibBaseError
from authlib.integrations.httpx_client import OAuth2Client
from authlib.oidc.core import CodeIDToken
from joserfc import jwt
from joserfc.errors import InvalidKeyIdError, JoseError
from joserfc.jwk import KeySet
from joserfc.jws import JWSRegistry

from bus.auth.identities import IdentityClaims
from webapp.oauth_state import OAuthState, ProviderError
from webapp.options import OAuthClientSettings, WebOptions

# Signatures that only the issuer can make: no `none`, and none made with a secret that two share.
_ALGORITHMS = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"]
_METADATA_TTL_SECONDS = 3600.0
_LEEWAY_SECONDS = 60


class Provider(Protocol):
    """Somebody who vouches for people.

    Attributes:
        slug: stands in addresses; name: what people read; issuer: what identities are keyed on.
    """

    slug: str
    name: str
    issuer: str

    def authorization_url(self, oauth_state: OAuthState, redirect_uri: str) -> str:
        """Where to send the browser."""

    def fetch_identity_claims(
        self, oauth_state: OAuthState, callback_params: Mapping[str, str], redirect_uri: str
    ) -> IdentityClaims:
        """Who is there, by what the browser brought back. The answer's state was checked."""


def create_providers(options: WebOptions) -> dict[str, Provider]:
    """The providers that are configured, by slug, in the order in which they are offered."""
    seconds = options.provider_timeout_seconds
    found: list[Provider] = []
    if options.oidc is not None:
        client = OAuthClientSettings(options.oidc.client_id, options.oidc.client_secret)
        found.append(OpenIdProvider("oidc", options.oidc.name, options.oidc.issuer, client, seconds))
    if options.google is not None:
        # Google refuses prompt=login; this is the most that it takes.
        google = OpenIdProvider(
            "google", "Google", options.google_issuer, options.google, seconds, reauth_prompt="select_account"
        )
        found.append(google)
    if options.github is not None:
        found.append(GitHubProvider(options.github, options.github_url, options.github_api_url, seconds))
    return {provider.slug: provider for provider in found}


class OpenIdProvider:
    """An OpenID Connect issuer, found by discovery: code flow with PKCE and nonce.

    Args:
        prompt: what asks the issuer to have somebody show once more who they are.
    """

    def __init__(
        self,
        slug: str,
        name: str,
        issuer: str,
        client_settings: OAuthClientSettings,
        timeout_seconds: float,
        *,
        reauth_prompt: str = "login",
    ) -> None:
        self._reauth_prompt = reauth_prompt
        self.slug = slug
        self.name = name
        self.issuer = issuer
        self._client_settings = client_settings
        self._timeout_seconds = timeout_seconds
        self._lock = threading.Lock()
        self._metadata: dict[str, Any] = {}
        self._metadata_fetched_at = 0.0
        self._cached_key_set: KeySet | None = None

    def authorization_url(self, oauth_state: OAuthState, redirect_uri: str) -> str:
        endpoint = self._get_endpoint("authorization_endpoint")
        # With max_age the issuer has to say when that was.
        again = {"prompt": self._reauth_prompt, "max_age": "0"} if oauth_state.reauthenticate else {}
        with self._create_client() as client:
            url, _ = client.create_authorization_url(
                endpoint,
                state=oauth_state.state,
                code_verifier=oauth_state.code_verifier,
                nonce=oauth_state.nonce,
                redirect_uri=redirect_uri,
                **again,
            )
        return str(url)

    def fetch_identity_claims(
        self, oauth_state: OAuthState, callback_params: Mapping[str, str], redirect_uri: str
    ) -> IdentityClaims:
        code = _get_authorization_code(callback_params, self.name)
        # RFC 9207: an issuer that says who it is must say it, so that two issuers cannot be mixed up.
        said = callback_params.get("iss")
        required = self._get_metadata().get("authorization_response_iss_parameter_supported") is True
        if (said is not None or required) and said != self.issuer:
            raise ProviderError(f"That answer does not come from {self.name}. Begin again.")
        with self._create_client() as client:
            token = _call_provider(
                self.name,
                lambda: client.fetch_token(
                    self._get_endpoint("token_endpoint"),
                    grant_type="authorization_code",
                    code=code,
                    code_verifier=oauth_state.code_verifier,
                    redirect_uri=redirect_uri,
                ),
            )
            facts = self._verify_id_token(token, oauth_state)
            at = facts.get("auth_time")
            shown = at if isinstance(at, int | float) and not isinstance(at, bool) and 0 < at < 2**33 else None
            if oauth_state.reauthenticate and shown is not None and shown < oauth_state.started_at - _LEEWAY_SECONDS:
                raise ProviderError(f"{self.name} did not ask you again who you are. Sign out there, then try again.")
            if "email" not in facts and self._get_metadata().get("userinfo_endpoint"):
                more = _fetch_json_object(self.name, lambda: client.get(self._get_endpoint("userinfo_endpoint")))
                # OpenID Connect Core 5.3.2: without this, anybody's profile could be slipped in.
                if more.get("sub") == facts["sub"]:
                    facts = {**more, **facts}
        verified = facts.get("email_verified") in (True, "true")
        email = facts.get("email")
        return IdentityClaims(
            issuer=self.issuer,
            subject=str(facts["sub"]),
            email=email if verified and isinstance(email, str) else None,
            login=_first_non_empty(facts, "preferred_username", "nickname", "given_name"),
            authenticated_at=None if shown is None else datetime.fromtimestamp(shown, UTC),
        )

    def _verify_id_token(self, token: Any, oauth_state: OAuthState) -> dict[str, Any]:
        """The claims of the ID token, once its signature, issuer, audience, times and nonce were found good."""
        text = token.get("id_token") if isinstance(token, dict) else None
        if not isinstance(text, str):
            raise ProviderError(f"{self.name} did not say who you are. Begin again.")
        try:
            try:
                decoded = self._decode_id_token(text, self._get_key_set())
            except InvalidKeyIdError:
                # The issuer changed its keys since they were read.
                decoded = self._decode_id_token(text, self._get_key_set(force_refresh=True))
            wanted = {
                "iss": {"essential": True, "value": self.issuer},
                "aud": {"essential": True, "value": self._client_settings.client_id},
                "sub": {"essential": True},
                "nonce": {"essential": True, "value": oauth_state.nonce},
            }
            facts = {"nonce": oauth_state.nonce, "client_id": self._client_settings.client_id}
            if isinstance(token.get("access_token"), str):
                facts["access_token"] = token["access_token"]
            claims = CodeIDToken(decoded.claims, decoded.header, wanted, facts)
            claims.validate(leeway=_LEEWAY_SECONDS)
        except (JoseError, ValueError, TypeError, KeyError) as error:
            raise ProviderError(f"What {self.name} said about you cannot be trusted. Begin again.") from error
        subject = claims["sub"]
        if not isinstance(subject, str) or not 1 <= len(subject) <= 255:
            raise ProviderError(f"{self.name} did not say who you are. Begin again.")
        return dict(claims)

    def _decode_id_token(self, id_token: str, key_set: KeySet) -> jwt.Token:
        said = self._get_metadata().get("id_token_signing_alg_values_supported")
        allowed = [name for name in _ALGORITHMS if not isinstance(said, list) or name in said]
        return jwt.decode(id_token, key_set, registry=JWSRegistry(algorithms=allowed, strict_check_header=False))

    def _get_metadata(self) -> dict[str, Any]:
        """What the issuer says of itself; read once an hour."""
        with self._lock:
            if self._metadata and time.monotonic() - self._metadata_fetched_at < _METADATA_TTL_SECONDS:
                return self._metadata
        address = f"{self.issuer.rstrip('/')}/.well-known/openid-configuration"
        with self._create_client() as client:
            metadata = _fetch_json_object(self.name, lambda: client.request("GET", address, withhold_token=True))
        if metadata.get("issuer") != self.issuer:
            raise ProviderError(
                f"{self.name} is not who it is configured to be (its issuer differs).", unavailable=True
            )
        with self._lock:
            self._metadata, self._metadata_fetched_at, self._cached_key_set = metadata, time.monotonic(), None
        return metadata

    def _get_key_set(self, *, force_refresh: bool = False) -> KeySet:
        with self._lock:
            if self._cached_key_set is not None and not force_refresh:
                return self._cached_key_set
        with self._create_client() as client:
            found = _fetch_json_object(
                self.name, lambda: client.request("GET", self._get_endpoint("jwks_uri"), withhold_token=True)
            )
        keys = KeySet.import_key_set(found)  # type: ignore[arg-type]
        with self._lock:
            self._cached_key_set = keys
        return keys

    def _get_endpoint(self, name: str) -> str:
        found = self._get_metadata().get(name)
        if not isinstance(found, str) or not found.startswith(("https://", "http://")):
            raise ProviderError(f"{self.name} does not say where its {name} is.", unavailable=True)
        return found

    def _create_client(self) -> OAuth2Client:
        said = self._metadata.get("token_endpoint_auth_methods_supported")
        post = isinstance(said, list) and "client_secret_basic" not in said and "client_secret_post" in said
        return _create_oauth_client(
            self._client_settings,
            self._timeout_seconds,
            scope="openid email profile",
            token_endpoint_auth_method="client_secret_post" if post else "client_secret_basic",
        )


class GitHubProvider:
    """GitHub, which speaks OAuth 2 with PKCE and has an interface of its own for who is there."""

    slug = "github"
    name = "GitHub"

    def __init__(
        self, client_settings: OAuthClientSettings, web_url: str, api_url: str, timeout_seconds: float
    ) -> None:
        self.issuer = web_url
        self._client_settings = client_settings
        self._api_url = api_url
        self._timeout_seconds = timeout_seconds

    def authorization_url(self, oauth_state: OAuthState, redirect_uri: str) -> str:
        with self._create_client() as client:
            url, _ = client.create_authorization_url(
                f"{self.issuer}/login/oauth/authorize",
                state=oauth_state.state,
                code_verifier=oauth_state.code_verifier,
                redirect_uri=redirect_uri,
            )
        return str(url)

    def fetch_identity_claims(
        self, oauth_state: OAuthState, callback_params: Mapping[str, str], redirect_uri: str
    ) -> IdentityClaims:
        code = _get_authorization_code(callback_params, self.name)
        with self._create_client() as client:
            _call_provider(
                self.name,
                lambda: client.fetch_token(
                    f"{self.issuer}/login/oauth/access_token",
                    grant_type="authorization_code",
                    code=code,
                    code_verifier=oauth_state.code_verifier,
                    redirect_uri=redirect_uri,
                ),
            )
            headers = {"Accept": "application/vnd.github+json", "X-GitHub-Api-Version": "2022-11-28"}
            user = _fetch_json_object(self.name, lambda: client.get(f"{self._api_url}/user", headers=headers))
            emails = _fetch_json_list(self.name, lambda: client.get(f"{self._api_url}/user/emails", headers=headers))
        if not isinstance(user.get("id"), int):
            raise ProviderError("GitHub did not say who you are. Begin again.")
        email = next(
            (
                entry["email"]
                for entry in emails
                if isinstance(entry, dict)
                and entry.get("primary") is True
                and entry.get("verified") is True
                and isinstance(entry.get("email"), str)
            ),
            None,
        )
        # The number stays when somebody changes the login.
        return IdentityClaims(self.issuer, str(user["id"]), email, _first_non_empty(user, "login"))

    def _create_client(self) -> OAuth2Client:
        return _create_oauth_client(
            self._client_settings,
            self._timeout_seconds,
            scope="read:user user:email",
            token_endpoint_auth_method="client_secret_post",  # noqa: S106 - the name of a method
        )


def _create_oauth_client(settings: OAuthClientSettings, timeout_seconds: float, **options: Any) -> OAuth2Client:
    return OAuth2Client(
        settings.client_id,
        settings.client_secret,
        code_challenge_method="S256",
        timeout=httpx2.Timeout(timeout_seconds),
        follow_redirects=False,
        **options,
    )


def _get_authorization_code(callback_params: Mapping[str, str], provider_name: str) -> str:
    """The code of an answer; an answer that says no is told as it is."""
    if callback_params.get("error") == "access_denied":
        raise ProviderError(f"You did not let {provider_name} say who you are, so nobody was signed in.")
    code = callback_params.get("code", "")
    if callback_params.get("error") or not code:
        raise ProviderError(f"{provider_name} did not sign you in. Begin again.")
    return code


def _call_provider(provider_name: str, call: Any) -> Any:
    """Ask a provider something; whatever goes wrong on the way is told in one way."""
    try:
        return call()
    except AuthlibBaseError as error:
        raise ProviderError(
            f"{provider_name} did not accept that answer; it may have been used already. Begin again."
        ) from error
    except (httpx2.HTTPError, httpx2.InvalidURL) as error:
        raise ProviderError(f"{provider_name} does not answer.", unavailable=True) from error
    except (ValueError, TypeError, KeyError) as error:
        raise ProviderError(f"{provider_name} answered something that makes no sense.", unavailable=True) from error


def _fetch_json_object(provider_name: str, call: Any) -> dict[str, Any]:
    found = _fetch_json(provider_name, call)
    if not isinstance(found, dict):
        raise ProviderError(f"{provider_name} answered something that makes no sense.", unavailable=True)
    return found


def _fetch_json_list(provider_name: str, call: Any) -> list[Any]:
    found = _fetch_json(provider_name, call)
    return found if isinstance(found, list) else []


def _fetch_json(provider_name: str, call: Any) -> Any:
    def whole() -> Any:
        response = call()
        response.raise_for_status()
        return response.json()

    return _call_provider(provider_name, whole)


def _first_non_empty(claims: Mapping[str, Any], *names: str) -> str:
    return next((claims[name] for name in names if isinstance(claims.get(name), str) and claims[name]), "")
