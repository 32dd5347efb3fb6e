"""The invites of a project with their state and redemptions, as its owner sees them."""

from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa

from bus.db import Connection
from bus.tenancy.invite_authority import may_still_invite
from bus.tenancy.tables import invite, invite_redemption


@dataclass(frozen=True, slots=True)
class Redemption:
    """One use of an invite.

    Attributes:
        actor: the participant's qualified name at that time.
        accepted_by: the handle of the signed-in owner who accepted it, or None.
    """

    actor: str
    accepted_by: str | None
    at: datetime


@dataclass(frozen=True, slots=True)
class Invite:
    """An invite as its owner sees it.

    Attributes:
        participant_id: the existing participant that gets one more token, or None.
        email: the only address that may accept it, or None.
        role: of the person who accepts it; None for a participant.
        state: open, exhausted, expired or revoked.
        redemptions: its uses, oldest first, at most 50.
    """

    id: int
    hint: str
    participant_name: str | None
    participant_id: int | None
    email: str | None
    kind: str
    lane: str | None
    is_admin: bool
    role: str | None
    uses: int
    used: int
    state: str
    created_by: str
    created_at: datetime
    expires_at: datetime
    redemptions: list[Redemption]


INVITE_STATE = sa.case(
    (invite.c.revoked_at.is_not(None), "revoked"),
    (invite.c.used >= invite.c.uses, "exhausted"),
    (invite.c.expires_at <= sa.func.clock_timestamp(), "expired"),
    # The token that created it has expired; other losses of rights revoke the invite itself.
    (sa.not_(may_still_invite()), "revoked"),
    else_="open",
).label("state")


def list_invites(
    conn: Connection, project_id: int, *, for_people: bool = False, before: int | None = None, limit: int = 50
) -> list[Invite]:
    """List the invites of a project, newest first, at most `limit`, with ids below `before`.

    Args:
        for_people: those for persons, and not those for participants.
    """
    columns = (
        invite.c.id,
        invite.c.hint,
        invite.c.participant_name,
        invite.c.participant_id,
        invite.c.email,
        invite.c.kind,
        invite.c.lane,
        invite.c.is_admin,
        invite.c.role,
        invite.c.uses,
        invite.c.used,
        INVITE_STATE,
        invite.c.created_by,
        invite.c.created_at,
        invite.c.expires_at,
    )
    of_kind = invite.c.role.is_not(None) if for_people else invite.c.role.is_(None)
    query = sa.select(*columns).where(invite.c.project_id == project_id, of_kind)
    if before is not None:
        query = query.where(invite.c.id < before)
    rows = conn.execute(query.order_by(invite.c.id.desc()).limit(limit)).all()
    redemptions = _list_redemptions(conn, [row.id for row in rows])
    return [Invite(**row._mapping, redemptions=redemptions[row.id]) for row in rows]


def _list_redemptions(conn: Connection, invite_ids: list[int]) -> dict[int, list[Redemption]]:
    """List the redemptions of invites, oldest first, by invite."""
    redemptions: dict[int, list[Redemption]] = {invite_id: [] for invite_id in invite_ids}
    query = (
        sa.select(
            invite_redemption.c.invite_id,
            invite_redemption.c.actor,
            invite_redemption.c.accepted_by,
            invite_redemption.c.created_at,
        )
        .where(invite_redemption.c.invite_id.in_(invite_ids))
        .order_by(invite_redemption.c.id)
    )
    for row in conn.execute(query):
        redemptions[row.invite_id].append(Redemption(actor=row.actor, accepted_by=row.accepted_by, at=row.created_at))
    return redemptions
