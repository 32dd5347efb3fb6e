"""Invites end with the rights of their creator.

A redemption asks `may_still_invite` in its own statement. Acts that withdraw rights call `end_unauthorized_invites`, so
that the owner sees which invites ended with them, and rights that are granted again later do not revive an invite.
"""

from typing import Any

import sqlalchemy as sa

from bus.db import Connection
from bus.tenancy import audit
from bus.tenancy.tables import invite


def may_still_invite() -> sa.ColumnElement[bool]:
    """Whether the creator of an invite may still invite (bus/tenancy/sql/invites.sql)."""
    condition: Any = sa.func.bus_may_still_invite(
        invite.c.created_by_participation_id, invite.c.created_by_token_id, type_=sa.Boolean
    )
    return condition  # type: ignore[no-any-return]


def end_unauthorized_invites(
    conn: Connection, owner_id: int, project_id: int, participation_id: int, *, actor: str
) -> int:
    """Revoke the open invites of a participation that it may no longer hand out; return their number.

    Call it after the change of rights, in its transaction.

    Locks: the invites, by ascending id; the caller has locked the project clock.
    """
    due = (
        sa.select(invite.c.id)
        .where(
            invite.c.project_id == project_id,
            invite.c.created_by_participation_id == participation_id,
            invite.c.revoked_at.is_(None),
            invite.c.used < invite.c.uses,
            invite.c.expires_at > sa.func.clock_timestamp(),
            sa.not_(may_still_invite()),
        )
        .order_by(invite.c.id)
        .with_for_update()
        .cte("due")
    )
    ended = conn.execute(
        sa.update(invite)
        .where(invite.c.id == due.c.id)
        .values(revoked_at=sa.func.clock_timestamp())
        .returning(invite.c.hint, invite.c.created_by)
    ).all()
    for row in ended:
        audit.record(
            conn,
            owner_id,
            actor,
            "invite.revoke",
            row.hint,
            project_id=project_id,
            reason=f"{row.created_by} may no longer invite",
        )
    return len(ended)
