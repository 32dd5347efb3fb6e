"""Memberships: owners other than the project's own in a project, each with a role and under their own handle.

What a role may do is in bus/rules/member_rights.py. Every change locks the project clock and reads the role of
the owner who makes it under that lock, so authority ends with the role that gave it.
Source: docs/decisions/0051-people-in-a-project.md
"""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import cast

import sqlalchemy as sa

from bus.db import Connection
from bus.errors import BusError, InvalidArgument, NotFound
from bus.rules.enums import MEMBER_ROLES
from bus.rules.member_rights import OWNER, managed_roles
from bus.tenancy import owner_participation, participation_queries, participations, project_locks
from bus.tenancy.invite_authority import end_unauthorized_invites
from bus.tenancy.lookalikes import find_lookalike
from bus.tenancy.participation_queries import Participation
from bus.tenancy.project_locks import LockedProject
from bus.tenancy.suspension import refuse_suspended_lead
from bus.tenancy.tables import membership

MAX_LISTED = 200


@dataclass(frozen=True, slots=True)
class Member:
    """A person in a project.

    Attributes:
        role: `owner` for the project's own owner.
        participant_count: their participants in the project, without themselves; counted up to 1,000.
        last_seen: the person in the web; None if never.
    """

    owner_id: int
    handle: str
    role: str
    created_at: datetime
    participant_count: int
    last_seen: datetime | None


def find_role(conn: Connection, owner_id: int, project_id: int) -> str | None:
    """Return the role of an owner in a project, `owner` for its own; None without one, or while it is deleted."""
    row = conn.fetch_one_or_none("SELECT bus_project_role(%s, %s)", (project_id, owner_id))
    return None if row is None else cast("str | None", row[0])


def list_roles(conn: Connection, pairs: Collection[tuple[int, int]]) -> dict[tuple[int, int], str]:
    """Return the roles of pairs of an owner and a project; those without one are left out."""
    rows = conn.fetch_all(
        "SELECT asked.owner_id, asked.project_id, bus_project_role(asked.project_id, asked.owner_id)"
        " FROM unnest(%s::bigint[], %s::bigint[]) AS asked (owner_id, project_id)"
        " WHERE bus_project_role(asked.project_id, asked.owner_id) IS NOT NULL",
        ([owner_id for owner_id, _ in pairs], [project_id for _, project_id in pairs]),
    )
    return {(owner_id, project_id): role for owner_id, project_id, role in rows}


def has_memberships(conn: Connection, owner_id: int) -> bool:
    """Whether an owner has a role in a project of another one."""
    return conn.fetch_one_or_none("SELECT 1 FROM membership WHERE owner_id = %s LIMIT 1", (owner_id,)) is not None


def has_acting_members(conn: Connection, project_id: int) -> bool:
    """Whether other owners than its own act in a project."""
    query = "SELECT 1 FROM membership WHERE project_id = %s AND role <> 'viewer' LIMIT 1"
    return conn.fetch_one_or_none(query, (project_id,)) is not None


_MEMBERS_SQL = """
    SELECT people.owner_id, o.handle, people.role, people.created_at,
           (SELECT count(*) FROM (
                SELECT FROM participation p JOIN participant pt ON pt.id = p.participant_id AND pt.removed_at IS NULL
                WHERE p.project_id = %(project)s AND p.removed_at IS NULL AND pt.owner_id = people.owner_id
                  AND pt.label <> '' LIMIT 1000) AS capped) AS participant_count,
           (SELECT pr.last_seen FROM participant_name n
            JOIN participation p ON p.participant_id = n.participant_id AND p.project_id = %(project)s
            JOIN presence pr ON pr.project_id = p.project_id AND pr.participation_id = p.id
            WHERE n.owner_id = people.owner_id AND n.label_key = '') AS last_seen
    FROM (SELECT pj.owner_id, 'owner' AS role, pj.created_at FROM project pj WHERE pj.id = %(project)s
          UNION ALL SELECT m.owner_id, m.role, m.created_at FROM membership m WHERE m.project_id = %(project)s
         ) AS people
    JOIN owner o ON o.id = people.owner_id
    ORDER BY people.role <> 'owner', o.handle LIMIT %(limit)s
"""


