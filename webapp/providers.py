"""Sign-in providers: OpenID Connect issuers and GitHub, through Authlib.

A provider builds the address to which the browser is redirected, and exchanges the parameters of the callback for
identity claims. Nothing here uses the database.
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
from webapp.settings import OAuthClientSettings, WebOptions

# Asymmetric signatures only: neither `none` nor shared secrets.
_ALGORITHMS = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"]
_METADATA_TTL_SECONDS = 3600.0
_LEEWAY_SECONDS = 60


class Provider(Protocol):
    """A sign-in provider.

    Attributes:
        slug: its name in URLs.
        name: its name in the interface.
        issuer: the issuer under which its identities are stored.
    """

    slug: str
    name: str
    issuer: str

    def authorization_url(self, oauth_state: OAuthState, redirect_uri: str) -> str:
        """The address to which to redirect the browser."""

    def fetch_identity_claims(
        self, oauth_state: OAuthState, callback_params: Mapping[str, str], redirect_uri: str
    ) -> IdentityClaims:
        """Exchange the parameters of the callback, whose state is verified, for the claims about the user.

        Raises:
            ProviderError: the provider rejected the sign-in, did not answer, or its answer cannot be trusted.
        """


def create_providers(options: WebOptions) -> dict[str, Provider]:
    """Create the configured providers, by slug, in the order in which they are offered."""
    timeout = options.provider_timeout_seconds
    providers: list[Provider] = []
    if options.oidc is not None:
        client = OAuthClientSettings(options.oidc.client_id, options.oidc.client_secret)
        providers.append(OpenIdProvider("oidc", options.oidc.name, options.oidc.issuer, client, timeout))
    if options.google is not None:
        # Google rejects prompt=login; this is the strictest prompt that it accepts.
        google = OpenIdProvider(
            "google", "Google", options.google_issuer, options.google, timeout, reauth_prompt="select_account"
        )
        providers.append(google)
    if options.github is not None:
        providers.append(GitHubProvider(options.github, options.github_url, options.github_api_url, timeout))
    return {provider.slug: provider for provider in providers}


class OpenIdProvider:
    """An OpenID Connect issuer, configured by discovery: authorization code flow with PKCE and nonce.

    Args:
        slug: its name in URLs.
        name: its name in the interface.
        issuer: the issuer URL.
        client_settings: the client that is registered at the issuer.
        timeout_seconds: how long the issuer may take for a response.
        reauth_prompt: the `prompt` parameter that makes the issuer authenticate the user again.
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
        """See `Provider`."""
        endpoint = self._get_endpoint("authorization_endpoint")
        # With max_age the issuer must return auth_time.
        reauth_params = {"prompt": self._reauth_prompt, "max_age": "0"} if oauth_state.reauthenticate else {}
        with self._create_client() as client:
            url, _ = client.create_authorization_url(
                endpoint,
                state=oauth_state.state,
                code_verifier=oauth_state.code_verifier,
                nonce=oauth_state.nonce,
                redirect_uri=redirect_uri,
                **reauth_params,
            )
        return str(url)

    def fetch_identity_claims(
        self, oauth_state: OAuthState, callback_params: Mapping[str, str], redirect_uri: str
    ) -> IdentityClaims:
        """See `Provider`."""
        code = _get_authorization_code(callback_params, self.name)
        # RFC 9207: `iss` prevents mix-up attacks, and is required from issuers that announce it.
        iss = callback_params.get("iss")
        is_required = self._get_metadata().get("authorization_response_iss_parameter_supported") is True
        if (iss is not None or is_required) and iss != self.issuer:
            raise ProviderError(f"That response does not come from {self.name}. Start again.")
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
            claims = self._verify_id_token(token, oauth_state)
            auth_time = _parse_auth_time(claims.get("auth_time"))
            earliest = oauth_state.started_at - _LEEWAY_SECONDS
            if oauth_state.reauthenticate and auth_time is not None and auth_time < earliest:
                raise ProviderError(f"{self.name} did not ask you to sign in again. Sign out there, then try again.")
            if "email" not in claims and self._get_metadata().get("userinfo_endpoint"):
                user_info = _fetch_json_object(self.name, lambda: client.get(self._get_endpoint("userinfo_endpoint")))
                # OpenID Connect Core 5.3.2: the subject must match, else it could be another user's profile.
                if user_info.get("sub") == claims["sub"]:
                    claims = {**user_info, **claims}
        is_verified = claims.get("email_verified") in (True, "true")
        email = claims.get("email")
        return IdentityClaims(
            issuer=self.issuer,
            subject=str(claims["sub"]),
            email=email if is_verified and isinstance(email, str) else None,
            login=_first_non_empty(claims, "preferred_username", "nickname", "given_name"),
            authenticated_at=None if auth_time is None else datetime.fromtimestamp(auth_time, UTC),
        )

    def _verify_id_token(self, token: Any, oauth_state: OAuthState) -> dict[str, Any]:
        """Verify signature, issuer, audience, times and nonce of the ID token; returns its claims."""
        id_token = token.get("id_token") if isinstance(token, dict) else None
        if not isinstance(id_token, str):
            raise ProviderError(f"{self.name} did not identify you. Start again.")
        try:
            try:
                decoded = self._decode_id_token(id_token, self._get_key_set())
            except InvalidKeyIdError:
                # The issuer has rotated its keys since they were cached.
                decoded = self._decode_id_token(id_token, self._get_key_set(force_refresh=True))
            claim_rules = {
                "iss": {"essential": True, "value": self.issuer},
                "aud": {"essential": True, "value": self._client_settings.client_id},
                "sub": {"essential": True},
                "nonce": {"essential": True, "value": oauth_state.nonce},
            }
            params = {"nonce": oauth_state.nonce, "client_id": self._client_settings.client_id}
            if isinstance(token.get("access_token"), str):
                params["access_token"] = token["access_token"]
            claims = CodeIDToken(decoded.claims, decoded.header, claim_rules, params)
            claims.validate(leeway=_LEEWAY_SECONDS)
        except (JoseError, ValueError, TypeError, KeyError) as error:
            raise ProviderError(f"The response of {self.name} cannot be trusted. Start again.") from error
        subject = claims["sub"]
        if not isinstance(subject, str) or not 1 <= len(subject) <= 255:
            raise ProviderError(f"{self.name} did not identify you. Start again.")
        return dict(claims)

    def _decode_id_token(self, id_token: str, key_set: KeySet) -> jwt.Token:
        supported = self._get_metadata().get("id_token_signing_alg_values_supported")
        allowed = [name for name in _ALGORITHMS if not isinstance(supported, list) or name in supported]
        return jwt.decode(id_token, key_set, registry=JWSRegistry(algorithms=allowed, strict_check_header=False))

    def _get_metadata(self) -> dict[str, Any]:
        """The issuer's metadata document; cached for an hour."""
        with self._lock:
            if self._metadata and time.monotonic() - self._metadata_fetched_at < _METADATA_TTL_SECONDS:
                return self._metadata
        url = f"{self.issuer.rstrip('/')}/.well-known/openid-configuration"
        with self._create_client() as client:
            metadata = _fetch_json_object(self.name, lambda: client.request("GET", url, withhold_token=True))
        if metadata.get("issuer") != self.issuer:
            raise ProviderError(f"{self.name} is misconfigured: its issuer differs from the setting.", unavailable=True)
        with self._lock:
            self._metadata, self._metadata_fetched_at, self._cached_key_set = metadata, time.monotonic(), None
        return metadata

    def _get_key_set(self, *, force_refresh: bool = False) -> KeySet:
        with self._lock:
            if self._cached_key_set is not None and not force_refresh:
                return self._cached_key_set
        with self._create_client() as client:
            document = _fetch_json_object(
                self.name, lambda: client.request("GET", self._get_endpoint("jwks_uri"), withhold_token=True)
            )
        key_set = KeySet.import_key_set(document)  # type: ignore[arg-type]
        with self._lock:
            self._cached_key_set = key_set
        return key_set

    def _get_endpoint(self, name: str) -> str:
        endpoint = self._get_metadata().get(name)
        if not isinstance(endpoint, str) or not endpoint.startswith(("https://", "http://")):
            raise ProviderError(f"The metadata of {self.name} has no {name}.", unavailable=True)
        return endpoint

    def _create_client(self) -> OAuth2Client:
        methods = self._metadata.get("token_endpoint_auth_methods_supported")
        post = isinstance(methods, list) and "client_secret_basic" not in methods and "client_secret_post" in methods
        return _create_oauth_client(
            self._client_settings,
            self._timeout_seconds,
            scope="openid email profile",
            token_endpoint_auth_method="client_secret_post" if post else "client_secret_basic",
        )


