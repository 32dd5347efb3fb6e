"""The one rule of a suspension: what costs or grants is refused; everything else stays.

A suspended owner can look, export, top up, take rights away, delete, and sign out. Each door asks at one place:

- Calls of participants and acts of the owner as a participant: `bus_authenticate` (sql/authentication.sql).
- Acts of the owner on its account: `require_active_owner` and `require_not_suspended`, in the functions that grant.
- Pages: webapp/suspension.py refuses each request that is not a read, unless its view is marked as allowed.
"""

from datetime import datetime

import sqlalchemy as sa

from bus.db import Connection
from bus.errors import OwnerSuspended
from bus.tenancy.tables import owner


def require_active_owner(conn: Connection, owner_id: int) -> None:
    """Refuse an act that costs or grants while its owner is suspended; the suspension waits for the transaction.

    Raises:
        OwnerSuspended: the owner is suspended.
    Locks: the owner, shared. A caller that locks the owner for itself passes `suspended_at` to
        `require_not_suspended` instead.
    """
    row = conn.execute(sa.select(owner.c.suspended_at).where(owner.c.id == owner_id).with_for_update(read=True)).one()
    require_not_suspended(row.suspended_at)


def refuse_suspended_lead(conn: Connection, project_id: int, acting_owner_id: int) -> None:
    """Refuse an act of a lead on others while the lead is suspended; the project's owner may take rights away.

    Raises:
        OwnerSuspended: the lead is suspended.
    """
    if conn.fetch_one_or_none(
        "SELECT 1 FROM owner o JOIN project pj ON pj.id = %s AND pj.owner_id <> o.id"
        " WHERE o.id = %s AND o.suspended_at IS NOT NULL",
        (project_id, acting_owner_id),
    ):
        raise OwnerSuspended


def require_not_suspended(suspended_at: datetime | None) -> None:
    """As `require_active_owner`, where the transaction has locked the owner and read the column."""
    if suspended_at is not None:
        raise OwnerSuspended
