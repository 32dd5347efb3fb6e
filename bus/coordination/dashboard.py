"""What an owner sees first: their projects with what is alive in them, and what needs somebody's attention.

All of it is bounded: counts stop at COUNTED, lists at LISTED, and no statement reads a ledger.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from bus.db import Connection
from bus.rules.lease_contention import contended

COUNTED = 1_000
LISTED = 10
# Of one project's live leases so many are looked at for contention.
_LEASES = 200
EXPIRES_WITHIN = timedelta(days=7)


@dataclass(frozen=True, slots=True)
class ProjectCard:
    """A project at a glance.

    Attributes:
        events: all that were ever written.
        last_at: when the last one was, or when the project was made.
        members: who is in it, the owner excepted.
        active: how many of them were seen within the project's window.
        open_tasks, leases: of tasks not yet done, and of live leases, counted up to COUNTED.
    """

    id: int
    name: str
    archived: bool
    events: int
    last_at: datetime
    members: int
    active: int
    open_tasks: int
    leases: int


@dataclass(frozen=True, slots=True)
class Overdue:
    """A handoff that nobody acked in time."""

    project_id: int
    project: str
    post_id: int
    actor: str
    to: str
    subject: str
    due_at: datetime


@dataclass(frozen=True, slots=True)
class Contended:
    """A live lease that others' leases are in the way of."""

    project_id: int
    project: str
    surface: str
    actors: list[str]


@dataclass(frozen=True, slots=True)
class Blocked:
    """A task that cannot go on; `reason` is that of its newest open blocker."""

    project_id: int
    project: str
    task_id: int
    title: str
    task_owner: str | None
    reason: str | None


@dataclass(frozen=True, slots=True)
class Expiring:
    """A token that works and soon does not."""

    project_id: int
    project: str
    participation_id: int
    actor: str
    hint: str
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class Attention:
    """What somebody should look at, in projects that are not archived; at most LISTED of each."""

    overdue: list[Overdue]
    contended: list[Contended]
    blocked: list[Blocked]
    expiring: list[Expiring]

    def __bool__(self) -> bool:
        return bool(self.overdue or self.contended or self.blocked or self.expiring)


_CARDS = """
    SELECT pj.id, pj.name, pj.archived_at IS NOT NULL, c.last_seq, c.last_at, people.members, people.active,
           (SELECT count(*) FROM (
                (SELECT FROM task t WHERE t.project_id = pj.id AND t.status = 'open' LIMIT %(counted)s)
                UNION ALL (SELECT FROM task t WHERE t.project_id = pj.id AND t.status = 'assigned' LIMIT %(counted)s)
                UNION ALL (SELECT FROM task t WHERE t.project_id = pj.id AND t.status = 'in_progress' LIMIT %(counted)s)
                UNION ALL (SELECT FROM task t WHERE t.project_id = pj.id AND t.status = 'blocked' LIMIT %(counted)s)
                LIMIT %(counted)s) AS undone),
           (SELECT count(*) FROM (
                SELECT FROM lease l WHERE l.project_id = pj.id AND l.ended_at IS NULL
                  AND l.expires_at > clock_timestamp() LIMIT %(counted)s) AS live)
    FROM ({chosen}) AS pj
    JOIN project_clock c ON c.project_id = pj.id
    CROSS JOIN LATERAL (
        SELECT count(*) AS members, count(*) FILTER (
            WHERE pr.last_seen > clock_timestamp() - make_interval(secs => pj.presence_window_seconds)) AS active
        FROM participation p
        JOIN participant pt ON pt.id = p.participant_id AND pt.removed_at IS NULL AND pt.label <> ''
        LEFT JOIN presence pr ON pr.project_id = p.project_id AND pr.participation_id = p.id
        WHERE p.project_id = pj.id AND p.removed_at IS NULL) AS people
"""


def list_recent(conn: Connection, owner_id: int, *, limit: int = 12) -> list[ProjectCard]:
    """The owner's projects that are not archived, those first in which something was written last."""
    chosen = (
        "SELECT p.*, k.last_at FROM project p JOIN project_clock k ON k.project_id = p.id"
        " WHERE p.owner_id = %(owner)s AND p.purging_at IS NULL AND p.archived_at IS NULL"
        " ORDER BY k.last_at DESC, p.id DESC LIMIT %(limit)s"
    )
    rows = conn.all(
        f"{_CARDS.format(chosen=chosen)} ORDER BY c.last_at DESC, pj.id DESC",
        {"owner": owner_id, "limit": limit, "counted": COUNTED},
    )
    return [ProjectCard(*row) for row in rows]


def list_projects(
    conn: Connection, owner_id: int, *, after: str = "", limit: int = 50
) -> list[tuple[str, ProjectCard]]:
    """The owner's projects by name, at most `limit`; each with the key that asks for those `after` it."""
    chosen = (
        "SELECT p.* FROM project p WHERE p.owner_id = %(owner)s AND p.purging_at IS NULL AND p.name_key > %(after)s"
        " ORDER BY p.name_key LIMIT %(limit)s"
    )
    cards = _CARDS.format(chosen=chosen).replace("SELECT pj.id", "SELECT pj.name_key, pj.id", 1)
    rows = conn.all(
        f"{cards} ORDER BY pj.name_key", {"owner": owner_id, "after": after, "limit": limit, "counted": COUNTED}
    )
    return [(key, ProjectCard(*row)) for key, *row in rows]


