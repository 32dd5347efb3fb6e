"""Participations: participants in projects, with their lane and admin flag.

Functions that take an `actor` act for the project's owner; the others act for the caller of a tool.
"""

from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import sqlalchemy as sa

from bus.ctx import Ctx
from bus.db import Connection
from bus.errors import BusError, InvalidArgument, NotFound
from bus.rules import validation
from bus.rules.member_rights import OWNER, managed_roles
from bus.scopes import FULL_SCOPE, Scope
from bus.tenancy import audit, authentication, owners, participants, token_store
from bus.tenancy.invite_authority import end_unauthorized_invites
from bus.tenancy.participants import Participant
from bus.tenancy.suspension import refuse_suspended_lead, require_active_owner, require_not_suspended
from bus.tenancy.tables import owner, participant_name, participation, project

ARCHIVED_REFUSAL = "This project is archived: reading works, writing does not."
VIEWER_REFUSAL = (
    "Your role in this project is viewer: reading works, writing does not. Ask its owner for the role member."
)


@dataclass(frozen=True, slots=True)
class Participation:
    """A participant in a project.

    Attributes:
        label: the name by which the project's owner knows it: the label, the handle of a person, or, of another
            owner's participant, the qualified name.
        actor: the qualified name.
        owner_id: the participant's owner; another one than the project's for a participant of a member.
        granted_lane: the lane that the owner granted; a lane that the participant registered takes precedence.
    """

    id: int
    participant_id: int
    label: str
    actor: str
    kind: str
    granted_lane: str | None
    is_admin: bool
    owner_id: int

    @property
    def is_owner(self) -> bool:
        """Whether it is an owner's own participation, which acts in the web and has no token."""
        return "/" not in self.actor


@dataclass(frozen=True, slots=True)
class IssuedParticipation:
    """A participation with a new token, which is shown only once. Stored as JSON and printed by --json.

    Attributes:
        participant: the participant's label.
        lane: the granted lane.
        created: whether the participant is new.
        scope: what the token allows.
    """

    participation_id: int
    project: str
    participant: str
    actor: str
    kind: str
    lane: str | None
    is_admin: bool
    token: str = field(repr=False)
    created: bool = False
    scope: Scope = FULL_SCOPE


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
            raise BusError("forbidden", VIEWER_REFUSAL)
    if grants:
        for locked in owners.values():
            require_not_suspended(locked.suspended_at)
        if row.archived_at is not None:
            raise BusError("forbidden", ARCHIVED_REFUSAL)
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
        raise BusError("forbidden", ARCHIVED_REFUSAL)


def get(
    conn: Connection,
    project_id: int,
    reference: str | int,
    argument: str = "participant_name",
    *,
    caller_participation_id: int | None = None,
) -> Participation:
    """Return the participation with this name (`label`, `handle/label` or a person's `handle`) or id in a project.

    Args:
        caller_participation_id: among whose owner's participants a label is looked up; None for the project's owner.
    Raises:
        BusError: `unknown_recipient` for a name, with up to five similar names; `not_found` for an id.
    """
    match = find(conn, project_id, reference, argument, caller_participation_id=caller_participation_id)
    if match is not None:
        return match
    if isinstance(reference, int):
        raise NotFound("participant in the project")
    raise participants.unknown_recipient_error(conn, project_id, reference, caller_participation_id)


def get_addressable(conn: Connection, ctx: Ctx, project_id: int, name: str, argument: str) -> Participation:
    """As `get` for the caller of a tool, but refuse a participant whose owner is a viewer.

    Raises:
        BusError: `forbidden` for a viewer.
    """
    match = get(conn, project_id, name, argument, caller_participation_id=ctx.participation_id)
    conn.execute("SELECT bus_refuse_viewer(%s, %s)", (project_id, match.id))
    return match


