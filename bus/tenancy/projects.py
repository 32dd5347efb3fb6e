"""Projects: coordination spaces. Everything that agents do is scoped to one."""

import dataclasses
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from bus import limits
from bus.db import Connection
from bus.errors import BusError, NotFound
from bus.rules import validation
from bus.tenancy import audit
from bus.tenancy.tables import owner, project, project_clock


@dataclass(frozen=True, slots=True)
class Project:
    """A project; `owner` is the owner's handle."""

    id: int
    owner_id: int
    owner: str
    name: str
    created_at: datetime
    archived_at: datetime | None


def _select_projects() -> sa.Select[Any]:
    return (
        sa.select(
            project.c.id,
            project.c.owner_id,
            owner.c.handle,
            project.c.name,
            project.c.created_at,
            project.c.archived_at,
        )
        .join(owner, owner.c.id == project.c.owner_id)
        .where(project.c.purging_at.is_(None))
    )


def add(conn: Connection, owner_id: int, name: str, *, actor: str) -> Project:
    """Create a project with an empty ledger.

    Raises:
        BusError: `conflict` when the owner has a project of that name.
    """
    named = validation.label(name, "name")
    project_id = conn.execute(
        sa.insert(project)
        .values(owner_id=owner_id, name=named, name_key=validation.label_key(named))
        .returning(project.c.id)
    ).scalar_one()
    conn.execute(sa.insert(project_clock).values(project_id=project_id))
    audit.record(conn, owner_id, actor, "project.add", named, project_id=project_id)
    return get(conn, project_id)


def is_owned_by(conn: Connection, owner_id: int, project_id: int) -> bool:
    """Whether an owner has this project, and it is not being deleted."""
    query = "SELECT 1 FROM project WHERE id = %s AND owner_id = %s AND purging_at IS NULL"
    return conn.fetch_one_or_none(query, (project_id, owner_id)) is not None


def get(conn: Connection, project_id: int) -> Project:
    """The project with this id.

    Raises:
        BusError: `not_found`.
    """
    row = conn.execute(_select_projects().where(project.c.id == project_id)).one_or_none()
    if row is None:
        raise NotFound("project")
    return Project(*row)


def get_by_name(conn: Connection, name: str) -> Project:
    """The project called `NAME` or `HANDLE/NAME`, as people type it.

    Raises:
        BusError: `not_found`, or `conflict` when several owners have a project of that name.
    """
    handle, label = validation.qualified_name(name, "project")
    query = _select_projects().where(project.c.name_key == validation.label_key(label)).order_by(project.c.id).limit(6)
    if handle is not None:
        query = query.where(owner.c.handle == handle)
    found = [Project(*row) for row in conn.execute(query)]
    if not found:
        raise BusError("not_found", f"There is no project {name}.", hint="list_projects")
    if len(found) > 1:
        choices = ", ".join(f"{one.owner}/{one.name}" for one in found)
        raise BusError("conflict", f"Several owners have a project {name}; say which: {choices}.")
    return found[0]


def list_projects(conn: Connection, *, owner_id: int | None = None, after: int = 0, limit: int = 200) -> list[Project]:
    """Projects by id, at most `limit`, with ids above `after`; of one owner or of all."""
    query = _select_projects().where(project.c.id > after).order_by(project.c.id).limit(limit)
    if owner_id is not None:
        query = query.where(project.c.owner_id == owner_id)
    return [Project(*row) for row in conn.execute(query)]


def archive(conn: Connection, project_id: int, *, actor: str) -> bool:
    """Archive a project: reads go on, writes are `forbidden`. Returns whether anything changed.

    Locks: the project clock: writes under way end first, writes that wait behind the archive are refused.
    """
    return _set_archived(conn, project_id, sa.func.clock_timestamp(), project.c.archived_at.is_(None), actor)


def reopen(conn: Connection, project_id: int, *, actor: str) -> bool:
    """Open an archived project again. Returns whether anything changed."""
    return _set_archived(conn, project_id, None, project.c.archived_at.is_not(None), actor)


