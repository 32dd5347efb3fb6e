"""Who is in a project: participations as the engine looks them up, by name or by id."""

from dataclasses import dataclass

from bus.db import Connection
from bus.errors import BusError
from bus.rules import validation
from bus.tenancy import names


@dataclass(frozen=True, slots=True)
class Found:
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


def get(conn: Connection, project_id: int, who: str | int, argument: str = "participant_name") -> Found:
    """The participation that goes by `label`, `handle/label` or the owner's `handle` in the project, or has the id.

    Raises:
        BusError: `unknown_recipient`, with up to five near names; `not_found` for an id.
    """
    found = find(conn, project_id, who, argument)
    if found is None:
        raise (
            BusError("not_found", "There is no such participant in the project.")
            if isinstance(who, int)
            else names.unknown(conn, project_id, who)
        )
    return found


def find(conn: Connection, project_id: int, who: str | int, argument: str = "participant_name") -> Found | None:
    """As `get`, but None where there is none."""
    if isinstance(who, int):
        row = conn.maybe(f"{_FOUND} AND p.project_id = %s AND p.id = %s", (project_id, who))
    else:
        handle, label = validation.qualified(who, argument)
        row = conn.maybe(
            f"{_FOUND} AND p.id = bus_named(%s, %s, %s)",
            (project_id, handle, validation.label_key(label)),
        )
    return Found(*row) if row else None


def list_(conn: Connection, project_id: int, *, after: int = 0, limit: int = 200) -> list[Found]:
    """Participations of a project by id, at most `limit`, with ids above `after`."""
    rows = conn.all(f"{_FOUND} AND p.project_id = %s AND p.id > %s ORDER BY p.id LIMIT %s", (project_id, after, limit))
    return [Found(*row) for row in rows]


_FOUND = (
    "SELECT p.id, pt.id, CASE WHEN pt.label = '' THEN o.handle ELSE pt.label END, bus_actor(p.id), pt.kind, p.lane,"
    " p.is_admin FROM participation p JOIN participant pt ON pt.id = p.participant_id"
    " JOIN owner o ON o.id = pt.owner_id WHERE p.removed_at IS NULL AND pt.removed_at IS NULL"
)