class GitHubProvider:
    """GitHub: OAuth 2 with PKCE, and the user's profile from its API.

    Args:
        client_settings: the OAuth app.
        web_url: address of GitHub or of a GitHub Enterprise server.
        api_url: address of its API.
        timeout_seconds: how long GitHub may take for a response.
    """

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
        """See `Provider`."""
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
        """See `Provider`."""
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
            raise ProviderError("GitHub did not identify you. Start again.")
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
        # The numeric id remains when the user changes the login name.
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
    """The authorization code of a callback.

    Raises:
        ProviderError: the user or the provider declined.
    """
    if callback_params.get("error") == "access_denied":
        raise ProviderError(f"You declined to sign in with {provider_name}.")
    code = callback_params.get("code", "")
    if callback_params.get("error") or not code:
        raise ProviderError(f"{provider_name} did not sign you in. Start again.")
    return code


def _call_provider(provider_name: str, call: Any) -> Any:
    """Call a provider, and translate every failure into a `ProviderError`."""
    try:
        return call()
    except AuthlibBaseError as error:
        raise ProviderError(
            f"{provider_name} rejected that response; it may have been used already. Start again."
        ) from error
    except (httpx2.HTTPError, httpx2.InvalidURL) as error:
        raise ProviderError(f"{provider_name} does not answer.", unavailable=True) from error
    except (ValueError, TypeError, KeyError) as error:
        raise ProviderError(f"{provider_name} sent an invalid response.", unavailable=True) from error


def _fetch_json_object(provider_name: str, call: Any) -> dict[str, Any]:
    document = _fetch_json(provider_name, call)
    if not isinstance(document, dict):
        raise ProviderError(f"{provider_name} sent an invalid response.", unavailable=True)
    return document


def _fetch_json_list(provider_name: str, call: Any) -> list[Any]:
    document = _fetch_json(provider_name, call)
    return document if isinstance(document, list) else []


def _fetch_json(provider_name: str, call: Any) -> Any:
    def fetch() -> Any:
        response = call()
        response.raise_for_status()
        return response.json()

    return _call_provider(provider_name, fetch)


def _parse_auth_time(value: object) -> float | None:
    """The `auth_time` claim in seconds since the epoch; None if it is missing or implausible."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number and 0 < value < 2**33 else None  # type: ignore[operator, arg-type]


def _first_non_empty(claims: Mapping[str, Any], *names: str) -> str:
    return next((claims[name] for name in names if isinstance(claims.get(name), str) and claims[name]), "")
