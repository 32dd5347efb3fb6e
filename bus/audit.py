"""The audit log: every act in the admin, the operator console, the command line and the admin_* tools."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from bus.db import Connection
from bus.tables import audit, project


def record(
    conn: Connection,
    owner_id: int | None,
    actor: str,
    action: str,
    subject: str,
    *,
    project_id: int | None = None,
    **detail: Any,
) -> None:
    """Write one audit row in the caller's transaction, so that it commits with what it speaks of.

    Args:
        owner_id: whose affairs were touched; None for an act of the service itself, such as a new price.
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


@dataclass(frozen=True, slots=True)
class Act:
    """One row of the audit log; `project` is the project's name now, None where it was of no project or is gone."""

    id: int
    at: datetime
    actor: str
    action: str
    subject: str
    project_id: int | None
    project: str | None
    detail: dict[str, Any]


def list_(
    conn: Connection, owner_id: int, *, project_id: int | None = None, before: int | None = None, limit: int = 50
) -> list[Act]:
    """What was done in an owner's affairs, newest first, at most `limit`, with ids below `before`.

    Args:
        project_id: only what concerns this project; another owner's gives nothing.
    """
    columns = (audit.c.id, audit.c.at, audit.c.actor, audit.c.action, audit.c.subject, audit.c.project_id)
    query = (
        sa.select(*columns, project.c.name, audit.c.detail)
        .outerjoin(project, sa.and_(project.c.id == audit.c.project_id, project.c.purging_at.is_(None)))
        .where(audit.c.owner_id == owner_id)
        .order_by(audit.c.id.desc())
        .limit(limit)
    )
    if project_id is not None:
        query = query.where(audit.c.project_id == project_id)
    if before is not None:
        query = query.where(audit.c.id < before)
    return [Act(*row) for row in conn.run(query)]
