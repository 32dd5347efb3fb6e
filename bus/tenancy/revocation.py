"""Revoking what a project has handed out as a code: its invites and share links."""

import sqlalchemy as sa

from bus.db import Connection
from bus.errors import NotFound
from bus.tenancy import audit
from bus.tenancy.tables import project


def revoke_code(
    conn: Connection, table: sa.Table, project_id: int, code_id: int, *, noun: str, action: str, actor: str
) -> bool:
    """Set `revoked_at` of a row of a project once, with an entry of the audit log; return whether anything changed.

    Args:
        table: has the columns id, project_id, hint and revoked_at.
        noun: what the row is, for the message.
    Raises:
        BusError: `not_found` when the project has no such row.
    """
    matches = sa.and_(table.c.id == code_id, table.c.project_id == project_id)
    changed = conn.execute(
        sa.update(table)
        .where(matches, table.c.revoked_at.is_(None))
        .values(revoked_at=sa.func.clock_timestamp())
        .returning(table.c.hint)
    ).one_or_none()
    if changed is None:
        if conn.execute(sa.select(table.c.id).where(matches)).one_or_none() is None:
            raise NotFound(noun)
        return False
    owner_id = conn.execute(sa.select(project.c.owner_id).where(project.c.id == project_id)).scalar_one()
    audit.record(conn, owner_id, actor, action, changed.hint, project_id=project_id)
    return True
