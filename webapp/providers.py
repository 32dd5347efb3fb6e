"""Sign-in providers: OpenID Connect issuers and GitHub, as clients of Authlib.

Authlib makes state, nonce and PKCE, exchanges the code, and verifies the ID token. Nothing here uses the database.
"""

import logging
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from authlib.oauth2.rfc7523 import PrivateKeyJWT, private_key_jwt_sign
from joserfc.errors import ClaimError, ExpiredTokenError, InvalidKeyIdError, JoseError
from joserfc.jwk import ECKey, RSAKey

from bus.auth.identities import IdentityClaims
from bus.config.field_types import is_secure_url
from webapp.oauth_client import MALFORMED, Attempt, Provider, ProviderError, bearer_token
from webapp.provider_settings import OAuthClientSettings, client_key_algorithm
from webapp.settings import WebOptions

# Asymmetric signatures only: neither `none` nor shared secrets.
_ALGORITHMS = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"]
_METADATA_TTL_SECONDS = 3600.0
_CLOCK_SKEW_SECONDS = 120
_log = logging.getLogger("webapp.oauth")


def create_providers(options: WebOptions) -> dict[str, Provider]:
    """Create the configured providers, by slug, in the order in which they are offered."""
    timeout = options.provider_timeout_seconds
    providers: list[Provider] = []
    if options.oidc is not None:
        client = OAuthClientSettings(options.oidc.client_id, options.oidc.client_secret)
        oidc = OpenIdProvider(
            "oidc",
            options.oidc.name,
            options.oidc.issuer,
            client,
            timeout,
            trust_email=options.oidc.trust_email,
            has_client_key=options.oidc.has_client_key,
        )
        providers.append(oidc)
    if options.google is not None:
        # Google rejects prompt=login; this is the strictest prompt that it accepts.
        google = OpenIdProvider(
            "google", "Google", options.google_issuer, options.google, timeout, reauth_prompt="select_account"
        )
        providers.append(google)
    if options.github is not None:
        providers.append(GitHubProvider(options.github, options.github_url, options.github_api_url, timeout))
    return {provider.slug: provider for provider in providers}


