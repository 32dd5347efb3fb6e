"""Adding participants to projects and removing them, and changing their lane and admin flag.

Functions that take an `actor` act for the project's owner; the others act for the caller of a tool.
"""

from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import sqlalchemy as sa

from bus.ctx import Ctx
from bus.db import Connection
from bus.errors import BusError, InvalidArgument
from bus.rules import validation
from bus.scopes import FULL_SCOPE, Scope
from bus.tenancy import audit, authentication, owners, participants, participation_queries, token_store
from bus.tenancy.invite_authority import end_unauthorized_invites
from bus.tenancy.participant_authority import require_authority, require_host_for_admin
from bus.tenancy.participants import Participant
from bus.tenancy.participation_lanes import join_current_lane, leave_current_lane
from bus.tenancy.participation_queries import Participation
from bus.tenancy.project_locks import LockedProject, lock_project, lock_project_owner
from bus.tenancy.tables import participation


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
    if (
        not is_new
        and participation_queries.find_of_participant(conn, locked_project.project_id, participant.id) is not None
    ):
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
    require_host_for_admin(locked_project, is_admin, locked_project.host_id)
    participants.refuse_handle_as_label(conn, locked_project.project_id, participant.label)
    participation_id = insert_or_restore(conn, locked_project.project_id, participant.id, lane, is_admin)
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


def insert_or_restore(conn: Connection, project_id: int, participant_id: int, lane: str | None, is_admin: bool) -> int:
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
    """Remove a participant from a project; its past events stay.

    Its tokens and invites are revoked, its live leases are released, and its unfinished tasks return to the queue. It
    leaves its lane, so that a participant that is added again is in the lane that is granted then.

    Args:
        acting_owner_id: as for `require_authority`.
    Locks: the project clock, then the owner.
    """
    locked_project = lock_project(conn, project_id, grants=False)
    removed = participation_queries.get_token_holder(conn, project_id, reference)
    require_authority(conn, project_id, removed.owner_id, removed.actor, acting_owner_id)
    end_participation(conn, locked_project, removed, actor=actor)
    return removed


def end_participation(conn: Connection, locked_project: LockedProject, removed: Participation, *, actor: str) -> None:
    """As `remove`, in a project that is locked, also for a person's own participation."""
    project_id = locked_project.project_id
    give_back_work(conn, project_id, [removed])
    token_store.revoke_all(conn, [removed.id])
    leave_current_lane(conn, project_id, removed.id)
    update(conn, removed.id, removed_at=sa.func.clock_timestamp())
    record_act(conn, locked_project, removed.owner_id, actor, "participation.remove", removed.actor)
    end_unauthorized_invites(conn, locked_project.owner_id, project_id, removed.id, actor=actor)


def give_back_work(conn: Connection, project_id: int, given: list[Participation]) -> None:
    """Release the live leases of participations and return their unfinished tasks, under the clock."""
    (event_count,) = conn.fetch_one(
        "SELECT bus_give_back_work(%s, %s)", (project_id, [participation.id for participation in given])
    )
    if event_count:
        conn.notify_on_commit(project_id, "ledger", "leases", "tasks")


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
    changed = participation_queries.get_token_holder(conn, project_id, reference)
    require_host_for_admin(locked_project, is_admin, changed.owner_id)
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
    changed = participation_queries.get_token_holder(conn, project_id, reference)
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