def _set_archived(
    conn: Connection, project_id: int, archived_at: Any, precondition: sa.ColumnElement[bool], actor: str
) -> bool:
    conn.execute("SELECT bus_lock_clock(%s)", (project_id,))
    changed = conn.execute(
        sa.update(project)
        .where(project.c.id == project_id, project.c.purging_at.is_(None), precondition)
        .values(archived_at=archived_at)
        .returning(project.c.owner_id, project.c.name)
    ).one_or_none()
    if changed is not None:
        conn.execute(
            sa.update(project_clock)
            .where(project_clock.c.project_id == project_id)
            .values(closed=archived_at is not None)
        )
        action = "project.reopen" if archived_at is None else "project.archive"
        audit.record(conn, changed.owner_id, actor, action, changed.name, project_id=project_id)
    return changed is not None


def rename(conn: Connection, project_id: int, name: str, *, actor: str) -> bool:
    """Give a project another name. Returns whether anything changed.

    Raises:
        BusError: `conflict` when the owner has a project of that name; `not_found`.
    """
    named = validation.label(name, "name")
    before = get(conn, project_id)
    changed = conn.execute(
        sa.update(project)
        .where(project.c.id == project_id, project.c.purging_at.is_(None), project.c.name != named)
        .values(name=named, name_key=validation.label_key(named))
        .returning(project.c.owner_id)
    ).one_or_none()
    if changed is not None:
        audit.record(conn, changed.owner_id, actor, "project.rename", named, project_id=project_id, before=before.name)
    return changed is not None


@dataclass(frozen=True, slots=True)
class ProjectSettings:
    """How a project behaves.

    Attributes:
        presence_window_seconds: who was seen within it counts as here; 60 to 86,400.
        stall_window_seconds: a task in progress whose assignee was gone for so long is open again; 60 to 2,592,000,
            or None: never.
        gone_window_seconds: who was not seen for so long is written down as gone; 60 to 2,592,000.
        escalation_pause_seconds: between two steps for a handoff past its deadline; 10 to 86,400.
        escalation_email: who is told last, or None.
    """

    presence_window_seconds: int
    stall_window_seconds: int | None
    gone_window_seconds: int = 3600
    escalation_pause_seconds: int = 300
    escalation_email: str | None = None


def get_settings(conn: Connection, project_id: int) -> ProjectSettings:
    """The settings of a project.

    Raises:
        BusError: `not_found`.
    """
    columns = [project.c[one.name] for one in dataclasses.fields(ProjectSettings)]
    row = conn.execute(
        sa.select(*columns).where(project.c.id == project_id, project.c.purging_at.is_(None))
    ).one_or_none()
    if row is None:
        raise NotFound("project")
    return ProjectSettings(*row)


def set_settings(conn: Connection, project_id: int, settings: ProjectSettings, *, actor: str) -> bool:
    """Change how a project behaves. Returns whether anything changed.

    Raises:
        BusError: `invalid_argument`, `not_found`.
    """
    validation.integer(settings.presence_window_seconds, "presence_window_seconds", 60, limits.MAX_DURATION_SECONDS)
    if settings.stall_window_seconds is not None:
        validation.integer(settings.stall_window_seconds, "stall_window_seconds", 60, 30 * limits.MAX_DURATION_SECONDS)
    validation.integer(settings.gone_window_seconds, "gone_window_seconds", 60, 30 * limits.MAX_DURATION_SECONDS)
    validation.integer(settings.escalation_pause_seconds, "escalation_pause_seconds", 10, limits.MAX_DURATION_SECONDS)
    if settings.escalation_email is not None:
        address = validation.email(settings.escalation_email, "escalation_email")
        settings = dataclasses.replace(settings, escalation_email=address)
    if get_settings(conn, project_id) == settings:
        return False
    changed = conn.execute(
        sa.update(project)
        .where(project.c.id == project_id, project.c.purging_at.is_(None))
        .values(**dataclasses.asdict(settings))
        .returning(project.c.owner_id, project.c.name)
    ).one_or_none()
    if changed is not None:
        facts = dataclasses.asdict(settings)
        audit.record(conn, changed.owner_id, actor, "project.settings", changed.name, project_id=project_id, **facts)
    return changed is not None
