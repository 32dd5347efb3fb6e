"""Invites: codes that add participants to a project, with bounded uses and lifetime."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from bus import limits
from bus.ctx import Ctx
from bus.db import Connection
from bus.errors import BusError, InvalidArgument, NotFound
from bus.rules import token_format, validation
from bus.rules.enums import MEMBER_ROLES
from bus.tenancy import audit, authentication, memberships, owner_participation, owners, participants, project_locks
from bus.tenancy.revocation import revoke_code
from bus.tenancy.suspension import refuse_suspended_lead, require_active_owner
from bus.tenancy.tables import invite, project


@dataclass(frozen=True, slots=True)
class CreatedInvite:
    """A new invite with its code, of which only the SHA-256 is stored; `role` is set if it is for a person."""

    id: int
    project: str
    code: str = field(repr=False)
    expires_at: datetime
    participant_name: str | None
    uses: int
    role: str | None = None


def create(
    conn: Connection,
    ctx: Ctx,
    *,
    participant_name: str | None = None,
    kind: str | None = None,
    lane: str | None = None,
    is_admin: bool = False,
    uses: int = 1,
    ttl_hours: int = 24,
) -> CreatedInvite:
    """As project-admin, create an invite to the caller's project.

    It is void once the caller is no longer project-admin, or the token of this call is no longer live.

    Raises:
        BusError: `forbidden`; `conflict` when `participant_name` is taken.
    Locks: the project clock.
    """
    actor = authentication.authorize_admin(conn, ctx)
    return create_for_owner(
        conn,
        ctx.project_id,
        participant_name=participant_name,
        kind=kind,
        lane=lane,
        is_admin=is_admin,
        uses=uses,
        ttl_hours=ttl_hours,
        actor=actor,
        creator=ctx,
    )


def create_for_owner(
    conn: Connection,
    project_id: int,
    *,
    participant_name: str | None = None,
    participant_id: int | None = None,
    email: str | None = None,
    kind: str | None = None,
    lane: str | None = None,
    is_admin: bool = False,
    uses: int = 1,
    ttl_hours: int = 24,
    actor: str,
    creator: Ctx | None = None,
) -> CreatedInvite:
    """As `create`, for the project's owner.

    Args:
        participant_name: the name of the new participant; the invite then has one use. None lets the redeemer choose.
        participant_id: an existing participant of the owner: redeeming issues one more token and adds it to the project
            where it is not in. The invite then has one use and takes no name.
        email: only an owner who is signed in with this verified address may accept; the code alone is not enough.
        uses: 1 to 50.
        ttl_hours: 1 to 720.
        creator: the project-admin with whose rights the invite ends; None for the owner.
    Raises:
        BusError: `conflict` when the name is taken; `forbidden` when the project is archived; `not_found` when
            the owner has no such participant.
        OwnerSuspended: the project's owner is suspended.
    Locks: the project clock, then the owner, shared.
    """
    address = _validate_terms(uses, ttl_hours, email)
    valid_kind = participants.validate_kind(kind)
    granted_lane = validation.name(lane, "lane") if lane is not None else None
    if participant_name is not None and participant_id is not None:
        raise InvalidArgument("An invite for an existing participant takes no name; leave participant_name out.")
    label = validation.label(participant_name, "participant_name") if participant_name is not None else None
    if uses != 1 and (label is not None or participant_id is not None):
        raise InvalidArgument("An invite for one participant has one use; leave uses out.")
    conn.execute("SELECT bus_lock_open_clock(%s)", (project_id,))
    locked_project = conn.execute(sa.select(project.c.owner_id, project.c.name).where(project.c.id == project_id)).one()
    require_active_owner(conn, locked_project.owner_id)
    if label is not None:
        key = validation.label_key(label)
        if owners.has_or_had_handle(conn, locked_project.owner_id, key) or conn.fetch_one_or_none(
            "SELECT 1 FROM participant_name WHERE owner_id = %s AND label_key = %s", (locked_project.owner_id, key)
        ):
            raise BusError("conflict", f"The name {label} is taken; choose another.", reason="name_taken")
        participants.refuse_handle_as_label(conn, project_id, label)
    if participant_id is not None:
        participant = participants.find_active(conn, locked_project.owner_id, participant_id)
        if participant is None:
            raise NotFound("participant")
        label, valid_kind = participant.label, participant.kind
    return _insert(
        conn,
        project_id,
        locked_project.owner_id,
        locked_project.name,
        ttl_hours,
        audited={"participant_name": label, "is_admin": is_admin},
        participant_name=label,
        participant_id=participant_id,
        email=address,
        kind=valid_kind,
        lane=granted_lane,
        is_admin=is_admin,
        uses=uses,
        created_by=actor,
        created_by_participation_id=creator and creator.participation_id,
        # Of a connected client, whose access tokens are deleted a day after they expired.
        created_by_token_id=None if creator is None else sa.func.bus_lasting_token(creator.token_id),
    )


def create_for_person(
    conn: Connection,
    project_id: int,
    role: str,
    *,
    email: str | None = None,
    uses: int = 1,
    ttl_hours: int = 72,
    acting_owner_id: int,
    actor: str,
) -> CreatedInvite:
    """Invite a person, who accepts signed in as any owner and becomes a member of the project.

    Args:
        role: viewer, member or lead.
        email: only an owner who is signed in with this verified address may accept.
        uses: 1 to 50; how many persons may accept.
        ttl_hours: 1 to 720.
        acting_owner_id: the owner who invites. The invite of a lead ends with that role.
    Raises:
        BusError: `forbidden` when the role of the acting owner does not give that role, or the project is archived;
            `not_found` when it has none.
        OwnerSuspended: the project's owner or the acting owner is suspended.
    Locks: the project clock, then the owners.
    """
    if role not in MEMBER_ROLES:
        raise InvalidArgument(f"role must be one of: {', '.join(MEMBER_ROLES)}.")
    address = _validate_terms(uses, ttl_hours, email)
    if address is not None and uses != 1:
        raise InvalidArgument("An invite for one address has one use; leave uses out.")
    locked_project = project_locks.lock_project(conn, project_id, member_id=acting_owner_id)
    memberships.require_managed_role(memberships.find_role(conn, acting_owner_id, project_id), role)
    giver = None
    if acting_owner_id != locked_project.owner_id:
        giver = owner_participation.find_owner_context(conn, acting_owner_id, project_id)
        assert giver is not None
    return _insert(
        conn,
        project_id,
        locked_project.owner_id,
        locked_project.project_name,
        ttl_hours,
        audited={"role": role},
        role=role,
        email=address,
        kind="human",
        uses=uses,
        created_by=actor,
        created_by_participation_id=giver and giver.participation_id,
    )


def _validate_terms(uses: int, ttl_hours: int, email: str | None) -> str | None:
    """Check the terms that all invites have; return the normalised address."""
    validation.integer(uses, "uses", 1, limits.MAX_INVITE_USES)
    validation.integer(ttl_hours, "ttl_hours", 1, limits.MAX_INVITE_HOURS)
    return validation.email(email, "email") if email is not None else None


def _insert(
    conn: Connection,
    project_id: int,
    owner_id: int,
    project_name: str,
    ttl_hours: int,
    *,
    audited: dict[str, Any],
    **values: Any,
) -> CreatedInvite:
    """Insert an invite with a new code, and record it in the audit log.

    Args:
        audited: what the audit log shows besides the terms that all invites have.
        values: of the other columns.
    """
    code = token_format.generate_invite_code()
    row = conn.execute(
        sa.insert(invite)
        .values(
            project_id=project_id,
            sha256=token_format.fingerprint(code),
            hint=f"{code[:6]}…",
            expires_at=sa.func.clock_timestamp() + sa.func.make_interval(0, 0, 0, 0, ttl_hours),
            **values,
        )
        .returning(invite.c.id, invite.c.expires_at, invite.c.hint)
    ).one()
    audit.record(
        conn,
        owner_id,
        values["created_by"],
        "invite.create",
        row.hint,
        project_id=project_id,
        email=values["email"],
        uses=values["uses"],
        ttl_hours=ttl_hours,
        **audited,
    )
    return CreatedInvite(
        id=row.id,
        project=project_name,
        code=code,
        expires_at=row.expires_at,
        participant_name=values.get("participant_name"),
        uses=values["uses"],
        role=values.get("role"),
    )


def revoke(conn: Connection, project_id: int, invite_id: int, *, actor: str) -> bool:
    """Revoke an invite, so that it can no longer be redeemed; return whether anything changed.

    For the project's owner and operators; `revoke_for_person` is for leads, too.

    Raises:
        BusError: `not_found` when the project has no such invite.
    """
    return revoke_code(conn, invite, project_id, invite_id, noun="invite", action="invite.revoke", actor=actor)


def revoke_for_person(conn: Connection, project_id: int, invite_id: int, *, acting_owner_id: int, actor: str) -> bool:
    """As `revoke`, but only an invite for a person, by an owner whose role gives the one of the invite.

    Args:
        acting_owner_id: the owner who revokes it, whose role is read under the lock.
    Raises:
        BusError: `not_found` also when the acting owner has no role; `forbidden` when that role does not manage the
            one of the invite.
    Locks: the project clock, then the invite.
    """
    conn.execute("SELECT bus_lock_clock(%s)", (project_id,))
    acting_role = memberships.find_role(conn, acting_owner_id, project_id)
    row = conn.execute(
        sa.select(invite.c.role).where(
            invite.c.id == invite_id, invite.c.project_id == project_id, invite.c.role.is_not(None)
        )
    ).one_or_none()
    if row is None or acting_role is None:
        raise NotFound("invite")
    memberships.require_managed_role(acting_role, row.role)
    refuse_suspended_lead(conn, project_id, acting_owner_id)
    return revoke(conn, project_id, invite_id, actor=actor)