def list_members(conn: Connection, project_id: int) -> list[Member]:
    """List the persons in a project, its own owner first, then by handle; at most MAX_LISTED."""
    return conn.fetch_all_as(Member, _MEMBERS_SQL, {"project": project_id, "limit": MAX_LISTED})


def require_managed_role(role: str | None, managed: str) -> None:
    """Refuse an act on a role that another role may not give or take away.

    Raises:
        BusError: `forbidden`.
    """
    if managed not in managed_roles(role):
        raise BusError("forbidden", f"Your role in this project does not manage the role {managed}; ask its owner.")


def add(conn: Connection, project_id: int, owner_id: int, role: str, *, actor: str) -> LockedProject:
    """Give an owner a role in a project; the caller has checked that it may, and that there is none.

    Raises:
        BusError: `conflict` when the handle is the name of a participant in the project or looks like a name there, or
            the project is full.
        OwnerSuspended: the project's owner or the new member is suspended.
    Locks: the owners; the caller has locked the project clock.
    """
    (count,) = conn.fetch_one("SELECT count(*) FROM membership WHERE project_id = %s", (project_id,))
    if count >= MAX_LISTED - 1:
        raise BusError("conflict", f"This project has {MAX_LISTED} people, the most that it can have.")
    # In this order: a foreign key locks the new member, too.
    conn.execute(
        "SELECT 1 FROM owner WHERE id = %(owner)s OR id = (SELECT owner_id FROM project WHERE id = %(project)s)"
        " ORDER BY id FOR NO KEY UPDATE",
        {"owner": owner_id, "project": project_id},
    )
    conn.execute(sa.insert(membership).values(project_id=project_id, owner_id=owner_id, role=role))
    # A viewer is granted nothing but its own participation.
    locked_project = project_locks.lock_project_owner(conn, project_id, grants=False, member_id=owner_id)
    project_locks.require_active(conn, locked_project)
    _refuse_handle_in_use(conn, project_id, owner_id, locked_project.host_handle)
    owner_participation.create_own_participation(conn, locked_project, is_admin=role == "lead")
    participations.record_act(
        conn, locked_project, owner_id, actor, "membership.add", locked_project.host_handle, role=role
    )
    return locked_project


def set_role(conn: Connection, project_id: int, owner_id: int, role: str, *, acting_owner_id: int, actor: str) -> bool:
    """Change the role of a member; return whether anything changed.

    A lead who is one no longer loses the invites that it gave. A member who becomes viewer gives back what it works on
    and loses its participants in the project. A lower role takes rights away, so it works in an archived project and
    while an owner is suspended, except for a suspended lead who changes the role of others.

    Args:
        acting_owner_id: the owner who changes it, whose role is read under the lock.
    Raises:
        BusError: `not_found` when either has no role; `forbidden` when the acting owner's does not manage it.
    Locks: the project clock, then the owners.
    """
    if role not in MEMBER_ROLES:
        raise InvalidArgument(f"role must be one of: {', '.join(MEMBER_ROLES)}.")
    locked_project, present = _lock_managed(conn, project_id, owner_id, acting_owner_id)
    require_managed_role(find_role(conn, acting_owner_id, project_id), role)
    if role == present:
        return False
    if MEMBER_ROLES.index(role) > MEMBER_ROLES.index(present):
        project_locks.require_active(conn, locked_project)
    conn.execute(
        sa.update(membership)
        .where(membership.c.project_id == project_id, membership.c.owner_id == owner_id)
        .values(role=role)
    )
    own, others = _list_participations(conn, project_id, owner_id)
    if role == "viewer":
        participations.give_back_work(conn, project_id, own)
        for participation in others:
            participations.end_participation(conn, locked_project, participation, actor=actor)
    for participation in own:
        participations.update(conn, participation.id, is_admin=role == "lead")
    participations.record_act(
        conn, locked_project, owner_id, actor, "membership.role", locked_project.host_handle, role=role, before=present
    )
    for participation in own:
        end_unauthorized_invites(conn, locked_project.owner_id, project_id, participation.id, actor=actor)
    return True