def find(
    conn: Connection,
    project_id: int,
    reference: str | int,
    argument: str = "participant_name",
    *,
    caller_participation_id: int | None = None,
) -> Participation | None:
    """As `get`, but return None where there is no match."""
    if isinstance(reference, int):
        return conn.fetch_one_or_none_as(
            Participation, f"{_PARTICIPATION_SQL} AND p.project_id = %s AND p.id = %s", (project_id, reference)
        )
    handle, label = validation.qualified_name(reference, argument)
    return conn.fetch_one_or_none_as(
        Participation,
        f"{_PARTICIPATION_SQL} AND p.id = bus_find_participation(%s, %s, %s, %s)",
        (project_id, handle, validation.label_key(label), caller_participation_id),
    )


def find_of_participant(conn: Connection, project_id: int, participant_id: int) -> Participation | None:
    """Return the participation of a participant in a project, or None."""
    return conn.fetch_one_or_none_as(
        Participation,
        f"{_PARTICIPATION_SQL} AND p.project_id = %s AND p.participant_id = %s",
        (project_id, participant_id),
    )


def get_token_holder(
    conn: Connection, project_id: int, reference: str | int, *, host_id: int | None = None
) -> Participation:
    """As `get`, but refuse a person's own participation, which has no token, no granted lane and no other rights.

    Args:
        host_id: refuse participants of other owners, of whom no one else may hold a token.
    Raises:
        BusError: `forbidden` for a person's own participation, and for one of another owner.
    """
    match = get(conn, project_id, reference)
    if match.is_owner:
        raise BusError("forbidden", f"{match.actor} is a person, who acts in the web and has no token.")
    if host_id is not None and match.owner_id != host_id:
        handle = match.actor.partition("/")[0]
        raise BusError("forbidden", f"{match.actor} is a participant of {handle}, who alone gives it tokens.")
    return match


def list_participations(conn: Connection, project_id: int, *, after: int = 0, limit: int = 200) -> list[Participation]:
    """List the participations of a project by id, at most `limit`, with ids above `after`."""
    return conn.fetch_all_as(
        Participation,
        f"{_PARTICIPATION_SQL} AND p.project_id = %s AND p.id > %s ORDER BY p.id LIMIT %s",
        (project_id, after, limit),
    )


def list_of_owner(conn: Connection, project_id: int, owner_id: int) -> list[Participation]:
    """List the participations of one owner's participants in a project, by id."""
    return conn.fetch_all_as(
        Participation,
        f"{_PARTICIPATION_SQL} AND p.project_id = %s AND pt.owner_id = %s ORDER BY p.id",
        (project_id, owner_id),
    )


_PARTICIPATION_SQL = (
    "SELECT p.id, p.participant_id, bus_name_for(pj.owner_id, o.id, o.handle, pt.label) AS label,"
    " bus_qualified_name(o.handle, pt.label) AS actor, pt.kind, p.lane AS granted_lane, p.is_admin, pt.owner_id"
    " FROM participation p JOIN project pj ON pj.id = p.project_id JOIN participant pt ON pt.id = p.participant_id"
    " JOIN owner o ON o.id = pt.owner_id WHERE p.removed_at IS NULL AND pt.removed_at IS NULL"
)


def join(
    conn: Connection,
    project_id: int,
    name: str,
    *,
    kind: str | None = None,
    lane: str | None = None,
    is_admin: bool = False,
    ttl: timedelta | None = None,
    member_id: int | None = None,
    scope: Scope = FULL_SCOPE,
    actor: str,
) -> IssuedParticipation:
    """Add a participant to a project and issue a token; create the participant where the owner has none of that name.

    Args:
        member_id: an owner with a role in the project, whose participant it is; None for the project's owner.
        name: the participant's label, or `handle/label` with the owner's own handle.
        kind: `agent` (the default) or `human`; an existing participant keeps its kind.
        lane: the granted lane, or None; its newest unacknowledged posts are delivered.
        ttl: how long the token lives; None means until it is revoked.
        scope: what the token allows.
    Raises:
        BusError: `conflict` when the participant is in the project already, or when the name belongs or belonged
            to another one; `forbidden` when the project is archived.
    Locks: the project clock, then the owner.
    """
    locked_project = lock_project(conn, project_id, member_id=member_id)
    return join_locked_project(
        conn,
        locked_project,
        name,
        kind=kind,
        lane=lane,
        is_admin=is_admin,
        ttl=ttl,
        scope=scope,
        actor=actor,
    )


