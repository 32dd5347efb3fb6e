"""Scopes: what a token allows its holder to do. Each includes the ones before it."""

from collections.abc import Sequence
from typing import Literal, get_args

Scope = Literal["read", "write", "admin"]

SCOPES: tuple[Scope, ...] = get_args(Scope)
FULL_SCOPE: Scope = "admin"
"""Of tokens whose scope was not limited. A token gives no right that its participation does not have."""
DEFAULT_CLIENT_SCOPE: Scope = "write"
"""What clients are asked to request before they need more."""
_PREFIX = "bus:"


def includes(granted: Scope, needed: Scope) -> bool:
    """Whether a token with one scope may do what needs the other."""
    return SCOPES.index(granted) >= SCOPES.index(needed)


def narrower(first: Scope, second: Scope) -> Scope:
    """Return the narrower of two scopes."""
    return first if includes(second, first) else second


def to_oauth(scope: Scope) -> str:
    """Return a scope as OAuth writes it: the list of all that it includes."""
    return " ".join(to_oauth_list(scope))


def to_oauth_list(scope: Scope = FULL_SCOPE) -> list[str]:
    """Return all that a scope includes, as OAuth names them."""
    return [f"{_PREFIX}{name}" for name in SCOPES[: SCOPES.index(scope) + 1]]


def find_widest(names: Sequence[str]) -> Scope | None:
    """Return the widest scope among names of OAuth; None if there is no known one among them."""
    return next((scope for scope in reversed(SCOPES) if f"{_PREFIX}{scope}" in names), None)


def find_unknown(names: Sequence[str]) -> str | None:
    """Return the first name that is no scope; None if all are known."""
    known = to_oauth_list()
    return next((name for name in names if name not in known), None)