class OpenIdProvider(Provider):
    """An OpenID Connect issuer, configured by discovery.

    Args:
        slug: its name in URLs.
        name: its name in the interface.
        issuer: the issuer URL.
        client_settings: the client that is registered at the issuer.
        timeout_seconds: how long the issuer may take for a response.
        reauth_prompt: the `prompt` parameter that makes the issuer authenticate the user again.
        trust_email: whether its addresses count as verified although it does not say so.
        has_client_key: whether the client's secret is a private key, for private_key_jwt.
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
        trust_email: bool = False,
        has_client_key: bool = False,
    ) -> None:
        client_options = {"scope": "openid email profile", "timeout": timeout_seconds}
        auth_methods = []
        if has_client_key:
            self.credential = "KEY"
            auth_methods.append(_ClientAssertion(client_settings.client_secret.get_secret_value()))
        super().__init__(slug, name, issuer, client_settings, client_options, client_auth_methods=auth_methods)
        self._has_client_key = has_client_key
        self._trust_email = trust_email
        self._reauth_prompt = reauth_prompt
        self._metadata_expires_at = 0.0

    def reauth_params(self) -> dict[str, str]:
        """See `Provider`; with max_age the issuer must return auth_time."""
        return {"prompt": self._reauth_prompt, "max_age": "0"}

    def choose_account_prompt(self) -> str:
        """See `Provider`; `select_account` only where it is announced, since others refuse it (`oidc-provider` does).

        Asked to sign in again, the user can name another account as well.
        """
        prompts = self.load_server_metadata().get("prompt_values_supported")
        return "select_account" if isinstance(prompts, list) and "select_account" in prompts else self._reauth_prompt

    def fetch_identity_claims(self, attempt: Attempt, callback_params: Mapping[str, str]) -> IdentityClaims:
        """See `Provider`."""
        # RFC 9207: `iss` prevents mix-up attacks, and is required from issuers that announce it.
        iss = callback_params.get("iss")
        is_required = self.load_server_metadata().get("authorization_response_iss_parameter_supported") is True
        if "error" not in callback_params and (iss is not None or is_required) and iss != self.issuer:
            raise ProviderError(f"That response does not come from {self.name}. Start again.")
        tokens = self.exchange_code(attempt, callback_params)
        claims = self._verify_id_token(tokens, attempt["nonce"])
        auth_time = _parse_auth_time(claims.get("auth_time"))
        earliest = attempt["started_at"] - _CLOCK_SKEW_SECONDS
        if auth_time is not None and auth_time > time.time() + _CLOCK_SKEW_SECONDS:
            raise self._clocks_differ()
        if attempt["reauthenticate"] and auth_time is not None and auth_time < earliest:
            raise ProviderError(f"{self.name} did not ask you to sign in again. Sign out there, then try again.")
        claims = self._add_user_info(claims, tokens)
        is_verified = self._trust_email or claims.get("email_verified") in (True, "true")
        email = claims.get("email")
        return IdentityClaims(
            issuer=self.issuer,
            subject=claims["sub"],
            email=email if is_verified and isinstance(email, str) else None,
            login=_first_non_empty(claims, "preferred_username", "nickname", "given_name"),
            authenticated_at=None if auth_time is None else datetime.fromtimestamp(auth_time, UTC),
            proves_authentication=auth_time is not None,
        )

    def load_server_metadata(self) -> dict[str, Any]:
        """The metadata of the issuer, which Authlib reads in each step; at most an hour old."""
        if time.monotonic() >= self._metadata_expires_at or not self.server_metadata:
            self.server_metadata = self._fetch_metadata()
            self._metadata_expires_at = time.monotonic() + _METADATA_TTL_SECONDS
        return self.server_metadata

    def fetch_jwk_set(self, force: bool = False) -> dict[str, Any]:
        """The keys of the issuer, which Authlib keeps in the metadata."""
        with self.translated_errors():
            keys: dict[str, Any] = super().fetch_jwk_set(force)
            return keys

    def _fetch_metadata(self) -> dict[str, Any]:
        url = f"{self.issuer.rstrip('/')}/.well-known/openid-configuration"
        with self.translated_errors(), self._get_session() as client:
            response = client.request("GET", url, withhold_token=True)
            if response.status_code >= 500:
                response.raise_for_status()
        try:
            document = response.json() if response.is_success else None
        except ValueError:
            document = None
        if not isinstance(document, dict):
            raise ProviderError(
                f"There is no discovery document of {self.name} at {url}. The operator of this server must check"
                f" {self.slug.upper()}_ISSUER.",
                unavailable=True,
            )
        if document.get("issuer") != self.issuer:
            raise ProviderError(f"{self.name} is misconfigured: its issuer differs from the setting.", unavailable=True)
        # Authlib passes metadata on as options of the HTTP client, such as `verify`, so only these are kept.
        metadata = {}
        for name in ("authorization_endpoint", "token_endpoint", "jwks_uri", "userinfo_endpoint"):
            metadata[name] = document.get(name)
            is_optional = name == "userinfo_endpoint" and not metadata[name]
            if not is_optional and not is_secure_url(metadata[name]):
                raise ProviderError(f"The metadata of {self.name} has no https address as {name}.", unavailable=True)
        for name in ("authorization_response_iss_parameter_supported", "prompt_values_supported"):
            metadata[name] = document.get(name)
        supported = document.get("id_token_signing_alg_values_supported")
        algorithms = [name for name in _ALGORITHMS if not isinstance(supported, list) or name in supported]
        # An empty list would allow the defaults of the library, with shared secrets among them.
        metadata["id_token_signing_alg_values_supported"] = algorithms or _ALGORITHMS
        methods = document.get("token_endpoint_auth_methods_supported")
        metadata["token_endpoint_auth_method"] = self._choose_auth_method(methods)
        return metadata

    def _choose_auth_method(self, announced: object) -> str:
        """Choose how the client authenticates at the token endpoint.

        Raises:
            ProviderError: the issuer announces no method for which there is a setting.
        """
        # OpenID Connect Discovery: without the member it is client_secret_basic.
        methods = announced if isinstance(announced, list) and announced else ["client_secret_basic"]
        supported = ["private_key_jwt"] if self._has_client_key else ["client_secret_basic", "client_secret_post"]
        for method in supported:
            if method in methods:
                return method
        names = ", ".join(str(method) for method in methods[:5])
        raise ProviderError(
            f"{self.name} accepts only {names}. The operator of this server must set {self.slug.upper()}_CLIENT_SECRET"
            f" for client_secret_basic or client_secret_post, or {self.slug.upper()}_CLIENT_KEY for private_key_jwt.",
            unavailable=True,
        )

    def _verify_id_token(self, tokens: dict[str, str], nonce: str) -> dict[str, Any]:
        """Verify signature, issuer, audience, times and nonce of the ID token; returns its claims."""
        if "id_token" not in tokens:
            raise ProviderError(f"{self.name} did not identify you. Start again.")
        cached_keys = self.load_server_metadata().get("jwks")
        try:
            try:
                claims = self._parse_id_token(tokens, nonce)
            except (ClaimError, InvalidKeyIdError):
                # Authlib has requested unknown keys again itself.
                raise
            except (JoseError, *MALFORMED):
                if self.load_server_metadata().get("jwks") is not cached_keys:
                    raise
                # The issuer may have replaced a key and kept its id.
                self.fetch_jwk_set(force=True)
                claims = self._parse_id_token(tokens, nonce)
        except (JoseError, *MALFORMED) as error:
            if isinstance(error, ExpiredTokenError) or getattr(error, "claim", None) in ("iat", "nbf", "exp"):
                raise self._clocks_differ() from error
            raise ProviderError(f"The response of {self.name} cannot be trusted. Start again.") from error
        subject = claims["sub"]
        if not isinstance(subject, str) or not 1 <= len(subject) <= 255:
            raise ProviderError(f"{self.name} did not identify you. Start again.")
        return claims

    def _parse_id_token(self, tokens: dict[str, str], nonce: str) -> dict[str, Any]:
        claims_options = {
            "iss": {"essential": True, "value": self.issuer},
            "aud": {"essential": True, "value": self.client_id},
            "sub": {"essential": True},
            "nonce": {"essential": True, "value": nonce},
        }
        return dict(self.parse_id_token(tokens, nonce, claims_options, leeway=_CLOCK_SKEW_SECONDS))

    def _clocks_differ(self) -> ProviderError:
        return ProviderError(
            f"The response of {self.name} is from another time: its clock and that of this server differ by more than"
            " two minutes. Their operators must set them."
        )

    def _add_user_info(self, claims: dict[str, Any], tokens: dict[str, str]) -> dict[str, Any]:
        """Complete the claims from userinfo if they do not have an e-mail address and whether it is verified."""
        has_endpoint = bool(self.load_server_metadata().get("userinfo_endpoint"))
        is_known = claims.get("email_verified") is not None or self._trust_email
        if not has_endpoint or ("email" in claims and is_known):
            return claims
        try:
            with self.translated_errors():
                user_info = self.userinfo(token=bearer_token(tokens))
        except ProviderError as error:
            if "email" not in claims:
                raise
            # Known owners sign in without an address.
            _log.warning("the verification of an e-mail address is unknown: %s", error.message, exc_info=error)
            return claims
        # OpenID Connect Core 5.3.2: the subject must match, else it could be another user's profile.
        if user_info.get("sub") != claims["sub"]:
            return claims
        # An address counts as verified only by the document that names it.
        source = user_info if "email" in user_info else claims
        email = {name: source.get(name) for name in ("email", "email_verified")}
        return {**user_info, **claims, **email}


class _ClientAssertion(PrivateKeyJWT):  # type: ignore[misc]
    """Client authentication with a signed assertion (RFC 7523); Authlib itself reads RSA keys only."""

    def __init__(self, pem: str) -> None:
        super().__init__(alg=client_key_algorithm(pem))
        self._key = (RSAKey if self.alg == "RS256" else ECKey).import_key(pem)

    def sign(self, auth: Any, token_endpoint: str) -> Any:
        """Return an assertion for the token endpoint."""
        return private_key_jwt_sign(self._key, client_id=auth.client_id, token_endpoint=token_endpoint, alg=self.alg)


class GitHubProvider(Provider):
    """GitHub: OAuth 2, and the user's profile from its API.

    Args:
        client_settings: the OAuth app.
        web_url: address of GitHub or of a GitHub Enterprise server.
        api_url: address of its API.
        timeout_seconds: how long GitHub may take for a response.
    """

    def __init__(
        self, client_settings: OAuthClientSettings, web_url: str, api_url: str, timeout_seconds: float
    ) -> None:
        client_options = {
            "scope": "read:user user:email",
            "timeout": timeout_seconds,
            "token_endpoint_auth_method": "client_secret_post",
        }
        super().__init__(
            "github",
            "GitHub",
            web_url,
            client_settings,
            client_options,
            authorization_endpoint=f"{web_url}/login/oauth/authorize",
            token_endpoint=f"{web_url}/login/oauth/access_token",
        )
        self._api_url = api_url

    def fetch_identity_claims(self, attempt: Attempt, callback_params: Mapping[str, str]) -> IdentityClaims:
        """See `Provider`."""
        tokens = self.exchange_code(attempt, callback_params)
        user, emails = self._fetch_json("/user", tokens), self._fetch_json("/user/emails", tokens)
        if not isinstance(user, dict) or not isinstance(user.get("id"), int):
            raise ProviderError("GitHub did not identify you. Start again.")
        email = next(
            (
                entry["email"]
                for entry in (emails if isinstance(emails, list) else [])
                if isinstance(entry, dict)
                and entry.get("primary") is True
                and entry.get("verified") is True
                and isinstance(entry.get("email"), str)
            ),
            None,
        )
        # The numeric id remains when the user changes the login name.
        login = _first_non_empty(user, "login")
        # GitHub does not state when the user authenticated.
        return IdentityClaims(self.issuer, str(user["id"]), email, login, proves_authentication=False)

    def _fetch_json(self, path: str, tokens: dict[str, str]) -> Any:
        headers = {"Accept": "application/vnd.github+json", "X-GitHub-Api-Version": "2022-11-28"}
        with self.translated_errors():
            response = self.get(f"{self._api_url}{path}", token=bearer_token(tokens), headers=headers)
            response.raise_for_status()
            return response.json()


def _parse_auth_time(value: object) -> float | None:
    """The `auth_time` claim in seconds since the epoch; None if it is missing or implausible."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number and 0 < value < 2**33 else None  # type: ignore[operator, arg-type]


def _first_non_empty(claims: Mapping[str, Any], *names: str) -> str:
    return next((claims[name] for name in names if isinstance(claims.get(name), str) and claims[name]), "")
