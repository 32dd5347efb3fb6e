"""An owner's participants, over all projects: what they are called, where they are, and their end."""

from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa

from bus import limits
from bus.db import Connection
from bus.errors import BusError, NotFound
from bus.rules import validation
from bus.tenancy import audit, roster, tokens
from bus.tenancy.tables import owner, participant, participant_name


@dataclass(frozen=True, slots=True)
class ParticipantSummary:
    """A participant of an owner.

    Attributes:
        label: empty for the owner, who acts in the web under the handle.
        actor: the qualified name.
        projects: in how many projects it is, counted up to 1,000.
        last_seen: in any of them.
    """

    id: int
    label: str
    actor: str
    kind: str
    created_at: datetime
    removed_at: datetime | None
    project_count: int
    last_seen: datetime | None


@dataclass(frozen=True, slots=True)
class ParticipantProject:
    """A project in which a participant is, and under which terms."""

    participation_id: int
    project_id: int
    project: str
    is_archived: bool
    lane: str | None
    is_admin: bool
    live_token_count: int
    last_seen: datetime | None


_PARTICIPANT_SQL = """
    SELECT pt.id, pt.label, bus_qualified_name(o.handle, pt.label), pt.kind,
           pt.created_at, pt.removed_at, places.n, places.last_seen
    FROM participant pt
    JOIN owner o ON o.id = pt.owner_id
    CROSS JOIN LATERAL (
        SELECT count(*) AS n, max(newest.last_seen) AS last_seen FROM (
            SELECT pr.last_seen FROM participation p
            JOIN project pj ON pj.id = p.project_id AND pj.purging_at IS NULL
            LEFT JOIN presence pr ON pr.project_id = p.project_id AND pr.participation_id = p.id
            WHERE p.participant_id = pt.id AND p.removed_at IS NULL LIMIT 1000) AS newest) AS places
    WHERE pt.owner_id = %(owner)s
"""


def list_participants(
    conn: Connection, owner_id: int, *, before: int | None = None, limit: int = 50
) -> list[ParticipantSummary]:
    """Participants of an owner, newest first, at most `limit`, with ids below `before`; the removed ones too."""
    rows = conn.fetch_all(
        f"{_PARTICIPANT_SQL} AND pt.id < %(before)s ORDER BY pt.id DESC LIMIT %(limit)s",
        {"owner": owner_id, "before": before or limits.MAX_INTEGER, "limit": limit},
    )
    return [ParticipantSummary(*row) for row in rows]


def get(conn: Connection, owner_id: int, participant_id: int) -> ParticipantSummary:
    """One participant of an owner.

    Raises:
        BusError: `not_found`, for another owner's as for one that does not exist.
    """
    row = conn.fetch_one_or_none(f"{_PARTICIPANT_SQL} AND pt.id = %(id)s", {"owner": owner_id, "id": participant_id})
    if row is None:
        raise NotFound("participant")
    return ParticipantSummary(*row)


def list_participant_projects(
    conn: Connection, owner_id: int, participant_id: int, *, limit: int = 200
) -> list[ParticipantProject]:
    """The projects that a participant of an owner is in, by id, at most `limit`."""
    rows = conn.fetch_all(
        "SELECT p.id, pj.id, pj.name, pj.archived_at IS NOT NULL, p.lane, p.is_admin,"
        " (SELECT count(*) FROM token t WHERE t.participation_id = p.id AND bus_token_is_live(t.revoked_at, t.expires_at)), pr.last_seen"
        " FROM participant pt JOIN participation p ON p.participant_id = pt.id AND p.removed_at IS NULL"
        " JOIN project pj ON pj.id = p.project_id AND pj.purging_at IS NULL"
        " LEFT JOIN presence pr ON pr.project_id = p.project_id AND pr.participation_id = p.id"
        " WHERE pt.id = %s AND pt.owner_id = %s ORDER BY pj.id LIMIT %s",
        (participant_id, owner_id, limit),
    )
    return [ParticipantProject(*row) for row in rows]


