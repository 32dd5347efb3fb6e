"""Attempts to sign in with a provider: what the browser keeps of one, and what becomes of an answer to none."""

import hmac
import secrets
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from authlib.common.security import generate_token

_MAX_AGE_SECONDS = 600.0


class ProviderError(Exception):
    """A provider did not vouch for anybody; the message is for the person who waits.

    Attributes:
        away: whether the provider did not answer at all, as opposed to an answer that is not to be trusted.
    """

    def __init__(self, message: str, *, unavailable: bool = False) -> None:
        super().__init__(message)
        self.message = message
        self.unavailable = unavailable


@dataclass(frozen=True, slots=True)
class OAuthState:
    """The secrets of one attempt to sign in: the browser keeps them until the provider sends it back.

    Attributes:
        state: ties the answer to this browser; nonce: ties the identity to this attempt; verifier: ties the code to it.
        at: when it began, in seconds since the epoch.
        again: whether whoever is signed in is to show once more who they are.
    """

    provider: str
    state: str
    nonce: str
    code_verifier: str
    started_at: float
    reauthenticate: bool = False

    @classmethod
    def create(cls, provider: str, *, reauthenticate: bool = False) -> "OAuthState":
        state, nonce = secrets.token_urlsafe(24), secrets.token_urlsafe(24)
        return cls(provider, state, nonce, generate_token(64), time.time(), reauthenticate)

    @classmethod
    def from_cookie(cls, value: object) -> "OAuthState | None":
        """The attempt that a cookie kept, unless it is not one."""
        try:
            return cls(**value) if isinstance(value, dict) else None
        except TypeError:
            return None

    def to_cookie(self) -> dict[str, Any]:
        """What goes into the cookie."""
        return asdict(self)

    def verify_callback(self, provider: str, callback_params: Mapping[str, str]) -> None:
        """Refuse an answer that is not to this attempt.

        Raises:
            ProviderError: another provider's, a wrong state, or too late.
        """
        state = callback_params.get("state", "")
        if self.provider != provider or not hmac.compare_digest(self.state.encode(), state.encode()):
            raise ProviderError("That answer does not belong to a sign-in that you began here. Begin again.")
        if time.time() - self.started_at > _MAX_AGE_SECONDS:
            raise ProviderError("That took too long. Begin again.")
