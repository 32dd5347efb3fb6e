"""Who is in a project: participations as the engine looks them up, by name or by id."""

from dataclasses import dataclass

from bus.db import Connection
from bus.errors import NotFound
from bus.rules import validation
from bus.tenancy import names


@dataclass(frozen=True, slots=True)
class Participation:
    """A participation that is in the project now; the `label` of the owner is the handle."""

    participation_id: int
    participant_id: int
    label: str
    actor: str
    kind: str
    lane: str | None
    is_admin: bool

    @property
    def is_owner(self) -> bool:
        """Whether it is the owner's own, under which the owner acts in the web."""
        return "/" not in self.actor


def get_participation(
    conn: Connection, project_id: int, reference: str | int, argument: str = "participant_name"
) -> Participation:
    """The participation that goes by `label`, `handle/label` or the owner's `handle` in the project, or has the id.

    Raises:
        BusError: `unknown_recipient`, with up to five near names; `not_found` for an id.
    """
    found = find_participation(conn, project_id, reference, argument)
    if found is None:
        raise (
            NotFound("participant in the project")
            if isinstance(reference, int)
            else names.unknown_recipient_error(conn, project_id, reference)
        )
    return found


def find_participation(
    conn: Connection, project_id: int, reference: str | int, argument: str = "participant_name"
) -> Participation | None:
    """As `get`, but None where there is none."""
    if isinstance(reference, int):
        row = conn.fetch_one_or_none(
            f"{_PARTICIPATION_SQL} AND p.project_id = %s AND p.id = %s", (project_id, reference)
        )
    else:
        handle, label = validation.qualified_name(reference, argument)
        row = conn.fetch_one_or_none(
            f"{_PARTICIPATION_SQL} AND p.id = bus_find_participation(%s, %s, %s)",
            (project_id, handle, validation.label_key(label)),
        )
    return Participation(*row) if row else None


def list_participations(conn: Connection, project_id: int, *, after: int = 0, limit: int = 200) -> list[Participation]:
    """Participations of a project by id, at most `limit`, with ids above `after`."""
    rows = conn.fetch_all(
        f"{_PARTICIPATION_SQL} AND p.project_id = %s AND p.id > %s ORDER BY p.id LIMIT %s", (project_id, after, limit)
    )
    return [Participation(*row) for row in rows]


_PARTICIPATION_SQL = (
    "SELECT p.id, pt.id, bus_short_name(o.handle, pt.label), bus_participation_name(p.id), pt.kind, p.lane,"
    " p.is_admin FROM participation p JOIN participant pt ON pt.id = p.participant_id"
    " JOIN owner o ON o.id = pt.owner_id WHERE p.removed_at IS NULL AND pt.removed_at IS NULL"
)