def list_participants_outside_project(
    conn: Connection, owner_id: int, project_id: int, *, limit: int = 200
) -> list[tuple[int, str]]:
    """The owner's participants that are not in a project: their ids and labels, by label, at most `limit`."""
    rows = conn.fetch_all(
        "SELECT pt.id, pt.label FROM participant pt WHERE pt.owner_id = %s AND pt.removed_at IS NULL"
        " AND pt.label <> '' AND NOT EXISTS (SELECT FROM participation p WHERE p.participant_id = pt.id"
        "  AND p.project_id = %s AND p.removed_at IS NULL) ORDER BY pt.label LIMIT %s",
        (owner_id, project_id, limit),
    )
    return [(int(number), str(label)) for number, label in rows]


def create(conn: Connection, owner_id: int, name: str, *, kind: str | None = None, actor: str) -> int:
    """Create a participant that is in no project yet; returns its id.

    Raises:
        BusError: `conflict` when the name is or was another's.
    Locks: the owner.
    """
    label, chosen = validation.label(name, "name"), roster.validate_kind(kind)
    handle = _lock_owner(conn, owner_id)
    person = roster.get_or_create_participant(conn, owner_id, handle, label, chosen)
    if person.already_existed:
        raise BusError("conflict", f"You have a participant {person.label} already.", reason="name_taken")
    audit.record(conn, owner_id, actor, "participant.create", f"{handle}/{label}", kind=chosen)
    return person.id


def rename(conn: Connection, owner_id: int, participant_id: int, name: str, *, actor: str) -> bool:
    """Give a participant another name. What it did keeps the name it had then, and the old name stays its own.

    Returns:
        Whether anything changed.
    Raises:
        BusError: `not_found`; `conflict` when the name is or was another's.
    Locks: the owner.
    """
    label = validation.label(name, "name")
    handle = _lock_owner(conn, owner_id)
    person = _get_active_participant(conn, owner_id, participant_id)
    if label == person.label:
        return False
    key = validation.label_key(label)
    if key == handle:
        raise BusError("conflict", f"{label} is what you are called yourself; choose another.", reason="name_taken")
    holder = conn.execute(
        sa.select(participant_name.c.participant_id).where(
            participant_name.c.owner_id == owner_id, participant_name.c.label_key == key
        )
    ).scalar_one_or_none()
    if holder is None:
        conn.execute(
            sa.insert(participant_name).values(owner_id=owner_id, label_key=key, participant_id=participant_id)
        )
    elif holder != participant_id:
        raise BusError(
            "conflict",
            f"The name {label} belongs or belonged to another participant; choose another.",
            reason="name_taken",
        )
    conn.execute(sa.update(participant).where(participant.c.id == participant_id).values(label=label))
    audit.record(conn, owner_id, actor, "participant.rename", f"{handle}/{label}", before=f"{handle}/{person.label}")
    return True


def remove(conn: Connection, owner_id: int, participant_id: int, *, actor: str) -> None:
    """End a participant: from the commit on nobody acts under its name, in no project, and the name stays taken.

    What it did keeps its name. Its lanes are left by `participations.remove`, project by project, which a door
    calls before, each in a transaction of its own.

    Raises:
        BusError: `not_found`.
    Locks: the owner, then its tokens.
    """
    handle = _lock_owner(conn, owner_id)
    person = _get_active_participant(conn, owner_id, participant_id)
    for place in list_participant_projects(conn, owner_id, participant_id):
        tokens.revoke_all(conn, place.participation_id)
    conn.execute(
        sa.update(participant).where(participant.c.id == participant_id).values(removed_at=sa.func.clock_timestamp())
    )
    audit.record(conn, owner_id, actor, "participant.remove", f"{handle}/{person.label}")


def _get_active_participant(conn: Connection, owner_id: int, participant_id: int) -> ParticipantSummary:
    person = get(conn, owner_id, participant_id)
    if person.removed_at is not None or not person.label:
        raise NotFound("participant")
    return person


def _lock_owner(conn: Connection, owner_id: int) -> str:
    """Lock the owner, whose names are handed out one at a time; returns the handle."""
    locked = sa.select(owner.c.handle).where(owner.c.id == owner_id).with_for_update(key_share=True)
    return str(conn.execute(locked).scalar_one())
