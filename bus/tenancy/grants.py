"""Participations as their owner sees them: by id, whichever project they are in."""

from dataclasses import dataclass
from datetime import datetime

from bus.db import Connection
from bus.errors import NotFound
from bus.limits import MAX_INTEGER


@dataclass(frozen=True, slots=True)
class ParticipationDetail:
    """A participation of a project.

    Attributes:
        label: the participant's; the handle for the owner.
        lane: the lane it is in: the one registered last, else `granted_lane`.
        status: what it said of itself last.
        active: whether it was seen within the project's window.
        live_tokens: how many tokens work, counted up to 100.
        unread: posts that wait for it, counted up to 100.
    """

    id: int
    project_id: int
    participant_id: int
    label: str
    actor: str
    kind: str
    granted_lane: str | None
    lane: str | None
    status: str
    is_admin: bool
    last_seen: datetime | None
    is_active: bool
    live_token_count: int
    unread_count: int
    created_at: datetime

    @property
    def is_owner(self) -> bool:
        """Whether it is the owner's own, under which the owner acts in the web and which has no token."""
        return "/" not in self.actor


_PARTICIPATION_SQL = """
    SELECT p.id, p.project_id, pt.id, bus_short_name(o.handle, pt.label),
           bus_qualified_name(o.handle, pt.label), pt.kind, p.lane,
           coalesce(pr.lane, p.lane), coalesce(pr.status, ''), p.is_admin, pr.last_seen,
           coalesce(pr.last_seen > clock_timestamp() - make_interval(secs => pj.presence_window_seconds), false),
           (SELECT count(*) FROM (SELECT FROM token t WHERE t.participation_id = p.id AND bus_token_is_live(t.revoked_at, t.expires_at) LIMIT 100) AS live),
           bus_unread(p.project_id, p.id), p.created_at
    FROM project pj
    JOIN participation p ON p.project_id = pj.id AND p.removed_at IS NULL
    JOIN participant pt ON pt.id = p.participant_id AND pt.removed_at IS NULL
    JOIN owner o ON o.id = pt.owner_id
    LEFT JOIN presence pr ON pr.project_id = p.project_id AND pr.participation_id = p.id
    WHERE pj.owner_id = %(owner)s AND pj.id = %(project)s AND pj.purging_at IS NULL
"""


def list_participation_details(
    conn: Connection, owner_id: int, project_id: int, *, before: int | None = None, limit: int = 50
) -> list[ParticipationDetail]:
    """Who is in a project of the owner, newest first, at most `limit`, with ids below `before`."""
    rows = conn.fetch_all(
        f"{_PARTICIPATION_SQL} AND p.id < %(before)s ORDER BY p.id DESC LIMIT %(limit)s",
        {"owner": owner_id, "project": project_id, "before": before or MAX_INTEGER, "limit": limit},
    )
    return [ParticipationDetail(*row) for row in rows]


def get_participation_detail(
    conn: Connection, owner_id: int, project_id: int, participation_id: int
) -> ParticipationDetail:
    """One participation of a project of the owner.

    Raises:
        BusError: `not_found`, for another owner's as for one that does not exist.
    """
    row = conn.fetch_one_or_none(
        f"{_PARTICIPATION_SQL} AND p.id = %(id)s", {"owner": owner_id, "project": project_id, "id": participation_id}
    )
    if row is None:
        raise NotFound("participant in the project")
    return ParticipationDetail(*row)
