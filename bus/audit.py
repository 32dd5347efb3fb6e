"""The audit log: every act in the admin, the operator console, the command line and the admin_* tools."""

from typing import Any

import sqlalchemy as sa

from bus.db import Connection
from bus.tables import audit


def record(
    conn: Connection,
    owner_id: int,
    actor: str,
    action: str,
    subject: str,
    *,
    project_id: int | None = None,
    **detail: Any,
) -> None:
    """Write one audit row in the caller's transaction, so that it commits with what it speaks of.

    Args:
        owner_id: whose affairs were touched.
        actor: who did it: a qualified name, or `cli` or `operator`.
        action: `noun.verb`, such as `token.rotate`.
        subject: what it was done to, as people know it. Never a secret.
    """
    conn.run(
        sa.insert(audit).values(
            owner_id=owner_id,
            project_id=project_id,
            actor=actor,
            action=action,
            subject=subject,
            detail=detail,
        )
    )
    if project_id is not None:
        # Who may call, and what it is shown, changes with what people do; and what they do is written here.
        conn.touch(project_id, "members")