def provision(
    conn: Connection,
    ctx: Ctx,
    name: str,
    *,
    kind: str | None = None,
    lane: str | None = None,
    is_admin: bool = False,
    scope: Scope = FULL_SCOPE,
) -> IssuedParticipation:
    """As `join`, in the caller's project and as its project-admin.

    Raises:
        BusError: as `join`; `forbidden` unless the caller is project-admin.
    Locks: the project clock, then the owner.
    """
    actor = authentication.authorize_admin(conn, ctx)
    locked_project = lock_project_owner(conn, ctx.project_id)
    return join_locked_project(
        conn, locked_project, name, kind=kind, lane=lane, is_admin=is_admin, scope=scope, actor=actor
    )


def join_locked_project(
    conn: Connection,
    locked_project: LockedProject,
    name: str,
    *,
    kind: str | None = None,
    lane: str | None = None,
    is_admin: bool = False,
    ttl: timedelta | None = None,
    scope: Scope = FULL_SCOPE,
    actor: str,
    require_new: bool = False,
) -> IssuedParticipation:
    """As `join`, in a project that is locked.

    Args:
        require_new: refuse a participant that the owner already has, in this project or another (invites).
    """
    handle, label = validation.qualified_name(name, "participant_name")
    if handle is not None and not owners.has_or_had_handle(conn, locked_project.host_id, handle):
        raise InvalidArgument(
            f"participant_name must be a plain label; only participants of {locked_project.host_handle} can be added."
        )
    valid_kind = participants.validate_kind(kind)
    if lane is not None:
        lane = validation.name(lane, "lane")
    participant, is_new = participants.get_or_create(conn, locked_project.host_id, label, valid_kind)
    if require_new and not is_new:
        raise BusError("conflict", f"The name {participant.label} is taken; choose another.", reason="name_taken")
    if not is_new and find_of_participant(conn, locked_project.project_id, participant.id) is not None:
        raise BusError(
            "conflict",
            f"{participant.label} is in this project already; rotate its token to get a new one.",
            hint="rotate_token",
            reason="name_taken",
        )
    return add_participant(
        conn,
        locked_project,
        participant,
        is_new=is_new,
        lane=lane,
        is_admin=is_admin,
        ttl=ttl,
        scope=scope,
        actor=actor,
    )


def add_participant(
    conn: Connection,
    locked_project: LockedProject,
    participant: Participant,
    *,
    is_new: bool = False,
    lane: str | None = None,
    is_admin: bool = False,
    ttl: timedelta | None = None,
    scope: Scope = FULL_SCOPE,
    actor: str,
) -> IssuedParticipation:
    """Add a participant that is not in the project, and issue a token.

    Args:
        is_new: whether the participant was created for this.
    """
    _require_host_for_admin(locked_project, is_admin, locked_project.host_id)
    refuse_handle_as_label(conn, locked_project.project_id, participant.label)
    participation_id = _insert_or_restore(conn, locked_project.project_id, participant.id, lane, is_admin)
    token = token_store.generate(conn, participation_id, ttl=ttl, scope=scope)
    join_current_lane(conn, locked_project.project_id, participation_id)
    qualified_name = f"{locked_project.host_handle}/{participant.label}"
    record_act(
        conn,
        locked_project,
        locked_project.host_id,
        actor,
        "participation.grant",
        qualified_name,
        kind=participant.kind,
        lane=lane,
        is_admin=is_admin,
        token=token.hint,
        **audit.scope_detail(scope),
    )
    return IssuedParticipation(
        participation_id=participation_id,
        project=locked_project.project_name,
        participant=participant.label,
        actor=qualified_name,
        kind=participant.kind,
        lane=lane,
        is_admin=is_admin,
        token=token.text,
        created=is_new,
        scope=scope,
    )


