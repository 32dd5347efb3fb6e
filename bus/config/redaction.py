"""Settings as they may be shown: what was asked of the environment, with everything secret masked."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

MASK = "•••"
_MAX_VALUE_LENGTH = 500
# Words that make a setting, or a parameter in an address, a secret.
_SECRET_WORDS = frozenset({"SECRET", "PASSWORD", "PASSWD", "PASS", "KEY", "DSN", "HEADERS", "TOKEN", "CREDENTIALS"})
# Limits for each token are no tokens.
_PER_TOKEN_SUFFIX = "_PER_TOKEN"  # noqa: S105 - the end of a setting's name
_QUERY_PARAMETER = re.compile(r"(?<=[?&])([^=&#]*)=([^&#]*)")


@dataclass(frozen=True, slots=True)
class MaskedSetting:
    """A setting in force.

    Attributes:
        value: masked; empty where it is not set and has no default in words.
        is_default: whether nobody set it.
    """

    value: str
    is_default: bool


class RecordingEnvironment(Mapping[str, str]):
    """An environment that remembers what was asked of it, so that what is in force can be shown without a list."""

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
        """The value of a variable, or its default; noted either way."""
        value = self._env.get(name)
        is_default = value is None or not value.strip()
        self._settings[name] = MaskedSetting(mask(name, (default or "") if is_default else value or ""), is_default)
        return default if value is None else value

    def masked_settings(self) -> dict[str, MaskedSetting]:
        """Everything that was asked for so far, by name."""
        return dict(sorted(self._settings.items()))


def mask(name: str, value: str) -> str:
    """A setting's value as it may be shown: nothing of a secret, and no password of an address.

    Args:
        name: of the variable; it decides whether all of it is secret.
    """
    if not value:
        return value
    if is_secret(name):
        return MASK
    return (_mask_url(value) if "://" in value else value)[:_MAX_VALUE_LENGTH]


def is_secret(name: str) -> bool:
    """Whether a variable or a parameter of this name holds a secret."""
    upper = name.upper()
    return not upper.endswith(_PER_TOKEN_SUFFIX) and not _SECRET_WORDS.isdisjoint(re.split(r"[^A-Z0-9]+", upper))


def _mask_url(value: str) -> str:
    scheme, _, rest = value.partition("://")
    # Up to the last @: a password with a bare slash or question mark in it is still one.
    who, at, where = rest.rpartition("@")
    if at:
        user, colon, _ = who.partition(":")
        # Some services take a lone user for the secret.
        rest = f"{user}:{MASK}@{where}" if colon else f"{MASK}@{where}"
    return f"{scheme}://{_QUERY_PARAMETER.sub(_mask_query_parameter, rest)}"


def _mask_query_parameter(match: re.Match[str]) -> str:
    name, value = match.groups()
    # libpq spells some without a break: sslpassword.
    return f"{name}={MASK if is_secret(name) or 'password' in name.lower() else value}"
