"""Authlib's OAuth client as the base of sign-in providers, with the limits of this service.

A browser keeps few sign-ins, answers of a provider are short, and requests have deadlines.
"""

import time
from base64 import b64encode
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from contextlib import contextmanager
from typing import Any, TypedDict
from urllib.parse import quote_plus

import httpx2
from authlib.common.errors import AuthlibBaseError
from authlib.integrations.base_client import BaseApp, FrameworkIntegration, OAuth2Mixin, OpenIDMixin
from authlib.integrations.httpx_client import OAuth2Client

from bus.auth.identities import IdentityClaims
from bus.config.certificates import trusted_certificates
from webapp.provider_settings import OAuthClientSettings

_MAX_RESPONSE_BYTES = 1_000_000
# Browsers drop a cookie of more than 4 KB, and each sign-in takes up to 400 bytes of it.
_MAX_ATTEMPTS = 4
_KEY_PREFIX = "_state_"
# What a conversion of unexpected JSON raises.
MALFORMED = (ValueError, TypeError, KeyError, AttributeError)
# The last one is GitHub's.
_CLIENT_REFUSED = ("invalid_client", "unauthorized_client", "incorrect_client_credentials")


class ProviderError(Exception):
    """A sign-in with a provider failed; the message is shown to the user.

    Attributes:
        unavailable: whether the provider cannot be used at present, as opposed to a rejected sign-in.
    """

    def __init__(self, message: str, *, unavailable: bool = False) -> None:
        super().__init__(message)
        self.message = message
        self.unavailable = unavailable


class Attempt(TypedDict):
    """What the browser keeps of a sign-in until the provider redirects it back.

    Attributes:
        nonce: ties the ID token to this sign-in; empty without OpenID Connect.
        code_verifier: ties the authorization code to this sign-in (PKCE).
        redirect_uri: the address to which the provider redirects.
        started_at: in seconds since the epoch.
        reauthenticate: whether the signed-in user must authenticate again.
        linking_session_id: the session that links the provider to its account; None for a sign-in.
    """

    nonce: str
    code_verifier: str
    redirect_uri: str
    started_at: float
    reauthenticate: bool
    linking_session_id: int | None


class SignInAttempts(FrameworkIntegration):  # type: ignore[misc]
    """The sign-ins with one provider that a browser has started, each under its `state` in the visitor's cookie."""

    expires_in = 600

    def set_state_data(self, session: MutableMapping[str, Any], state: str, data: Attempt) -> None:
        """Add a sign-in; the oldest ones are dropped, whatever their provider."""
        super().set_state_data(session, state, data)
        for key in sorted(attempts_in(session), key=lambda key: session[key]["exp"])[:-_MAX_ATTEMPTS]:
            del session[key]

    def take(self, session: MutableMapping[str, Any], state: str) -> Attempt:
        """Remove and return the sign-in to which a callback belongs; only a mark of it remains.

        Raises:
            ProviderError: this browser did not start it, it is used up, or it is too old.
        """
        key = f"{_KEY_PREFIX}{self.name}_{state}"
        if key not in session:
            attempts = attempts_in(session)
            for other in attempts:
                del session[other]
            if attempts:
                raise ProviderError("That response does not belong to a sign-in that you started here. Start again.")
            raise ProviderError("No sign-in is in progress in this browser. Start again.")
        expires_at = session[key]["exp"]
        attempt: Attempt | None = self.get_state_data(session, state)
        self.clear_state_data(session, state)
        session[key] = {"exp": expires_at}
        if attempt is None:
            raise ProviderError("That sign-in is already over; its address works once. Start again if it failed.")
        if expires_at < time.time():
            raise ProviderError("That took too long. Start again.")
        return attempt


def attempts_in(session: MutableMapping[str, Any]) -> dict[str, Any]:
    """The sign-ins that a browser has started with any provider, as they are in the visitor's cookie."""
    return {key: value for key, value in session.items() if key.startswith(_KEY_PREFIX)}


class BoundedOAuth2Client(OAuth2Client):  # type: ignore[misc]
    """An HTTP client that follows no redirects and reads at most a megabyte in twice the time limit of one step.

    Args:
        timeout: how long connecting, sending and each step of receiving may take, in seconds.
    """

    def __init__(self, *args: Any, timeout: float, **options: Any) -> None:
        self._max_seconds = 2 * timeout
        super().__init__(
            *args, timeout=httpx2.Timeout(timeout), follow_redirects=False, verify=trusted_certificates(), **options
        )

    def send(self, request: httpx2.Request, **options: Any) -> httpx2.Response:
        """Send a request and read the response.

        Raises:
            httpx2.HTTPError: there is no response, or it takes too long.
            ValueError: it is too long.
        """
        deadline = time.monotonic() + self._max_seconds
        response: httpx2.Response = super().send(request, **{**options, "stream": True})
        body = bytearray()
        try:
            for chunk in response.iter_bytes():
                body += chunk
                if len(body) > _MAX_RESPONSE_BYTES:
                    raise ValueError("The response is too long.")
                if time.monotonic() > deadline:
                    raise httpx2.ReadTimeout("The response takes too long.", request=request)
        finally:
            response.close()
        # Without the headers of the transfer, since the body is decoded.
        return httpx2.Response(response.status_code, content=bytes(body), request=request)


