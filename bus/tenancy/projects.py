"""Projects: isolated coordination spaces, their state and their settings."""

import dataclasses
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from bus import limits
from bus.db import Connection, from_row
from bus.errors import BusError, NotFound
from bus.rules import validation
from bus.tenancy import audit, owners
from bus.tenancy.suspension import require_active_owner
from bus.tenancy.tables import owner, project, project_clock, share_link


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
            owner.c.handle.label("owner"),
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
        OwnerSuspended: the owner is suspended.
    """
    label = validation.label(name, "name")
    require_active_owner(conn, owner_id)
    project_id = conn.execute(
        sa.insert(project)
        .values(owner_id=owner_id, name=label, name_key=validation.label_key(label))
        .returning(project.c.id)
    ).scalar_one()
    # The transaction may have acted in another project before.
    conn.enter_project(project_id)
    conn.execute(sa.insert(project_clock).values(project_id=project_id))
    audit.record(conn, owner_id, actor, "project.add", label, project_id=project_id)
    return get(conn, project_id)


def get(conn: Connection, project_id: int) -> Project:
    """Return the project with this id.

    Raises:
        BusError: `not_found`.
    """
    row = conn.execute(_select_projects().where(project.c.id == project_id)).one_or_none()
    if row is None:
        raise NotFound("project")
    return from_row(Project, row)


def get_by_name(conn: Connection, name: str) -> Project:
    """Return the project with this name, given as `NAME` or `HANDLE/NAME`; the handle may be a former one.

    Raises:
        BusError: `not_found`, or `conflict` when several owners have a project of that name.
    """
    handle, label = validation.qualified_name(name, "project")
    query = _select_projects().where(project.c.name_key == validation.label_key(label)).order_by(project.c.id).limit(6)
    if handle is not None:
        query = query.where(owner.c.id == owners.owner_id_of_handle(handle))
    matches = [from_row(Project, row) for row in conn.execute(query)]
    if not matches:
        raise BusError("not_found", f"There is no project {name}.", hint="list_projects")
    if len(matches) > 1:
        choices = ", ".join(f"{match.owner}/{match.name}" for match in matches)
        raise BusError("conflict", f"Several owners have a project {name}; name one of: {choices}.")
    return matches[0]


def list_projects(conn: Connection, *, owner_id: int | None = None, after: int = 0, limit: int = 200) -> list[Project]:
    """List projects by id, at most `limit`, with ids above `after`; of one owner or of all."""
    query = _select_projects().where(project.c.id > after).order_by(project.c.id).limit(limit)
    if owner_id is not None:
        query = query.where(project.c.owner_id == owner_id)
    return [from_row(Project, row) for row in conn.execute(query)]


def archive(conn: Connection, project_id: int, *, actor: str) -> bool:
    """Archive a project: reads work, writes are `forbidden`, and its share links end.

    Returns:
        Whether anything changed.
    Locks: the project clock: running writes finish first, and writes that wait for the clock are refused.
    """
    return _set_archived(conn, project_id, sa.func.clock_timestamp(), project.c.archived_at.is_(None), actor)


def reopen(conn: Connection, project_id: int, *, actor: str) -> bool:
    """Reopen an archived project; return whether anything changed.

    Raises:
        BusError: `conflict` while its import is not complete.
        OwnerSuspended: the owner is suspended.
    Locks: the project clock, then the owner, shared.
    """
    conn.execute("SELECT bus_lock_clock(%s)", (project_id,))
    owner_id = conn.execute(sa.select(project.c.owner_id).where(project.c.id == project_id)).scalar_one_or_none()
    if owner_id is not None:
        require_active_owner(conn, owner_id)
    if conn.fetch_one_or_none(
        "SELECT 1 FROM project_import WHERE project_id = %s AND finished_at IS NULL", (project_id,)
    ):
        raise BusError("conflict", "The import of this project is not complete; run it again, which opens the project.")
    reopened = _set_archived(conn, project_id, None, project.c.archived_at.is_not(None), actor)
    if reopened and conn.fetch_one(_GIVE_BACK_SQL, {"project": project_id}) != (0,):
        conn.notify_on_commit(project_id, "ledger", "leases", "tasks")
    return reopened


# Of those who left, were removed or became viewers while the project was archived, when its ledger was closed.
_GIVE_BACK_SQL = """
    SELECT bus_give_back_work(%(project)s, ARRAY(
        SELECT p.id FROM participation p JOIN participant pt ON pt.id = p.participant_id
        WHERE p.project_id = %(project)s AND (p.removed_at IS NOT NULL
            OR coalesce(bus_project_role(%(project)s, pt.owner_id), 'viewer') = 'viewer')
    ))
"""


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
        if archived_at is not None:
            # Reopening does not revive them.
            conn.execute(
                sa.update(share_link)
                .where(share_link.c.project_id == project_id, share_link.c.revoked_at.is_(None))
                .values(revoked_at=archived_at)
            )
        action = "project.reopen" if archived_at is None else "project.archive"
        audit.record(conn, changed.owner_id, actor, action, changed.name, project_id=project_id)
    return changed is not None


def rename(conn: Connection, project_id: int, name: str, *, actor: str) -> bool:
    """Rename a project; return whether anything changed.

    Raises:
        BusError: `conflict` when the owner has a project of that name; `not_found`.
    """
    label = validation.label(name, "name")
    before = get(conn, project_id)
    changed = conn.execute(
        sa.update(project)
        .where(project.c.id == project_id, project.c.purging_at.is_(None), project.c.name != label)
        .values(name=label, name_key=validation.label_key(label))
        .returning(project.c.owner_id)
    ).one_or_none()
    if changed is not None:
        audit.record(conn, changed.owner_id, actor, "project.rename", label, project_id=project_id, before=before.name)
    return changed is not None


@dataclass(frozen=True, slots=True)
class ProjectSettings:
    """Settings of a project.

    Attributes:
        presence_window_seconds: a participant seen within it is active; 60 to 86,400.
        stall_window_seconds: a started task is reopened when its assignee was not seen for this long; 60 to 2,592,000,
            or None for never.
        gone_window_seconds: a participant not seen for this long is recorded as gone; 60 to 2,592,000.
        escalation_pause_seconds: the pause between two escalation steps of an overdue post; 10 to 86,400.
        escalation_email: the address of the last escalation step, or None.
        case_insensitive_paths: `Src/A.py` and `src/a.py` are the same file, as on macOS and Windows; surfaces are kept
            in lower case.
    """

    presence_window_seconds: int
    stall_window_seconds: int | None
    gone_window_seconds: int = 3600
    escalation_pause_seconds: int = 300
    escalation_email: str | None = None
    case_insensitive_paths: bool = False


def get_settings(conn: Connection, project_id: int) -> ProjectSettings:
    """Return the settings of a project.

    Raises:
        BusError: `not_found`.
    """
    columns = [project.c[field.name] for field in dataclasses.fields(ProjectSettings)]
    row = conn.execute(
        sa.select(*columns).where(project.c.id == project_id, project.c.purging_at.is_(None))
    ).one_or_none()
    if row is None:
        raise NotFound("project")
    return from_row(ProjectSettings, row)


def set_settings(conn: Connection, project_id: int, settings: ProjectSettings, *, actor: str) -> bool:
    """Change the settings of a project; return whether anything changed.

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
        audit.record(
            conn,
            changed.owner_id,
            actor,
            "project.settings",
            changed.name,
            project_id=project_id,
            **dataclasses.asdict(settings),
        )
    return changed is not None
