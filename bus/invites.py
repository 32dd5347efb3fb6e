"""Invites: codes that let somebody into a project, a bounded number of times and for a bounded time."""

from dataclasses import dataclass, field
from datetime import datetime

import sqlalchemy as sa

from bus import audit, limits, participants, participations
from bus.ctx import Ctx
from bus.db import Connection
from bus.errors import BusError, InvalidArgument
from bus.participations import Grant
from bus.rules import text
from bus.rules import tokens as form
from bus.tables import PARTICIPANT_KINDS, invite, invite_redemption, project


@dataclass(frozen=True, slots=True)
class Created:
    """An invite at the one moment when its code is known; only the SHA-256 is kept."""

    id: int
    project: str
    code: str = field(repr=False)
    expires_at: datetime
    participant_name: str | None
    uses: int


@dataclass(frozen=True, slots=True)
class Invite:
    """An invite as its owner sees it; `state` is open, exhausted, expired or revoked."""

    id: int
    hint: str
    participant_name: str | None
    kind: str
    lane: str | None
    is_admin: bool
    uses: int
    used: int
    state: str
    created_by: str
    created_at: datetime
    expires_at: datetime


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
) -> Created:
    """As project-admin, create an invite to the caller's project.

    Raises:
        BusError: `forbidden`; `conflict` when the name it would be locked to is taken.
    Locks: the project clock.
    """
    actor = participants.enter_as_admin(conn, ctx)
    return create_for(
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


def create_for(
    conn: Connection,
    project_id: int,
    *,
    participant_name: str | None = None,
    kind: str | None = None,
    lane: str | None = None,
    is_admin: bool = False,
    uses: int = 1,
    ttl_hours: int = 24,
    actor: str = "cli",
) -> Created:
    """As `create`, for a door that acts for the owner.

    Args:
        participant_name: lock the invite to this name; then it has one use. None lets the invited choose.
        uses: 1 to 50.
        ttl_hours: 1 to 168.
    """
    text.integer(uses, "uses", 1, limits.INVITE_USES)
    text.integer(ttl_hours, "ttl_hours", 1, limits.INVITE_HOURS)
    if kind is not None and kind not in PARTICIPANT_KINDS:
        raise InvalidArgument(f"kind must be one of: {', '.join(PARTICIPANT_KINDS)}.")
    granted_lane = text.name(lane, "lane") if lane is not None else None
    label = None
    if participant_name is not None:
        label = text.label(participant_name, "participant_name")
        if uses != 1:
            raise InvalidArgument("An invite that is locked to a name has one use; leave uses out.")
    place = conn.run(sa.select(project.c.owner_id, project.c.name).where(project.c.id == project_id)).one()
    if label is not None and conn.maybe(
        "SELECT 1 FROM participant_name WHERE owner_id = %s AND label_key = %s",
        (place.owner_id, text.label_key(label)),
    ):
        raise BusError("conflict", f"The name {label} is taken; choose another.", reason="name_taken")
    code = form.mint_code()
    row = conn.run(
        sa.insert(invite)
        .values(
            project_id=project_id,
            sha256=form.fingerprint(code),
            hint=f"{code[:6]}…",
            participant_name=label,
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
        uses=uses,
        ttl_hours=ttl_hours,
        is_admin=is_admin,
    )
    return Created(row.id, place.name, code, row.expires_at, label, uses)


_STATE = sa.case(
    (invite.c.revoked_at.is_not(None), "revoked"),
    (invite.c.used >= invite.c.uses, "exhausted"),
    (invite.c.expires_at <= sa.func.clock_timestamp(), "expired"),
    else_="open",
).label("state")


def list_(conn: Connection, project_id: int, *, before: int | None = None, limit: int = 50) -> list[Invite]:
    """Invites of a project, newest first, at most `limit`, with ids below `before`."""
    columns = (
        invite.c.id,
        invite.c.hint,
        invite.c.participant_name,
        invite.c.kind,
        invite.c.lane,
        invite.c.is_admin,
        invite.c.uses,
        invite.c.used,
        _STATE,
        invite.c.created_by,
        invite.c.created_at,
        invite.c.expires_at,
    )
    query = sa.select(*columns).where(invite.c.project_id == project_id)
    if before is not None:
        query = query.where(invite.c.id < before)
    return [Invite(*row) for row in conn.run(query.order_by(invite.c.id.desc()).limit(limit))]


def revoke(conn: Connection, project_id: int, invite_id: int, *, actor: str) -> bool:
    """Revoke an invite: it lets nobody in any more. Returns whether anything changed.

    Raises:
        BusError: `not_found` when the project has no such invite.
    """
    mine = sa.and_(invite.c.id == invite_id, invite.c.project_id == project_id)
    changed = conn.run(
        sa.update(invite)
        .where(mine, invite.c.revoked_at.is_(None))
        .values(revoked_at=sa.func.clock_timestamp())
        .returning(invite.c.hint)
    ).one_or_none()
    if changed is None:
        if conn.run(sa.select(invite.c.id).where(mine)).one_or_none() is None:
            raise BusError("not_found", "There is no such invite.")
        return False
    owner_id = conn.run(sa.select(project.c.owner_id).where(project.c.id == project_id)).scalar_one()
    audit.record(conn, owner_id, actor, "invite.revoke", changed.hint, project_id=project_id)
    return True


def redeem(conn: Connection, code: str, *, name: str | None = None) -> Grant:
    """Use an invite once: a fresh participant of the project's owner joins the project.

    Args:
        name: the name the invited chooses; needed unless the invite is locked to one.
    Raises:
        BusError: with `reason` in its data: `invalid` (not_found), `expired`, `exhausted` (both wrong_state),
            `name_required` (invalid_argument), `name_taken` (conflict). A refused redemption uses nothing up.
    Locks: the project clock, the invite, then the owner. The use is counted by an UPDATE whose WHERE states
        what must hold, so that of many at once only as many as there are uses succeed.
    """
    fingerprint = form.fingerprint(code)
    known = conn.run(
        sa.select(invite.c.id, invite.c.project_id, invite.c.participant_name, invite.c.revoked_at).where(
            invite.c.sha256 == fingerprint
        )
    ).one_or_none()
    if known is None or known.revoked_at is not None:
        raise _invalid()
    wanted = known.participant_name or name
    if wanted is None or not wanted.strip():
        raise InvalidArgument("name is required: choose what you will be called here.", reason="name_required")
    label = text.label(wanted, "name")
    conn.maybe("SELECT bus_lock_clock(%s)", (known.project_id,))
    if conn.maybe(
        "SELECT 1 FROM project p JOIN owner o ON o.id = p.owner_id WHERE p.id = %s AND o.suspended_at IS NOT NULL",
        (known.project_id,),
    ):
        raise BusError("forbidden", "The owner of this project is suspended; ask whoever sent you the invite.")
    used = conn.run(
        sa.update(invite)
        .where(
            invite.c.id == known.id,
            invite.c.revoked_at.is_(None),
            invite.c.used < invite.c.uses,
            invite.c.expires_at > sa.func.clock_timestamp(),
        )
        .values(used=invite.c.used + 1)
        .returning(invite.c.kind, invite.c.lane, invite.c.is_admin, invite.c.hint)
    ).one_or_none()
    if used is None:
        raise _spent(conn, known.id)
    granted = participations.grant(
        conn,
        known.project_id,
        label,
        kind=used.kind,
        lane=used.lane,
        is_admin=used.is_admin,
        actor=f"invite {used.hint}",
        fresh=True,
    )
    conn.run(
        sa.insert(invite_redemption).values(
            invite_id=known.id, participation_id=granted.participation_id, actor=granted.actor
        )
    )
    return granted


def _invalid() -> BusError:
    return BusError("not_found", "That invite is not valid; ask whoever sent it for another.", reason="invalid")


def _spent(conn: Connection, invite_id: int) -> BusError:
    state = conn.run(sa.select(_STATE).where(invite.c.id == invite_id)).scalar_one_or_none()
    if state == "exhausted":
        return BusError(
            "wrong_state",
            "That invite was used already; ask whoever sent it for another.",
            reason="exhausted",
        )
    if state == "expired":
        return BusError(
            "wrong_state",
            "That invite has expired; ask whoever sent it for another.",
            reason="expired",
        )
    return _invalid()
