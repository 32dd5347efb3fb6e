"""Reading participations: one by its name or id, or those of a project or an owner."""

from dataclasses import dataclass

from bus.ctx import Ctx
from bus.db import Connection
from bus.errors import BusError, NotFound
from bus.rules import validation
from bus.tenancy import participants


@dataclass(frozen=True, slots=True)
class Participation:
    """A participant in a project.

    Attributes:
        label: the name by which the project's owner knows it: the label, the handle of a person, or, of another
            owner's participant, the qualified name.
        actor: the qualified name.
        owner_id: the participant's owner; another one than the project's for a participant of a member.
        granted_lane: the lane that the owner granted; a lane that the participant registered takes precedence.
    """

    id: int
    participant_id: int
    label: str
    actor: str
    kind: str
    granted_lane: str | None
    is_admin: bool
    owner_id: int

    @property
    def is_owner(self) -> bool:
        """Whether it is an owner's own participation, which acts in the web and has no token."""
        return "/" not in self.actor


def get(
    conn: Connection,
    project_id: int,
    reference: str | int,
    argument: str = "participant_name",
    *,
    caller_participation_id: int | None = None,
) -> Participation:
    """Return the participation with this name (`label`, `handle/label` or a person's `handle`) or id in a project.

    Args:
        caller_participation_id: among whose owner's participants a label is looked up; None for the project's owner.
    Raises:
        BusError: `unknown_recipient` for a name, with up to five similar names; `not_found` for an id.
    """
    match = find(conn, project_id, reference, argument, caller_participation_id=caller_participation_id)
    if match is not None:
        return match
    if isinstance(reference, int):
        raise NotFound("participant in the project")
    raise participants.unknown_recipient_error(conn, project_id, reference, caller_participation_id)


def get_addressable(conn: Connection, ctx: Ctx, project_id: int, name: str, argument: str) -> Participation:
    """As `get` for the caller of a tool, but refuse a participant whose owner is a viewer.

    Raises:
        BusError: `forbidden` for a viewer.
    """
    match = get(conn, project_id, name, argument, caller_participation_id=ctx.participation_id)
    conn.execute("SELECT bus_refuse_viewer(%s, %s)", (project_id, match.id))
    return match


def find(
    conn: Connection,
    project_id: int,
    reference: str | int,
    argument: str = "participant_name",
    *,
    caller_participation_id: int | None = None,
) -> Participation | None:
    """As `get`, but return None where there is no match."""
    if isinstance(reference, int):
        return conn.fetch_one_or_none_as(
            Participation, f"{_PARTICIPATION_SQL} AND p.project_id = %s AND p.id = %s", (project_id, reference)
        )
    handle, label = validation.qualified_name(reference, argument)
    return conn.fetch_one_or_none_as(
        Participation,
        f"{_PARTICIPATION_SQL} AND p.id = bus_find_participation(%s, %s, %s, %s)",
        (project_id, handle, validation.label_key(label), caller_participation_id),
    )


def find_of_participant(conn: Connection, project_id: int, participant_id: int) -> Participation | None:
    """Return the participation of a participant in a project, or None."""
    return conn.fetch_one_or_none_as(
        Participation,
        f"{_PARTICIPATION_SQL} AND p.project_id = %s AND p.participant_id = %s",
        (project_id, participant_id),
    )


def get_token_holder(
    conn: Connection, project_id: int, reference: str | int, *, host_id: int | None = None
) -> Participation:
    """As `get`, but refuse a person's own participation, which has no token, no granted lane and no other rights.

    Args:
        host_id: refuse participants of other owners, of whom no one else may hold a token.
    Raises:
        BusError: `forbidden` for a person's own participation, and for one of another owner.
    """
    match = get(conn, project_id, reference)
    if match.is_owner:
        raise BusError("forbidden", f"{match.actor} is a person, who acts in the web and has no token.")
    if host_id is not None and match.owner_id != host_id:
        handle = match.actor.partition("/")[0]
        raise BusError("forbidden", f"{match.actor} is a participant of {handle}, who alone gives it tokens.")
    return match


def list_participations(conn: Connection, project_id: int, *, after: int = 0, limit: int = 200) -> list[Participation]:
    """List the participations of a project by id, at most `limit`, with ids above `after`."""
    return conn.fetch_all_as(
        Participation,
        f"{_PARTICIPATION_SQL} AND p.project_id = %s AND p.id > %s ORDER BY p.id LIMIT %s",
        (project_id, after, limit),
    )


def list_of_owner(conn: Connection, project_id: int, owner_id: int) -> list[Participation]:
    """List the participations of one owner's participants in a project, by id."""
    return conn.fetch_all_as(
        Participation,
        f"{_PARTICIPATION_SQL} AND p.project_id = %s AND pt.owner_id = %s ORDER BY p.id",
        (project_id, owner_id),
    )


_PARTICIPATION_SQL = (
    "SELECT p.id, p.participant_id, bus_name_for(pj.owner_id, o.id, o.handle, pt.label) AS label,"
    " bus_qualified_name(o.handle, pt.label) AS actor, pt.kind, p.lane AS granted_lane, p.is_admin, pt.owner_id"
    " FROM participation p JOIN project pj ON pj.id = p.project_id JOIN participant pt ON pt.id = p.participant_id"
    " JOIN owner o ON o.id = pt.owner_id WHERE p.removed_at IS NULL AND pt.removed_at IS NULL"
)
