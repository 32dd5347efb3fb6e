"""The patterns of references of a project (bus/rules/ref_patterns.py)."""

from typing import Any

import sqlalchemy as sa

from bus.db import Connection
from bus.errors import BusError, NotFound
from bus.rules import ref_patterns
from bus.rules.ref_patterns import MAX_PATTERNS, RefPattern
from bus.tenancy import audit
from bus.tenancy.tables import project


def list_patterns(conn: Connection, project_id: int) -> list[RefPattern]:
    """List the patterns of a project, in the order in which they are tried.

    Raises:
        BusError: `not_found`.
    """
    return _read(conn, sa.select(project.c.ref_patterns).where(_is_present(project_id)))


def add_pattern(conn: Connection, project_id: int, pattern: str, address: str, *, actor: str) -> RefPattern:
    """Add a pattern to a project, after its others.

    Raises:
        BusError: `invalid_argument`; `conflict` if the project has this pattern or MAX_PATTERNS of them; `not_found`.
    Locks: the project's row.
    """
    added = ref_patterns.validate(pattern, address)
    patterns = _lock_patterns(conn, project_id)
    if any(known.pattern == added.pattern for known in patterns):
        raise BusError("conflict", f"pattern {added.pattern} exists already; remove it first to change its address.")
    if len(patterns) >= MAX_PATTERNS:
        raise BusError("conflict", f"A project has at most {MAX_PATTERNS} patterns; remove one first.")
    _write(conn, project_id, [*patterns, added], "ref_pattern.add", added, actor)
    return added


def remove_pattern(conn: Connection, project_id: int, pattern: str, *, actor: str) -> bool:
    """Remove a pattern; return whether there was one.

    Locks: the project's row.
    """
    patterns = _lock_patterns(conn, project_id)
    removed = next((known for known in patterns if known.pattern == pattern), None)
    if removed is not None:
        kept = [known for known in patterns if known is not removed]
        _write(conn, project_id, kept, "ref_pattern.remove", removed, actor)
    return removed is not None


def _is_present(project_id: int) -> sa.ColumnElement[bool]:
    return sa.and_(project.c.id == project_id, project.c.purging_at.is_(None))


def _lock_patterns(conn: Connection, project_id: int) -> list[RefPattern]:
    query = sa.select(project.c.ref_patterns).where(_is_present(project_id)).with_for_update(key_share=True)
    return _read(conn, query)


def _read(conn: Connection, query: sa.Select[Any]) -> list[RefPattern]:
    row = conn.execute(query).one_or_none()
    if row is None:
        raise NotFound("project")
    return [RefPattern(pattern, address) for pattern, address in row.ref_patterns]


def _write(
    conn: Connection, project_id: int, patterns: list[RefPattern], action: str, changed: RefPattern, actor: str
) -> None:
    owner_id = conn.execute(
        sa.update(project)
        .where(project.c.id == project_id)
        .values(ref_patterns=[[known.pattern, known.address] for known in patterns])
        .returning(project.c.owner_id)
    ).scalar_one()
    audit.record(conn, owner_id, actor, action, changed.pattern, project_id=project_id, address=changed.address)
