"""Numbers here of what had another id before its import."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from bus.db import Connection


@dataclass(frozen=True, slots=True)
class FormerId:
    """What a former id stands for: an event, a post or a task, and its number here."""

    kind: str
    number: int


_NOUNS = {"beads": "task", "agent_mail": "post"}


def find(conn: Connection, project_id: int, original_id: str) -> list[FormerId]:
    """Return what had this id where it was imported from; one id may stand for an event, a post and a task."""
    rows = conn.fetch_all(
        "SELECT kind, number FROM imported_id WHERE project_id = %s AND original_id = %s"
        " AND kind = ANY (ARRAY['event', 'post', 'task', 'beads', 'agent_mail']) ORDER BY kind",
        (project_id, original_id),
    )
    return [FormerId(str(_NOUNS.get(kind, kind)), int(number)) for kind, number in rows]


def list_numbers(conn: Connection, project_id: int, kind: str) -> dict[str, int]:
    """Return all numbers of one kind by former id."""
    rows = conn.fetch_all(
        "SELECT original_id, number FROM imported_id WHERE project_id = %s AND kind = %s", (project_id, kind)
    )
    return dict(rows)


def record_ids(conn: Connection, project_id: int, kind: str, pairs: Iterable[tuple[Any, int]]) -> None:
    """Record the numbers here of former ids."""
    pairs = list(pairs)
    conn.execute(
        "INSERT INTO imported_id (project_id, kind, original_id, number)"
        " SELECT %s, %s, i.original_id, i.number FROM unnest(%s::text[], %s::bigint[]) AS i (original_id, number)",
        (project_id, kind, [str(original_id) for original_id, _ in pairs], [number for _, number in pairs]),
    )
