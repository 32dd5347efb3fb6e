"""What each role in a project may do."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal, get_args

Right = Literal["view", "act", "manage_participants", "manage_project"]
RIGHTS: tuple[Right, ...] = get_args(Right)

OWNER = "owner"
"""The role of the project's own owner, who has every right."""

# Each role has the rights of the one before it.
_RIGHTS_BY_ROLE: Mapping[str, frozenset[Right]] = MappingProxyType(
    {
        "viewer": frozenset({"view"}),
        "member": frozenset({"view", "act"}),
        "lead": frozenset({"view", "act", "manage_participants"}),
        OWNER: frozenset(RIGHTS),
    }
)
# The roles that a role gives, changes and takes away.
_MANAGED_ROLES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {"lead": ("viewer", "member"), OWNER: ("viewer", "member", "lead")}
)


def has_right(role: str | None, right: Right) -> bool:
    """Whether a role includes a right; None is no role."""
    return role is not None and right in _RIGHTS_BY_ROLE[role]


def managed_roles(role: str | None) -> tuple[str, ...]:
    """The roles that a role may give, change and take away."""
    return _MANAGED_ROLES.get(role or "", ())
