"""Secrets that no repr, log line or error shows, and URLs with their credentials masked."""

import hmac
import re
from dataclasses import dataclass

MASK = "•••"
# A URL parameter whose name contains one of these words is secret.
_SECRET_WORDS = frozenset({"SECRET", "PASSWORD", "PASSWD", "PASS", "KEY", "DSN", "TOKEN", "CREDENTIALS"})
_QUERY_PARAMETER = re.compile(r"(?<=[?&])([^=&#]*)=([^&#]*)")


class Secret:
    """A text that is shown masked; `get_secret_value` returns it.

    It is no `str`, so code that sends it without asking for its value fails instead of sending the mask.
    """

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def get_secret_value(self) -> str:
        """Return the secret."""
        return self._value

    def __repr__(self) -> str:
        return f"Secret('{MASK}')"

    def __str__(self) -> str:
        return MASK

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and hmac.compare_digest(self._value.encode(), other._value.encode())

    def __hash__(self) -> int:
        return hash(self._value)


@dataclass(frozen=True, slots=True)
class MaskedSetting:
    """A setting in force.

    Attributes:
        value: masked; empty if it is not set and has no textual default.
        is_default: whether the environment leaves it unset.
    """

    value: str
    is_default: bool


def mask_url(value: str) -> str:
    """Return a text without the credentials of the URL that it contains; a text without a URL is returned as it is."""
    scheme, separator, rest = value.partition("://")
    if not separator:
        return value
    # Split at the last @: a password may contain an unescaped slash or question mark.
    userinfo, separator, host_and_path = rest.rpartition("@")
    if separator:
        user, colon, _ = userinfo.partition(":")
        # Some services use a user name without a password as the secret.
        rest = f"{user}:{MASK}@{host_and_path}" if colon else f"{MASK}@{host_and_path}"
    return f"{scheme}://{_QUERY_PARAMETER.sub(_mask_query_parameter, rest)}"


def _mask_query_parameter(match: re.Match[str]) -> str:
    name, value = match.groups()
    words = re.split(r"[^A-Z0-9]+", name.upper())
    # libpq has parameters without a word break, such as sslpassword.
    is_secret = not _SECRET_WORDS.isdisjoint(words) or "password" in name.lower()
    return f"{name}={MASK if is_secret else value}"