def record_act(
    conn: Connection,
    locked_project: LockedProject,
    participant_owner_id: int,
    actor: str,
    action: str,
    subject: str,
    **detail: Any,
) -> None:
    """Write an act on a participation to the audit log of the project's owner, and to that of its own owner."""
    for owner_id in dict.fromkeys((locked_project.owner_id, participant_owner_id)):
        audit.record(conn, owner_id, actor, action, subject, project_id=locked_project.project_id, **detail)


def _require_host_for_admin(locked_project: LockedProject, is_admin: bool, participant_owner_id: int) -> None:
    if is_admin and participant_owner_id != locked_project.owner_id:
        raise BusError(
            "forbidden",
            "Project-admin is for participants of the project's owner; give the person the role lead instead.",
        )


def refuse_handle_as_label(conn: Connection, project_id: int, label: str) -> None:
    """Refuse a label that is the handle of a person in the project: the name alone would mean that person."""
    if conn.fetch_one_or_none(
        "SELECT 1 FROM owner_handle h WHERE h.handle = %s AND bus_project_role(%s, h.owner_id) IS NOT NULL",
        (validation.label_key(label), project_id),
    ):
        raise BusError(
            "conflict",
            f"{label} is the handle of a person in this project; choose another name.",
            reason="name_taken",
        )


def _insert_or_restore(conn: Connection, project_id: int, participant_id: int, lane: str | None, is_admin: bool) -> int:
    """Return the participation of a participant that is not in the project, inserted or restored."""
    values: dict[str, Any] = {"lane": lane, "is_admin": is_admin, "removed_at": None}
    restored_id = conn.execute(
        sa.update(participation)
        .where(participation.c.project_id == project_id, participation.c.participant_id == participant_id)
        .values(**values)
        .returning(participation.c.id)
    ).scalar_one_or_none()
    if restored_id is not None:
        return int(restored_id)
    statement = sa.insert(participation).values(project_id=project_id, participant_id=participant_id, **values)
    return int(conn.execute(statement.returning(participation.c.id)).scalar_one())


def remove(
    conn: Connection, project_id: int, reference: str | int, *, acting_owner_id: int | None = None, actor: str
) -> Participation:
    """Remove a participant from a project: revoke its tokens and invites and leave its lane; its past events stay.

    It leaves its lane, so that a participant that is added again is in the lane that is granted then.

    Args:
        acting_owner_id: as for `require_authority`.
    Locks: the project clock, then the owner.
    """
    locked_project = lock_project(conn, project_id, grants=False)
    removed = get_token_holder(conn, project_id, reference)
    require_authority(conn, project_id, removed.owner_id, removed.actor, acting_owner_id)
    end_participation(conn, locked_project, removed, actor=actor)
    return removed


def end_participation(conn: Connection, locked_project: LockedProject, removed: Participation, *, actor: str) -> None:
    """As `remove`, in a project that is locked, also for a person's own participation."""
    project_id = locked_project.project_id
    token_store.revoke_all(conn, [removed.id])
    _leave_current_lane(conn, project_id, removed.id)
    update(conn, removed.id, removed_at=sa.func.clock_timestamp())
    record_act(conn, locked_project, removed.owner_id, actor, "participation.remove", removed.actor)
    end_unauthorized_invites(conn, locked_project.owner_id, project_id, removed.id, actor=actor)