def list_some(conn: Connection, owner_id: int, project_ids: Sequence[int]) -> list[ProjectCard]:
    """Some of the owner's projects at a glance; the ids of others are passed over."""
    chosen = "SELECT p.* FROM project p WHERE p.owner_id = %(owner)s AND p.purging_at IS NULL AND p.id = ANY (%(ids)s)"
    rows = conn.all(
        f"{_CARDS.format(chosen=chosen)} ORDER BY pj.id",
        {"owner": owner_id, "ids": list(project_ids), "counted": COUNTED},
    )
    return [ProjectCard(*row) for row in rows]


_OPEN_PROJECTS = (
    "(SELECT p.id, p.name FROM project p WHERE p.owner_id = %(owner)s AND p.purging_at IS NULL"
    " AND p.archived_at IS NULL AND (%(project)s::bigint IS NULL OR p.id = %(project)s)) AS pj"
)

_OVERDUE = f"""
    SELECT pj.id, pj.name, o.id, o.actor, coalesce(o.to_actor, o.to_lane), coalesce(o.subject, left(o.body, 80)),
           o.ack_due_at
    FROM {_OPEN_PROJECTS}
    CROSS JOIN LATERAL (
        SELECT * FROM post o WHERE o.project_id = pj.id AND o.ack_due_at IS NOT NULL AND o.acked_at IS NULL
          AND o.ack_due_at < clock_timestamp() ORDER BY o.ack_due_at LIMIT %(listed)s) AS o
    ORDER BY o.ack_due_at LIMIT %(listed)s
"""

_BLOCKED = f"""
    SELECT pj.id, pj.name, t.id, t.title, t.owner,
           (SELECT coalesce(b.reason, 'waits for task ' || b.on_task_id) FROM task_blocker b
            WHERE b.project_id = pj.id AND b.task_id = t.id AND b.resolved_at IS NULL ORDER BY b.id DESC LIMIT 1)
    FROM {_OPEN_PROJECTS}
    CROSS JOIN LATERAL (
        SELECT * FROM task t WHERE t.project_id = pj.id AND t.status = 'blocked'
        ORDER BY t.id DESC LIMIT %(listed)s) AS t
    ORDER BY t.updated_at DESC LIMIT %(listed)s
"""

_EXPIRING = f"""
    SELECT pj.id, pj.name, p.id, bus_actor(p.id), t.hint, t.expires_at
    FROM {_OPEN_PROJECTS}
    JOIN participation p ON p.project_id = pj.id AND p.removed_at IS NULL
    JOIN token t ON t.participation_id = p.id AND t.revoked_at IS NULL
     AND t.expires_at > clock_timestamp() AND t.expires_at < clock_timestamp() + %(within)s
    ORDER BY t.expires_at LIMIT %(listed)s
"""

_LIVE = f"""
    SELECT pj.id, pj.name, l.id, l.surface, l.mode, l.participation_id, l.actor
    FROM {_OPEN_PROJECTS}
    CROSS JOIN LATERAL (
        SELECT * FROM lease l WHERE l.project_id = pj.id AND l.ended_at IS NULL AND l.expires_at > clock_timestamp()
        ORDER BY l.id DESC LIMIT %(leases)s) AS l
    ORDER BY pj.id, l.id DESC LIMIT {5 * _LEASES}
"""


def attention(conn: Connection, owner_id: int, *, project_id: int | None = None) -> Attention:
    """What needs attention in the owner's projects, or in one: the most pressing first, at most LISTED of each kind."""
    params = {"owner": owner_id, "project": project_id, "listed": LISTED, "leases": _LEASES, "within": EXPIRES_WITHIN}
    return Attention(
        [Overdue(*row) for row in conn.all(_OVERDUE, params)],
        _contended(conn.all(_LIVE, params)),
        [Blocked(*row) for row in conn.all(_BLOCKED, params)],
        [Expiring(*row) for row in conn.all(_EXPIRING, params)],
    )


def _contended(rows: list[tuple[int, str, int, str, str, int, str]]) -> list[Contended]:
    by_project: dict[tuple[int, str], list[tuple[int, str, str, int]]] = {}
    actors: dict[tuple[int, int], str] = {}
    for project_id, project, fence, surface, mode, holder, actor in rows:
        by_project.setdefault((project_id, project), []).append((fence, surface, mode, holder))
        actors[project_id, fence] = actor
    found: list[Contended] = []
    for (project_id, project), leases in by_project.items():
        shown: set[int] = set()
        clashes = contended(leases)
        for fence, surface, _, _ in leases:
            if fence not in clashes or fence in shown:
                continue
            shown |= {fence, *clashes[fence]}
            who = [actors[project_id, one] for one in (fence, *clashes[fence])]
            found.append(Contended(project_id, project, surface, list(dict.fromkeys(who))))
            if len(found) == LISTED:
                return found
    return found