def remove(conn: Connection, project_id: int, owner_id: int, *, acting_owner_id: int, actor: str) -> None:
    """Remove a member from a project, or leave it, with all participants of the member there.

    Tokens are revoked, lanes left, live leases released, and unfinished tasks return to the queue. What was posted
    stays under its name. It works in an archived project and while an owner is suspended, except for a suspended lead
    who removes others.

    Args:
        acting_owner_id: the owner who removes it, whose role is read under the lock; the member itself to leave.
    Raises:
        BusError: `not_found` when either has no role; `forbidden` when the acting owner's does not manage it.
    Locks: the project clock, then the owners.
    """
    locked_project, present = _lock_managed(conn, project_id, owner_id, acting_owner_id)
    own, others = _list_participations(conn, project_id, owner_id)
    conn.execute(sa.delete(membership).where(membership.c.project_id == project_id, membership.c.owner_id == owner_id))
    for participation in (*others, *own):
        participations.end_participation(conn, locked_project, participation, actor=actor)
    participations.record_act(
        conn, locked_project, owner_id, actor, "membership.remove", locked_project.host_handle, role=present
    )


def _lock_managed(conn: Connection, project_id: int, owner_id: int, acting_owner_id: int) -> tuple[LockedProject, str]:
    """Lock the project and return it with the member's role, if the acting owner manages it or is the member."""
    conn.execute("SELECT bus_lock_clock(%s)", (project_id,))
    acting_role = find_role(conn, acting_owner_id, project_id)
    if acting_role is None:
        raise NotFound("project")
    role = find_role(conn, owner_id, project_id)
    if role is None:
        raise NotFound("member")
    if role == OWNER:
        raise BusError("forbidden", "The owner of a project stays in it; archive or delete the project instead.")
    if owner_id != acting_owner_id:
        require_managed_role(acting_role, role)
        refuse_suspended_lead(conn, project_id, acting_owner_id)
    return project_locks.lock_project_owner(conn, project_id, grants=False, member_id=owner_id), role


def _list_participations(
    conn: Connection, project_id: int, owner_id: int
) -> tuple[list[Participation], list[Participation]]:
    """Return the own participation of an owner in a project, and those of its participants."""
    listed = participation_queries.list_of_owner(conn, project_id, owner_id)
    return [each for each in listed if each.is_owner], [each for each in listed if not each.is_owner]


def _refuse_handle_in_use(conn: Connection, project_id: int, owner_id: int, handle: str) -> None:
    if conn.fetch_one_or_none(
        "SELECT 1 FROM participation p JOIN participant_name n ON n.participant_id = p.participant_id"
        " JOIN participant pt ON pt.id = p.participant_id AND pt.removed_at IS NULL"
        " JOIN owner_handle h ON h.owner_id = %s AND h.handle = n.label_key"
        " WHERE p.project_id = %s AND p.removed_at IS NULL",
        (owner_id, project_id),
    ):
        raise BusError(
            "conflict",
            f"A participant of this project is called {handle}, which is your handle; ask the sender of the invite.",
            reason="name_taken",
        )
    name = find_lookalike(conn, (project_id,), handle, except_owner_id=owner_id)
    if name is not None:
        raise BusError(
            "conflict",
            f"Your handle {handle} looks like {name}, a name in this project; change your handle, or ask the sender of"
            " the invite.",
            reason="name_taken",
        )
