"""The audit log: acts in the admin, the operator console, the command line and the admin_* tools."""

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit

import sqlalchemy as sa

from bus import scopes
from bus.db import Connection, from_row
from bus.scopes import FULL_SCOPE, Scope
from bus.tenancy.tables import audit, owner, owner_handle, project


def scope_detail(scope: Scope) -> dict[str, str]:
    """Return the detail of an act that issues a token: its scope, if it is limited."""
    return {} if scope == FULL_SCOPE else {"scope": scopes.to_oauth(scope)}


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
    """Write one audit row in the caller's transaction, so that it commits with the act.

    Args:
        owner_id: the owner whom the act concerns; None for an act of the service itself, such as a new price.
        actor: a qualified name, or `cli` or `operator`.
        action: `noun.verb`, such as `token.rotate`.
        subject: the object of the act by its visible name. Never a secret.
    """
    conn.execute(
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
        # Audited acts change who may call and what callers see.
        conn.notify_on_commit(project_id, "members")


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One row of the audit log.

    Attributes:
        owner_id, owner: the owner whom the act concerns, and the handle; None for an act of the service itself.
        project: the project's present name; None where the act concerns no project or one that was deleted.
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
class AuditFilter:
    """Conditions on audit entries, all of which hold for the entries listed.

    Attributes:
        actor: the exact actor; of an owner or a participant also under former handles of the owner.
        action: `token.rotate`, or `token` for all actions on tokens.
        project_id: a project, which may have been deleted.
        since, until: both inclusive.
    """

    actor: str | None = None
    action: str | None = None
    project_id: int | None = None
    since: datetime | None = None
    until: datetime | None = None


NO_FILTER = AuditFilter()


def list_for_owner(
    conn: Connection, owner_id: int, filters: AuditFilter = NO_FILTER, *, before: int | None = None, limit: int = 50
) -> list[AuditEntry]:
    """List the acts that concern an owner, newest first, at most `limit`, with ids below `before`.

    Raises:
        BusError: `unavailable` when the filter is so selective that the search takes too long.
    """
    return _select_entries(conn, owner_id, filters, before, limit)


def list_for_operator(
    conn: Connection,
    filters: AuditFilter = NO_FILTER,
    *,
    owner_id: int | None = None,
    before: int | None = None,
    limit: int = 50,
) -> list[AuditEntry]:
    """As `list_for_owner`, over all owners, for an operator.

    Redacts the surfaces of leases, which show what tenants work on, and the paths of webhook URLs, which are often
    secret.

    Args:
        owner_id: only acts that concern this owner.
    """
    return [_redact_content(entry) for entry in _select_entries(conn, owner_id, filters, before, limit)]


def list_for_lead(
    conn: Connection, owner_id: int, filters: AuditFilter = NO_FILTER, *, before: int | None = None, limit: int = 50
) -> list[AuditEntry]:
    """As `list_for_owner`, for a lead of the project in `filters`.

    Redacts what its owner alone sets: the paths of webhook URLs, which are often secret, and e-mail addresses.
    """
    return [_redact_settings(entry) for entry in _select_entries(conn, owner_id, filters, before, limit)]


def _select_entries(
    conn: Connection, owner_id: int | None, filters: AuditFilter, before: int | None, limit: int
) -> list[AuditEntry]:
    is_shown: sa.ColumnElement[bool] = project.c.purging_at.is_(None)
    if owner_id is not None:
        # Who left a project of another owner keeps their own acts there, without what it is called now.
        is_shown = sa.and_(is_shown, sa.func.bus_project_role(project.c.id, owner_id).is_not(None))
    query = (
        sa.select(
            audit.c.id,
            audit.c.at,
            audit.c.owner_id,
            owner.c.handle.label("owner"),
            audit.c.actor,
            audit.c.action,
            audit.c.subject,
            audit.c.project_id,
            project.c.name.label("project"),
            audit.c.detail,
        )
        .outerjoin(owner, owner.c.id == audit.c.owner_id)
        .outerjoin(project, sa.and_(project.c.id == audit.c.project_id, is_shown))
        .where(*_filter_conditions(conn, owner_id, filters, before))
        .order_by(audit.c.id.desc())
        .limit(limit)
    )
    return [from_row(AuditEntry, row) for row in conn.execute(query)]


def _redact_content(entry: AuditEntry) -> AuditEntry:
    if entry.action == "lease.release":
        return dataclasses.replace(entry, subject="a lease")
    return _redact_webhook(entry)


def _redact_webhook(entry: AuditEntry) -> AuditEntry:
    if entry.action in ("webhook.add", "webhook.remove"):
        return dataclasses.replace(entry, subject=urlsplit(entry.subject).hostname or "a webhook")
    return entry


def _redact_settings(entry: AuditEntry) -> AuditEntry:
    detail = {
        name: "hidden" if value is not None and name in ("email", "escalation_email") else value
        for name, value in entry.detail.items()
    }
    return dataclasses.replace(_redact_webhook(entry), detail=detail)


def _list_spellings(conn: Connection, actor: str) -> list[str]:
    """List the name of an actor under each handle that its owner has or had."""
    handle, slash, label = actor.partition("/")
    same_owner = sa.select(owner_handle.c.owner_id).where(owner_handle.c.handle == handle).scalar_subquery()
    known = conn.execute(sa.select(owner_handle.c.handle).where(owner_handle.c.owner_id == same_owner))
    return [f"{spelling}{slash}{label}" for (spelling,) in known] or [actor]


def _filter_conditions(
    conn: Connection, owner_id: int | None, filters: AuditFilter, before: int | None
) -> Iterator[sa.ColumnElement[bool]]:
    if owner_id is not None:
        yield audit.c.owner_id == owner_id
    if before is not None:
        yield audit.c.id < before
    if filters.actor is not None:
        yield audit.c.actor.in_(_list_spellings(conn, filters.actor))
    if filters.action is not None and "." in filters.action:
        yield audit.c.action == filters.action
    elif filters.action is not None:
        yield audit.c.action.startswith(f"{filters.action}.", autoescape=True)
    if filters.project_id is not None:
        yield audit.c.project_id == filters.project_id
    if filters.since is not None:
        yield audit.c.at >= filters.since
    if filters.until is not None:
        yield audit.c.at <= filters.until
