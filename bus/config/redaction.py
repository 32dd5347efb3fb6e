"""How values of settings are shown: secrets and the credentials of URLs are masked."""

import re
from dataclasses import dataclass

MASK = "•••"
_MAX_QUOTED_LENGTH = 100
# A URL parameter whose name contains one of these words is secret.
_SECRET_WORDS = frozenset({"SECRET", "PASSWORD", "PASSWD", "PASS", "KEY", "DSN", "TOKEN", "CREDENTIALS"})
# They end at the last @: a password may contain an unescaped slash or question mark.
_CREDENTIALS = re.compile(r"(?<=://)([^:@]*)(:?).*@", re.DOTALL)
_QUERY_PARAMETER = re.compile(r"(?<=[?&])([^=&#]*)=([^&#]*)")


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
    if "://" not in value:
        return value
    # Some services use a user name without a password as the secret.
    masked = _CREDENTIALS.sub(lambda match: f"{match[1] if match[2] else ''}{match[2]}{MASK}@", value, count=1)
    return _QUERY_PARAMETER.sub(_mask_query_parameter, masked)


def quote(text: str) -> str:
    """Return a given value for an error message: shortened, with credentials of a URL masked."""
    return repr(mask_url(text)[:_MAX_QUOTED_LENGTH])


def _mask_query_parameter(match: re.Match[str]) -> str:
    name, value = match.groups()
    words = re.split(r"[^A-Z0-9]+", name.upper())
    # libpq has parameters without a word break, such as sslpassword.
    is_secret = not _SECRET_WORDS.isdisjoint(words) or "password" in name.lower()
    return f"{name}={MASK if is_secret else value}"
