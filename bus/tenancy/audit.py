"""The audit log: every act in the admin, the operator console, the command line and the admin_* tools."""

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit

import sqlalchemy as sa

from bus.db import Connection
from bus.tenancy.tables import audit, owner, project


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
    """One row of the audit log.

    Attributes:
        owner_id, owner: in whose affairs it was, and their handle; None for an act of the service itself.
        project: the project's name now, None where it was of no project or is gone.
    """

    id: int
    at: datetime
    owner_id: int | None
    owner: str | None
    actor: str
    action: str
    subject: str
    project_id: int | None
    project: str | None
    detail: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Filter:
    """Which acts: those for which all of it holds.

    Attributes:
        actor: who did it, whole and as it is written there.
        action: `token.rotate`, or `token` for all about tokens.
        project_id: what concerns this project, which may be gone.
        since, until: both included.
    """

    actor: str | None = None
    action: str | None = None
    project_id: int | None = None
    since: datetime | None = None
    until: datetime | None = None


ALL = Filter()


def list_(
    conn: Connection, owner_id: int, wanted: Filter = ALL, *, before: int | None = None, limit: int = 50
) -> list[Act]:
    """What was done in an owner's affairs, newest first, at most `limit`, with ids below `before`.

    Raises:
        BusError: `unavailable` when the filter finds so little that too much would have to be read.
    """
    return _list(conn, owner_id, wanted, before, limit)


def list_all(
    conn: Connection,
    wanted: Filter = ALL,
    *,
    owner_id: int | None = None,
    before: int | None = None,
    limit: int = 50,
) -> list[Act]:
    """As `list_`, in everybody's affairs, for an operator: what tenants work on and where their webhooks lead, which is
    often a secret, is not in it.

    Args:
        owner_id: only in this owner's affairs.
    """
    return [_without_content(act) for act in _list(conn, owner_id, wanted, before, limit)]


def _list(conn: Connection, owner_id: int | None, wanted: Filter, before: int | None, limit: int) -> list[Act]:
    query = (
        sa.select(
            audit.c.id,
            audit.c.at,
            audit.c.owner_id,
            owner.c.handle,
            audit.c.actor,
            audit.c.action,
            audit.c.subject,
            audit.c.project_id,
            project.c.name,
            audit.c.detail,
        )
        .outerjoin(owner, owner.c.id == audit.c.owner_id)
        .outerjoin(project, sa.and_(project.c.id == audit.c.project_id, project.c.purging_at.is_(None)))
        .where(*_conditions(owner_id, wanted, before))
        .order_by(audit.c.id.desc())
        .limit(limit)
    )
    return [Act(*row) for row in conn.run(query)]


def _without_content(act: Act) -> Act:
    if act.action == "lease.release":
        return dataclasses.replace(act, subject="a lease")
    if act.action in ("webhook.add", "webhook.remove"):
        return dataclasses.replace(act, subject=urlsplit(act.subject).hostname or "a webhook")
    return act


def _conditions(owner_id: int | None, wanted: Filter, before: int | None) -> Iterator[sa.ColumnElement[bool]]:
    if owner_id is not None:
        yield audit.c.owner_id == owner_id
    if before is not None:
        yield audit.c.id < before
    if wanted.actor is not None:
        yield audit.c.actor == wanted.actor
    if wanted.action is not None and "." in wanted.action:
        yield audit.c.action == wanted.action
    elif wanted.action is not None:
        yield audit.c.action.startswith(f"{wanted.action}.", autoescape=True)
    if wanted.project_id is not None:
        yield audit.c.project_id == wanted.project_id
    if wanted.since is not None:
        yield audit.c.at >= wanted.since
    if wanted.until is not None:
        yield audit.c.at <= wanted.until
