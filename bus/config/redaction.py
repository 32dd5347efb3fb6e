"""Redaction of settings: the variables that were read from the environment, with secrets masked."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

MASK = "•••"
_MAX_VALUE_LENGTH = 500
# A setting or URL parameter whose name contains one of these words is secret.
_SECRET_WORDS = frozenset({"SECRET", "PASSWORD", "PASSWD", "PASS", "KEY", "DSN", "HEADERS", "TOKEN", "CREDENTIALS"})
# Limits per token are not secret.
_PER_TOKEN_SUFFIX = "_PER_TOKEN"  # noqa: S105 - the suffix of a setting's name
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


class RecordingEnvironment(Mapping[str, str]):
    """An environment that records the variables read from it, so that the settings in force need no separate list."""

    def __init__(self, env: Mapping[str, str]) -> None:
        self._env = env
        self._settings: dict[str, MaskedSetting] = {}

    def __getitem__(self, name: str) -> str:
        return self._env[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._env)

    def __len__(self) -> int:
        return len(self._env)

    def get(self, name: str, default: str | None = None) -> str | None:  # type: ignore[override]
        """Return the value of a variable or its default, and record it."""
        value = self._env.get(name)
        is_default = value is None or not value.strip()
        self._settings[name] = MaskedSetting(mask(name, (default or "") if is_default else value or ""), is_default)
        return default if value is None else value

    def masked_settings(self) -> dict[str, MaskedSetting]:
        """Return all variables read so far, masked, sorted by name."""
        return dict(sorted(self._settings.items()))


def mask(name: str, value: str) -> str:
    """Return a value that is safe to show: secrets are masked, and so are credentials inside a URL.

    Args:
        name: name of the variable; decides whether the whole value is secret.
    """
    if not value:
        return value
    if is_secret(name):
        return MASK
    return (_mask_url(value) if "://" in value else value)[:_MAX_VALUE_LENGTH]


def is_secret(name: str) -> bool:
    """Return whether a variable or URL parameter of this name holds a secret."""
    upper = name.upper()
    return not upper.endswith(_PER_TOKEN_SUFFIX) and not _SECRET_WORDS.isdisjoint(re.split(r"[^A-Z0-9]+", upper))


def _mask_url(value: str) -> str:
    scheme, _, rest = value.partition("://")
    # Split at the last @: a password may contain an unescaped slash or question mark.
    userinfo, separator, host_and_path = rest.rpartition("@")
    if separator:
        user, colon, _ = userinfo.partition(":")
        # Some services use a user name without a password as the secret.
        rest = f"{user}:{MASK}@{host_and_path}" if colon else f"{MASK}@{host_and_path}"
    return f"{scheme}://{_QUERY_PARAMETER.sub(_mask_query_parameter, rest)}"


def _mask_query_parameter(match: re.Match[str]) -> str:
    name, value = match.groups()
    # libpq has parameters without a word break, such as sslpassword.
    return f"{name}={MASK if is_secret(name) or 'password' in name.lower() else value}"