def require_authority(
    conn: Connection, project_id: int, participant_owner_id: int, name: str, acting_owner_id: int | None
) -> None:
    """Refuse an act on a participant unless it is of the acting owner, or of an owner whose role it manages.

    Args:
        name: of the participant, for the message.
        acting_owner_id: the owner who acts, whose role is read under the lock; None for the command line.
    Raises:
        BusError: `not_found` when the acting owner has no role in the project; `forbidden`.
        OwnerSuspended: the acting owner is a lead and suspended, and the participant is not its own.
    """
    if acting_owner_id is None:
        return
    role, managed = conn.fetch_one(
        "SELECT bus_project_role(%(project)s, %(acting)s), bus_project_role(%(project)s, %(owner)s)",
        {"project": project_id, "acting": acting_owner_id, "owner": participant_owner_id},
    )
    if role is None:
        raise NotFound("project")
    if participant_owner_id != acting_owner_id and role != OWNER and managed not in managed_roles(role):
        raise BusError(
            "forbidden",
            f"Your role in this project does not manage {name}; ask the owner of the project.",
        )
    if participant_owner_id != acting_owner_id:
        refuse_suspended_lead(conn, project_id, acting_owner_id)


def set_admin(
    conn: Connection,
    project_id: int,
    reference: str | int,
    is_admin: bool,
    *,
    acting_owner_id: int | None = None,
    actor: str,
) -> Participation:
    """Grant or withdraw the rights of a project-admin; return the participation as it was before.

    The open invites of a former project-admin are revoked.

    Args:
        acting_owner_id: as for `require_authority`; project-admin is the project's owner's to give.
    Locks: the project clock, then the owner.
    """
    locked_project = lock_project(conn, project_id, grants=is_admin)
    if acting_owner_id not in (None, locked_project.owner_id):
        raise BusError("forbidden", "Only the owner of a project gives and takes the rights of a project-admin.")
    changed = get_token_holder(conn, project_id, reference)
    _require_host_for_admin(locked_project, is_admin, changed.owner_id)
    update(conn, changed.id, is_admin=is_admin)
    record_act(conn, locked_project, changed.owner_id, actor, "participation.admin", changed.actor, is_admin=is_admin)
    end_unauthorized_invites(conn, locked_project.owner_id, project_id, changed.id, actor=actor)
    return changed


def set_lane(
    conn: Connection,
    project_id: int,
    reference: str | int,
    lane: str | None,
    *,
    acting_owner_id: int | None = None,
    actor: str,
) -> Participation:
    """Grant another lane, or none; return the participation as it was before. A registered lane keeps precedence.

    Unread posts of the old lane are withdrawn, and the newest unacknowledged ones of the new lane are delivered.

    Args:
        acting_owner_id: as for `require_authority`.
    Locks: the project clock, then the owner.
    """
    if lane is not None:
        lane = validation.name(lane, "lane")
    locked_project = lock_project(conn, project_id)
    changed = get_token_holder(conn, project_id, reference)
    require_authority(conn, project_id, changed.owner_id, changed.actor, acting_owner_id)
    if changed.granted_lane == lane:
        return changed
    has_registered_lane = conn.fetch_one_or_none(
        "SELECT 1 FROM presence WHERE project_id = %s AND participation_id = %s AND lane IS NOT NULL",
        (project_id, changed.id),
    )
    if not has_registered_lane and changed.granted_lane is not None:
        conn.execute("SELECT bus_leave_lane(%s, %s, %s)", (project_id, changed.id, changed.granted_lane))
    update(conn, changed.id, lane=lane)
    if not has_registered_lane:
        join_current_lane(conn, project_id, changed.id)
    record_act(conn, locked_project, changed.owner_id, actor, "participation.lane", changed.actor, lane=lane)
    return changed


def update(conn: Connection, participation_id: int, **values: Any) -> None:
    """Change columns of a participation; the caller has locked the project."""
    conn.execute(sa.update(participation).where(participation.c.id == participation_id).values(**values))