class Provider(OAuth2Mixin, OpenIDMixin, BaseApp):  # type: ignore[misc]
    """A sign-in provider: authorization code flow with state and PKCE.

    Attributes:
        slug: its name in URLs.
        name: its name in the interface.
        issuer: the issuer under which its identities are stored.
        attempts: the sign-ins with it that a browser has started.
        credential: the end of the name of the setting with its secret.
    """

    client_cls = BoundedOAuth2Client
    credential = "SECRET"
    server_metadata: dict[str, Any]

    def __init__(
        self,
        slug: str,
        name: str,
        issuer: str,
        client_settings: OAuthClientSettings,
        client_options: dict[str, Any],
        *,
        client_auth_methods: Sequence[Any] = (),
        **metadata: Any,
    ) -> None:
        self.slug = slug
        self.issuer = issuer
        self.attempts = SignInAttempts(slug)
        super().__init__(
            self.attempts,
            name,
            client_id=client_settings.client_id,
            client_secret=client_settings.client_secret.get_secret_value(),
            client_kwargs={"code_challenge_method": "S256", **client_options},
            client_auth_methods=[("client_secret_basic", encode_basic_credentials), *client_auth_methods],
            **metadata,
        )

    def start(
        self,
        session: MutableMapping[str, Any],
        redirect_uri: str,
        *,
        reauthenticate: bool = False,
        choose_account: bool = False,
        linking_session_id: int | None = None,
    ) -> str:
        """Begin a sign-in; returns the address to which to redirect the browser.

        Args:
            session: the visitor's cookie, which keeps the sign-in until the callback.
            redirect_uri: the address of the callback.
            reauthenticate: whether the signed-in user must authenticate again.
            choose_account: whether the provider shall let the user choose another account: the last one was refused.
            linking_session_id: the session that links the provider to its account, if it is no sign-in.
        """
        params = self.reauth_params() if reauthenticate else {}
        if choose_account:
            params["prompt"] = self.choose_account_prompt()
        request = self.create_authorization_url(redirect_uri, **params)
        attempt = Attempt(
            nonce=request.get("nonce", ""),
            code_verifier=request["code_verifier"],
            redirect_uri=redirect_uri,
            started_at=time.time(),
            reauthenticate=reauthenticate,
            linking_session_id=linking_session_id,
        )
        self.attempts.set_state_data(session, request["state"], attempt)
        return str(request["url"])

    def reauth_params(self) -> dict[str, str]:
        """The parameters that make the provider authenticate the user again, if it has any."""
        return {}

    def choose_account_prompt(self) -> str:
        """The `prompt` parameter that makes the provider ask for the account."""
        return "select_account"

    def fetch_identity_claims(self, attempt: Attempt, callback_params: Mapping[str, str]) -> IdentityClaims:
        """Exchange the parameters of the callback for the claims about the user.

        Raises:
            ProviderError: the provider rejected the sign-in, did not answer, or its answer cannot be trusted.
        """
        raise NotImplementedError

    def exchange_code(self, attempt: Attempt, callback_params: Mapping[str, str]) -> dict[str, str]:
        """Exchange the authorization code of a callback; returns the tokens of the answer.

        Raises:
            ProviderError: the user or the provider declined, or did not answer.
        """
        error, code = callback_params.get("error"), callback_params.get("code")
        if error == "access_denied":
            raise ProviderError(f"You declined to sign in with {self.name}.")
        if error in ("server_error", "temporarily_unavailable"):
            raise ProviderError(f"{self.name} cannot sign you in at the moment. Try again later.", unavailable=True)
        if error in _CLIENT_REFUSED:
            raise self._client_refused()
        if error or not code:
            raise ProviderError(f"{self.name} did not sign you in. Start again.")
        with self.translated_errors():
            try:
                answer = self.fetch_access_token(
                    attempt["redirect_uri"], code=code, code_verifier=attempt["code_verifier"]
                )
            except httpx2.HTTPStatusError as failure:
                # RFC 6749, 5.2: only the answer to refused credentials has this status.
                if failure.response.status_code == 401:
                    raise self._client_refused() from failure
                raise
        names = ("access_token", "id_token")
        return {name: answer[name] for name in names if isinstance(answer.get(name), str)}

    @contextmanager
    def translated_errors(self) -> Iterator[None]:
        """Turn every failure of a request to the provider into a `ProviderError`."""
        try:
            yield
        except AuthlibBaseError as error:
            if error.error in _CLIENT_REFUSED:
                raise self._client_refused() from error
            message = f"{self.name} rejected that response; it may have been used already. Start again."
            raise ProviderError(message) from error
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            raise ProviderError(f"{self.name} does not answer.", unavailable=True) from error
        except MALFORMED as error:
            raise ProviderError(f"{self.name} sent an invalid response.", unavailable=True) from error

    def _client_refused(self) -> ProviderError:
        prefix = self.slug.upper()
        return ProviderError(
            f"{self.name} does not accept the client id and secret of this server. Its operator must check"
            f" {prefix}_CLIENT_ID and {prefix}_CLIENT_{self.credential}.",
            unavailable=True,
        )


def bearer_token(tokens: dict[str, str]) -> dict[str, str]:
    """The access token without its lifetime, which may be shorter than Authlib's leeway.

    Raises:
        KeyError: the provider sent none.
    """
    return {"access_token": tokens["access_token"], "token_type": "Bearer"}


def encode_basic_credentials(client: Any, _method: str, uri: str, headers: Any, body: Any) -> tuple[str, Any, Any]:
    """Authenticate a client as RFC 6749, 2.3.1 describes it: id and secret are form-encoded; Authlib sends them raw."""
    credentials = f"{quote_plus(client.client_id)}:{quote_plus(client.client_secret)}"
    headers["Authorization"] = f"Basic {b64encode(credentials.encode()).decode()}"
    return uri, headers, body
