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

from bus.auth.identities import Claim
from webapp.oauth_state import Attempt, ProviderError
from webapp.options import OAuthSettings, WebOptions

# Signatures that only the issuer can make: no `none`, and none made with a secret that two share.
_ALGORITHMS = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"]
_METADATA_SECONDS = 3600.0
_LEEWAY_SECONDS = 60


class Provider(Protocol):
    """Somebody who vouches for people.

    Attributes:
        slug: stands in addresses; name: what people read; issuer: what identities are keyed on.
    """

    slug: str
    name: str
    issuer: str

    def address(self, attempt: Attempt, redirect_uri: str) -> str:
        """Where to send the browser."""

    def claim(self, attempt: Attempt, answer: Mapping[str, str], redirect_uri: str) -> Claim:
        """Who is there, by what the browser brought back. The answer's state was checked."""


def from_options(options: WebOptions) -> dict[str, Provider]:
    """The providers that are configured, by slug, in the order in which they are offered."""
    seconds = options.provider_seconds
    found: list[Provider] = []
    if options.oidc is not None:
        client = OAuthSettings(options.oidc.client_id, options.oidc.client_secret)
        found.append(OpenIdProvider("oidc", options.oidc.name, options.oidc.issuer, client, seconds))
    if options.google is not None:
        # Google refuses prompt=login; this is the most that it takes.
        google = OpenIdProvider(
            "google", "Google", options.google_issuer, options.google, seconds, prompt="select_account"
        )
        found.append(google)
    if options.github is not None:
        found.append(GitHubProvider(options.github, options.github_web, options.github_api, seconds))
    return {provider.slug: provider for provider in found}


class OpenIdProvider:
    """An OpenID Connect issuer, found by discovery: code flow with PKCE and nonce.

    Args:
        prompt: what asks the issuer to have somebody show once more who they are.
    """

    def __init__(
        self, slug: str, name: str, issuer: str, client: OAuthSettings, seconds: float, *, prompt: str = "login"
    ) -> None:
        self._prompt = prompt
        self.slug = slug
        self.name = name
        self.issuer = issuer
        self._settings = client
        self._seconds = seconds
        self._lock = threading.Lock()
        self._metadata: dict[str, Any] = {}
        self._fetched = 0.0
        self._keys: KeySet | None = None

    def address(self, attempt: Attempt, redirect_uri: str) -> str:
        endpoint = self._endpoint("authorization_endpoint")
        # With max_age the issuer has to say when that was.
        again = {"prompt": self._prompt, "max_age": "0"} if attempt.again else {}
        with self._client() as client:
            url, _ = client.create_authorization_url(
                endpoint,
                state=attempt.state,
                code_verifier=attempt.verifier,
                nonce=attempt.nonce,
                redirect_uri=redirect_uri,
                **again,
            )
        return str(url)

    def claim(self, attempt: Attempt, answer: Mapping[str, str], redirect_uri: str) -> Claim:
        code = _code(answer, self.name)
        # RFC 9207: an issuer that says who it is must say it, so that two issuers cannot be mixed up.
        said = answer.get("iss")
        required = self._discover().get("authorization_response_iss_parameter_supported") is True
        if (said is not None or required) and said != self.issuer:
            raise ProviderError(f"That answer does not come from {self.name}. Begin again.")
        with self._client() as client:
            token = _asked(
                self.name,
                lambda: client.fetch_token(
                    self._endpoint("token_endpoint"),
                    grant_type="authorization_code",
                    code=code,
                    code_verifier=attempt.verifier,
                    redirect_uri=redirect_uri,
                ),
            )
            facts = self._verified(token, attempt)
            at = facts.get("auth_time")
            shown = at if isinstance(at, int | float) and not isinstance(at, bool) and 0 < at < 2**33 else None
            if attempt.again and shown is not None and shown < attempt.at - _LEEWAY_SECONDS:
                raise ProviderError(f"{self.name} did not ask you again who you are. Sign out there, then try again.")
            if "email" not in facts and self._discover().get("userinfo_endpoint"):
                more = _json(self.name, lambda: client.get(self._endpoint("userinfo_endpoint")))
                # OpenID Connect Core 5.3.2: without this, anybody's profile could be slipped in.
                if more.get("sub") == facts["sub"]:
                    facts = {**more, **facts}
        verified = facts.get("email_verified") in (True, "true")
        email = facts.get("email")
        return Claim(
            issuer=self.issuer,
            subject=str(facts["sub"]),
            email=email if verified and isinstance(email, str) else None,
            login=_first_text(facts, "preferred_username", "nickname", "given_name"),
            authenticated_at=None if shown is None else datetime.fromtimestamp(shown, UTC),
        )

    def _verified(self, token: Any, attempt: Attempt) -> dict[str, Any]:
        """The claims of the ID token, once its signature, issuer, audience, times and nonce were found good."""
        text = token.get("id_token") if isinstance(token, dict) else None
        if not isinstance(text, str):
            raise ProviderError(f"{self.name} did not say who you are. Begin again.")
        try:
            try:
                decoded = self._decode(text, self._key_set())
            except InvalidKeyIdError:
                # The issuer changed its keys since they were read.
                decoded = self._decode(text, self._key_set(fresh=True))
            wanted = {
                "iss": {"essential": True, "value": self.issuer},
                "aud": {"essential": True, "value": self._settings.client_id},
                "sub": {"essential": True},
                "nonce": {"essential": True, "value": attempt.nonce},
            }
            facts = {"nonce": attempt.nonce, "client_id": self._settings.client_id}
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

    def _decode(self, text: str, keys: KeySet) -> jwt.Token:
        said = self._discover().get("id_token_signing_alg_values_supported")
        allowed = [name for name in _ALGORITHMS if not isinstance(said, list) or name in said]
        return jwt.decode(text, keys, registry=JWSRegistry(algorithms=allowed, strict_check_header=False))

    def _discover(self) -> dict[str, Any]:
        """What the issuer says of itself; read once an hour."""
        with self._lock:
            if self._metadata and time.monotonic() - self._fetched < _METADATA_SECONDS:
                return self._metadata
        address = f"{self.issuer.rstrip('/')}/.well-known/openid-configuration"
        with self._client() as client:
            metadata = _json(self.name, lambda: client.request("GET", address, withhold_token=True))
        if metadata.get("issuer") != self.issuer:
            raise ProviderError(f"{self.name} is not who it is configured to be (its issuer differs).", away=True)
        with self._lock:
            self._metadata, self._fetched, self._keys = metadata, time.monotonic(), None
        return metadata

    def _key_set(self, *, fresh: bool = False) -> KeySet:
        with self._lock:
            if self._keys is not None and not fresh:
                return self._keys
        with self._client() as client:
            found = _json(self.name, lambda: client.request("GET", self._endpoint("jwks_uri"), withhold_token=True))
        keys = KeySet.import_key_set(found)  # type: ignore[arg-type]
        with self._lock:
            self._keys = keys
        return keys

    def _endpoint(self, name: str) -> str:
        found = self._discover().get(name)
        if not isinstance(found, str) or not found.startswith(("https://", "http://")):
            raise ProviderError(f"{self.name} does not say where its {name} is.", away=True)
        return found

    def _client(self) -> OAuth2Client:
        said = self._metadata.get("token_endpoint_auth_methods_supported")
        post = isinstance(said, list) and "client_secret_basic" not in said and "client_secret_post" in said
        return _client(
            self._settings,
            self._seconds,
            scope="openid email profile",
            token_endpoint_auth_method="client_secret_post" if post else "client_secret_basic",
        )