def join_current_lane(conn: Connection, project_id: int, participation_id: int) -> None:
    """Deliver the posts of the participation's lane: the one registered last, else the granted one.

    A participation without a live token is in no lane; call this when it gets one.
    """
    conn.execute(
        "SELECT bus_join_lane(p.project_id, p.id, coalesce(pr.lane, p.lane)) FROM participation p"
        " LEFT JOIN presence pr ON pr.project_id = p.project_id AND pr.participation_id = p.id"
        " WHERE p.id = %s AND p.project_id = %s AND coalesce(pr.lane, p.lane) IS NOT NULL",
        (participation_id, project_id),
    )


def _leave_current_lane(conn: Connection, project_id: int, participation_id: int) -> None:
    """Withdraw the unread posts of the participation's lane and clear its registration."""
    conn.execute(
        "SELECT bus_leave_lane(p.project_id, p.id, coalesce(pr.lane, p.lane)) FROM participation p"
        " LEFT JOIN presence pr ON pr.project_id = p.project_id AND pr.participation_id = p.id"
        " WHERE p.id = %s AND p.project_id = %s AND coalesce(pr.lane, p.lane) IS NOT NULL",
        (participation_id, project_id),
    )
    conn.execute(
        "UPDATE presence SET lane = NULL, status = '', registered_at = NULL"
        " WHERE project_id = %s AND participation_id = %s",
        (project_id, participation_id),
    )


def find_owner_context(conn: Connection, owner_id: int, project_id: int) -> Ctx | None:
    """Return an owner as caller in a project, or None where the owner has no participation yet.

    Raises:
        BusError: `not_found` when the project does not exist or the owner has no role in it.
    """
    row = conn.fetch_one_or_none(
        "SELECT p.id, n.participant_id, pj.owner_id FROM project pj"
        " LEFT JOIN participant_name n ON n.owner_id = %(owner)s AND n.label_key = ''"
        " LEFT JOIN participation p ON p.project_id = pj.id AND p.participant_id = n.participant_id"
        "                          AND p.removed_at IS NULL"
        " WHERE pj.id = %(project)s AND bus_project_role(pj.id, %(owner)s) IS NOT NULL",
        {"owner": owner_id, "project": project_id},
    )
    if row is None:
        raise NotFound("project")
    participation_id, participant_id, project_owner_id = row
    if participation_id is None:
        return None
    return Ctx(
        project_id=project_id,
        participation_id=participation_id,
        participant_id=participant_id,
        owner_id=project_owner_id,
        token_id=None,
    )


def get_or_create_owner_context(conn: Connection, owner_id: int, project_id: int) -> Ctx:
    """As `find_owner_context`, but create the owner's participation where it is missing.

    With the participation agents can post to the owner's handle.

    Locks: the project clock, then the owner, where the participation is missing.
    """
    existing = find_owner_context(conn, owner_id, project_id)
    if existing is not None:
        return existing
    locked_project = lock_project(conn, project_id, grants=False, member_id=owner_id)
    create_own_participation(conn, locked_project, is_admin=locked_project.owner_id == owner_id)
    created = find_owner_context(conn, owner_id, project_id)
    assert created is not None
    return created


def create_own_participation(conn: Connection, locked_project: LockedProject, *, is_admin: bool) -> int:
    """Create or restore the own participation of the host, a person; concurrent callers create it once.

    Its participant has the empty label, so that its qualified name is the handle alone; it never has a token.
    """
    project_id = locked_project.project_id
    participant_id = conn.execute(
        sa.select(participant_name.c.participant_id).where(
            participant_name.c.owner_id == locked_project.host_id, participant_name.c.label_key == ""
        )
    ).scalar_one_or_none()
    if participant_id is None:
        participant_id = participants.insert(conn, locked_project.host_id, "", "human").id
    existing = find_of_participant(conn, project_id, participant_id)
    if existing is not None:
        return existing.id
    return _insert_or_restore(conn, project_id, participant_id, None, is_admin)
