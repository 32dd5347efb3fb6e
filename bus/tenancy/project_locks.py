"""The lock under which participations, names and members of a project change: its clock, then its owner."""

from dataclasses import dataclass

import sqlalchemy as sa

from bus.db import Connection
from bus.errors import BusError, NotFound
from bus.tenancy.suspension import require_active_owner, require_not_suspended
from bus.tenancy.tables import owner, project

_ARCHIVED_REFUSAL = "This project is archived: reading works, writing does not."


_VIEWER_REFUSAL = (
    "Your role in this project is viewer: reading works, writing does not. Ask its owner for the role member."
)


@dataclass(frozen=True, slots=True)
class LockedProject:
    """A project whose clock and owner this transaction has locked, so that participations and names may change.

    Attributes:
        owner_id, owner_handle: the project's owner.
        host_id, host_handle: the owner whose participants may be added: the project's, or a member.
    """

    project_id: int
    project_name: str
    owner_id: int
    owner_handle: str
    host_id: int
    host_handle: str


def lock_project(
    conn: Connection, project_id: int, *, grants: bool = True, member_id: int | None = None
) -> LockedProject:
    """Lock the project clock and then the owner, which serialises changes of participations and names.

    Args:
        member_id: an owner with a role in the project, for its own participants; None for the project's owner.
        grants: False for acts that take access away. They work in an archived project, where tokens still read, and
            for a suspended owner, so that a leaked token can be revoked there.
    Raises:
        BusError: `not_found`, also when the member has no role; `forbidden` when the project is archived, and for a
            viewer who is granted something.
        OwnerSuspended: the project's owner or the member is suspended.
    Locks: the project clock, then the owner and the member, by ascending id.
    """
    conn.execute("SELECT bus_lock_clock(%s)", (project_id,))
    return lock_project_owner(conn, project_id, grants=grants, member_id=member_id)


def lock_project_owner(
    conn: Connection, project_id: int, *, grants: bool = True, member_id: int | None = None
) -> LockedProject:
    """As `lock_project`, where the transaction has locked the project clock already.

    Locks: the owner and the member, by ascending id.
    """
    row = conn.execute(
        sa.select(project.c.name, project.c.owner_id, project.c.archived_at).where(
            project.c.id == project_id, project.c.purging_at.is_(None)
        )
    ).one_or_none()
    if row is None:
        raise NotFound("project")
    host_id = row.owner_id if member_id is None else member_id
    owners = {
        locked.id: locked
        for locked in conn.execute(
            sa.select(owner.c.id, owner.c.handle, owner.c.suspended_at)
            .where(owner.c.id.in_({row.owner_id, host_id}))
            .order_by(owner.c.id)
            .with_for_update(key_share=True)
        )
    }
    if host_id != row.owner_id:
        # Read under the clock: the role may have changed meanwhile.
        (role,) = conn.fetch_one("SELECT bus_project_role(%s, %s)", (project_id, host_id))
        if role is None:
            raise NotFound("project")
        if grants and role == "viewer":
            raise BusError("forbidden", _VIEWER_REFUSAL)
    if grants:
        for locked in owners.values():
            require_not_suspended(locked.suspended_at)
        if row.archived_at is not None:
            raise BusError("forbidden", _ARCHIVED_REFUSAL)
    return LockedProject(
        project_id=project_id,
        project_name=row.name,
        owner_id=row.owner_id,
        owner_handle=owners[row.owner_id].handle,
        host_id=host_id,
        host_handle=owners[host_id].handle,
    )


def require_active(conn: Connection, locked_project: LockedProject) -> None:
    """Refuse what grants something in a project that is locked, while it is archived or an owner is suspended.

    Raises:
        BusError: `forbidden` when the project is archived.
        OwnerSuspended: the project's owner or the member is suspended.
    """
    for owner_id in sorted({locked_project.owner_id, locked_project.host_id}):
        require_active_owner(conn, owner_id)
    if conn.fetch_one_or_none(
        "SELECT 1 FROM project WHERE id = %s AND archived_at IS NOT NULL", (locked_project.project_id,)
    ):
        raise BusError("forbidden", _ARCHIVED_REFUSAL)