class GitHubProvider:
    """GitHub, which speaks OAuth 2 with PKCE and has an interface of its own for who is there."""

    slug = "github"
    name = "GitHub"

    def __init__(self, client: OAuthSettings, web: str, api: str, seconds: float) -> None:
        self.issuer = web
        self._settings = client
        self._api = api
        self._seconds = seconds

    def address(self, attempt: Attempt, redirect_uri: str) -> str:
        with self._client() as client:
            url, _ = client.create_authorization_url(
                f"{self.issuer}/login/oauth/authorize",
                state=attempt.state,
                code_verifier=attempt.verifier,
                redirect_uri=redirect_uri,
            )
        return str(url)

    def claim(self, attempt: Attempt, answer: Mapping[str, str], redirect_uri: str) -> Claim:
        code = _code(answer, self.name)
        with self._client() as client:
            _asked(
                self.name,
                lambda: client.fetch_token(
                    f"{self.issuer}/login/oauth/access_token",
                    grant_type="authorization_code",
                    code=code,
                    code_verifier=attempt.verifier,
                    redirect_uri=redirect_uri,
                ),
            )
            headers = {"Accept": "application/vnd.github+json", "X-GitHub-Api-Version": "2022-11-28"}
            user = _json(self.name, lambda: client.get(f"{self._api}/user", headers=headers))
            emails = _json_list(self.name, lambda: client.get(f"{self._api}/user/emails", headers=headers))
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
        return Claim(self.issuer, str(user["id"]), email, _first_text(user, "login"))

    def _client(self) -> OAuth2Client:
        return _client(
            self._settings,
            self._seconds,
            scope="read:user user:email",
            token_endpoint_auth_method="client_secret_post",  # noqa: S106 - the name of a method
        )


def _client(settings: OAuthSettings, seconds: float, **options: Any) -> OAuth2Client:
    return OAuth2Client(
        settings.client_id,
        settings.client_secret,
        code_challenge_method="S256",
        timeout=httpx2.Timeout(seconds),
        follow_redirects=False,
        **options,
    )


def _code(answer: Mapping[str, str], name: str) -> str:
    """The code of an answer; an answer that says no is told as it is."""
    if answer.get("error") == "access_denied":
        raise ProviderError(f"You did not let {name} say who you are, so nobody was signed in.")
    code = answer.get("code", "")
    if answer.get("error") or not code:
        raise ProviderError(f"{name} did not sign you in. Begin again.")
    return code


def _asked(name: str, ask: Any) -> Any:
    """Ask a provider something; whatever goes wrong on the way is told in one way."""
    try:
        return ask()
    except AuthlibBaseError as error:
        raise ProviderError(
            f"{name} did not accept that answer; it may have been used already. Begin again."
        ) from error
    except (httpx2.HTTPError, httpx2.InvalidURL) as error:
        raise ProviderError(f"{name} does not answer.", away=True) from error
    except (ValueError, TypeError, KeyError) as error:
        raise ProviderError(f"{name} answered something that makes no sense.", away=True) from error


def _json(name: str, ask: Any) -> dict[str, Any]:
    found = _body(name, ask)
    if not isinstance(found, dict):
        raise ProviderError(f"{name} answered something that makes no sense.", away=True)
    return found


def _json_list(name: str, ask: Any) -> list[Any]:
    found = _body(name, ask)
    return found if isinstance(found, list) else []


def _body(name: str, ask: Any) -> Any:
    def whole() -> Any:
        response = ask()
        response.raise_for_status()
        return response.json()

    return _asked(name, whole)


def _first_text(facts: Mapping[str, Any], *names: str) -> str:
    return next((facts[name] for name in names if isinstance(facts.get(name), str) and facts[name]), "")
