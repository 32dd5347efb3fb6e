"""The state of a sign-in with a provider: kept in the browser's cookie, verified at the callback."""

import hmac
import secrets
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from authlib.common.security import generate_token

_MAX_AGE_SECONDS = 600.0


class ProviderError(Exception):
    """A sign-in with a provider failed; the message is shown to the user.

    Attributes:
        unavailable: whether the provider did not answer or answered nonsense, as opposed to a rejected sign-in.
    """

    def __init__(self, message: str, *, unavailable: bool = False) -> None:
        super().__init__(message)
        self.message = message
        self.unavailable = unavailable


@dataclass(frozen=True, slots=True)
class OAuthState:
    """The secrets of one sign-in, kept by the browser until the provider redirects it back.

    Attributes:
        provider: slug of the provider.
        state: ties the callback to this browser.
        nonce: ties the ID token to this sign-in.
        code_verifier: ties the authorization code to this sign-in (PKCE).
        started_at: in seconds since the epoch.
        reauthenticate: whether the signed-in user must authenticate again.
    """

    provider: str
    state: str
    nonce: str
    code_verifier: str
    started_at: float
    reauthenticate: bool = False

    @classmethod
    def create(cls, provider: str, *, reauthenticate: bool = False) -> "OAuthState":
        """Begin a sign-in with new random secrets."""
        state, nonce = secrets.token_urlsafe(24), secrets.token_urlsafe(24)
        return cls(provider, state, nonce, generate_token(64), time.time(), reauthenticate)

    @classmethod
    def from_cookie(cls, value: object) -> "OAuthState | None":
        """Restore the state from a cookie's value; None if it is missing or malformed."""
        try:
            return cls(**value) if isinstance(value, dict) else None
        except TypeError:
            return None

    def to_cookie(self) -> dict[str, Any]:
        """The value to keep in the cookie."""
        return asdict(self)

    def verify_callback(self, provider: str, callback_params: Mapping[str, str]) -> None:
        """Reject a callback that does not belong to this sign-in.

        Raises:
            ProviderError: it comes from another provider, its state differs, or it is too late.
        """
        state = callback_params.get("state", "")
        if self.provider != provider or not hmac.compare_digest(self.state.encode(), state.encode()):
            raise ProviderError("That response does not belong to a sign-in that you started here. Start again.")
        if time.time() - self.started_at > _MAX_AGE_SECONDS:
            raise ProviderError("That took too long. Start again.")
