"""Invites: codes that let somebody into a project, a bounded number of times and for a bounded time."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from bus import limits
from bus.ctx import Ctx
from bus.db import Connection
from bus.errors import BusError, InvalidArgument, NotFound
from bus.rules import token_format as form
from bus.rules import validation
from bus.rules.enums import PARTICIPANT_KINDS
from bus.tenancy import audit, authentication
from bus.tenancy.tables import invite, invite_redemption, owner, participant, project


@dataclass(frozen=True, slots=True)
class CreatedInvite:
    """An invite at the one moment when its code is known; only the SHA-256 is kept."""

    id: int
    project: str
    code: str = field(repr=False)
    expires_at: datetime
    participant_name: str | None
    uses: int


@dataclass(frozen=True, slots=True)
class Redemption:
    """Who came by an invite: the participant's name then, and the handle of who accepted it signed in, if so."""

    actor: str
    accepted_by: str | None
    at: datetime


@dataclass(frozen=True, slots=True)
class Invite:
    """An invite as its owner sees it.

    Attributes:
        participant_id: the participant that was chosen for it, which gets one more token.
        email: whose it is alone, if it is somebody's.
        state: open, exhausted, expired or revoked.
        redeemed: who came by it, oldest first, at most 50.
    """

    id: int
    hint: str
    participant_name: str | None
    participant_id: int | None
    email: str | None
    kind: str
    lane: str | None
    is_admin: bool
    uses: int
    used: int
    state: str
    created_by: str
    created_at: datetime
    expires_at: datetime
    redemptions: list[Redemption]


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

    Raises:
        BusError: `forbidden`; `conflict` when the name it would be locked to is taken.
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
) -> CreatedInvite:
    """As `create`, for a door that acts for the owner.

    Args:
        participant_name: lock the invite to this name; then it has one use. None lets the invited choose.
        participant_id: a participant of the owner that is there already: redeeming gives it one more token, and
            lets it into the project where it is not in. Then it has one use and takes no name.
        email: only who is signed in and has shown this address to be theirs may accept; nobody by the code alone.
        uses: 1 to 50.
        ttl_hours: 1 to 168.
    Raises:
        BusError: `conflict` when the name is taken; `forbidden` when the project is archived; `not_found` when
            the owner has no such participant.
    Locks: the project clock.
    """
    validation.integer(uses, "uses", 1, limits.MAX_INVITE_USES)
    validation.integer(ttl_hours, "ttl_hours", 1, limits.MAX_INVITE_HOURS)
    if kind is not None and kind not in PARTICIPANT_KINDS:
        raise InvalidArgument(f"kind must be one of: {', '.join(PARTICIPANT_KINDS)}.")
    granted_lane = validation.name(lane, "lane") if lane is not None else None
    address = validation.email(email, "email") if email is not None else None
    if participant_name is not None and participant_id is not None:
        raise InvalidArgument("An invite for a participant that is there already takes no name; leave it out.")
    label = validation.label(participant_name, "participant_name") if participant_name is not None else None
    if uses != 1 and (label is not None or participant_id is not None):
        raise InvalidArgument("An invite that is locked to a name has one use; leave uses out.")
    conn.execute("SELECT bus_lock_open_clock(%s)", (project_id,))
    place = conn.execute(
        sa.select(project.c.owner_id, project.c.name, owner.c.handle)
        .join(owner, owner.c.id == project.c.owner_id)
        .where(project.c.id == project_id)
    ).one()
    if label is not None:
        key = validation.label_key(label)
        if key == place.handle or conn.fetch_one_or_none(
            "SELECT 1 FROM participant_name WHERE owner_id = %s AND label_key = %s", (place.owner_id, key)
        ):
            raise BusError("conflict", f"The name {label} is taken; choose another.", reason="name_taken")
    if participant_id is not None:
        chosen = conn.execute(
            sa.select(participant.c.label, participant.c.kind).where(
                participant.c.id == participant_id,
                participant.c.owner_id == place.owner_id,
                participant.c.removed_at.is_(None),
                participant.c.label != "",
            )
        ).one_or_none()
        if chosen is None:
            raise NotFound("participant")
        label, kind = chosen.label, chosen.kind
    code = form.generate_invite_code()
    row = conn.execute(
        sa.insert(invite)
        .values(
            project_id=project_id,
            sha256=form.fingerprint(code),
            hint=f"{code[:6]}…",
            participant_name=label,
            participant_id=participant_id,
            email=address,
            kind=kind or "agent",
            lane=granted_lane,
            is_admin=is_admin,
            uses=uses,
            created_by=actor,
            expires_at=sa.func.clock_timestamp() + sa.func.make_interval(0, 0, 0, 0, ttl_hours),
        )
        .returning(invite.c.id, invite.c.expires_at, invite.c.hint)
    ).one()
    audit.record(
        conn,
        place.owner_id,
        actor,
        "invite.create",
        row.hint,
        project_id=project_id,
        participant_name=label,
        email=address,
        uses=uses,
        ttl_hours=ttl_hours,
        is_admin=is_admin,
    )
    return CreatedInvite(row.id, place.name, code, row.expires_at, label, uses)


INVITE_STATE = sa.case(
    (invite.c.revoked_at.is_not(None), "revoked"),
    (invite.c.used >= invite.c.uses, "exhausted"),
    (invite.c.expires_at <= sa.func.clock_timestamp(), "expired"),
    else_="open",
).label("state")


def list_invites(conn: Connection, project_id: int, *, before: int | None = None, limit: int = 50) -> list[Invite]:
    """Invites of a project, newest first, at most `limit`, with ids below `before`."""
    columns = (
        invite.c.id,
        invite.c.hint,
        invite.c.participant_name,
        invite.c.participant_id,
        invite.c.email,
        invite.c.kind,
        invite.c.lane,
        invite.c.is_admin,
        invite.c.uses,
        invite.c.used,
        INVITE_STATE,
        invite.c.created_by,
        invite.c.created_at,
        invite.c.expires_at,
    )
    query = sa.select(*columns).where(invite.c.project_id == project_id)
    if before is not None:
        query = query.where(invite.c.id < before)
    rows: list[list[Any]] = [list(row) for row in conn.execute(query.order_by(invite.c.id.desc()).limit(limit))]
    came: dict[int, list[Redemption]] = {fields[0]: [] for fields in rows}
    by = invite_redemption.c
    redemptions = sa.select(by.invite_id, by.actor, by.accepted_by, by.created_at).where(by.invite_id.in_(came))
    for invite_id, *rest in conn.execute(redemptions.order_by(by.id)):
        came[invite_id].append(Redemption(*rest))
    return [Invite(*[*fields, came[fields[0]]]) for fields in rows]


def revoke(conn: Connection, project_id: int, invite_id: int, *, actor: str) -> bool:
    """Revoke an invite: it lets nobody in any more. Returns whether anything changed.

    Raises:
        BusError: `not_found` when the project has no such invite.
    """
    mine = sa.and_(invite.c.id == invite_id, invite.c.project_id == project_id)
    changed = conn.execute(
        sa.update(invite)
        .where(mine, invite.c.revoked_at.is_(None))
        .values(revoked_at=sa.func.clock_timestamp())
        .returning(invite.c.hint)
    ).one_or_none()
    if changed is None:
        if conn.execute(sa.select(invite.c.id).where(mine)).one_or_none() is None:
            raise NotFound("invite")
        return False
    owner_id = conn.execute(sa.select(project.c.owner_id).where(project.c.id == project_id)).scalar_one()
    audit.record(conn, owner_id, actor, "invite.revoke", changed.hint, project_id=project_id)
    return True
