"""What an owner sees first: their projects with what is alive in them, and what needs somebody's attention.

All of it is bounded: counts stop at COUNTED, lists at LISTED, and no statement reads a ledger.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from bus.db import Connection
from bus.rules.lease_contention import find_contention

COUNT_CAP = 1_000
MAX_LISTED = 10
# Of one project's live leases so many are looked at for contention.
_MAX_LEASES_PER_PROJECT = 200
TOKEN_EXPIRY_WINDOW = timedelta(days=7)


@dataclass(frozen=True, slots=True)
class ProjectOverview:
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
    is_archived: bool
    event_count: int
    last_activity_at: datetime
    participant_count: int
    active_count: int
    open_task_count: int
    lease_count: int


@dataclass(frozen=True, slots=True)
class OverduePost:
    """A handoff that nobody acked in time."""

    project_id: int
    project_name: str
    post_id: int
    actor: str
    addressed_to: str
    subject: str
    due_at: datetime


@dataclass(frozen=True, slots=True)
class ContendedSurface:
    """A live lease that others' leases are in the way of."""

    project_id: int
    project_name: str
    surface: str
    actors: list[str]


@dataclass(frozen=True, slots=True)
class BlockedTask:
    """A task that cannot go on; `reason` is that of its newest open blocker."""

    project_id: int
    project_name: str
    task_id: int
    title: str
    task_owner: str | None
    reason: str | None


@dataclass(frozen=True, slots=True)
class ExpiringToken:
    """A token that works and soon does not."""

    project_id: int
    project_name: str
    participation_id: int
    actor: str
    token_hint: str
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class AttentionItems:
    """What somebody should look at, in projects that are not archived; at most LISTED of each."""

    overdue_posts: list[OverduePost]
    contended_surfaces: list[ContendedSurface]
    blocked_tasks: list[BlockedTask]
    expiring_tokens: list[ExpiringToken]

    def __bool__(self) -> bool:
        return bool(self.overdue_posts or self.contended_surfaces or self.blocked_tasks or self.expiring_tokens)


_PROJECT_OVERVIEWS_SQL = """
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


def list_recently_active(conn: Connection, owner_id: int, *, limit: int = 12) -> list[ProjectOverview]:
    """The owner's projects that are not archived, those first in which something was written last."""
    chosen = (
        "SELECT p.*, k.last_at FROM project p JOIN project_clock k ON k.project_id = p.id"
        " WHERE p.owner_id = %(owner)s AND p.purging_at IS NULL AND p.archived_at IS NULL"
        " ORDER BY k.last_at DESC, p.id DESC LIMIT %(limit)s"
    )
    rows = conn.fetch_all(
        f"{_PROJECT_OVERVIEWS_SQL.format(chosen=chosen)} ORDER BY c.last_at DESC, pj.id DESC",
        {"owner": owner_id, "limit": limit, "counted": COUNT_CAP},
    )
    return [ProjectOverview(*row) for row in rows]


def list_projects(
    conn: Connection, owner_id: int, *, after: str = "", limit: int = 50
) -> list[tuple[str, ProjectOverview]]:
    """The owner's projects by name, at most `limit`; each with the key that asks for those `after` it."""
    chosen = (
        "SELECT p.* FROM project p WHERE p.owner_id = %(owner)s AND p.purging_at IS NULL AND p.name_key > %(after)s"
        " ORDER BY p.name_key LIMIT %(limit)s"
    )
    cards = _PROJECT_OVERVIEWS_SQL.format(chosen=chosen).replace("SELECT pj.id", "SELECT pj.name_key, pj.id", 1)
    rows = conn.fetch_all(
        f"{cards} ORDER BY pj.name_key", {"owner": owner_id, "after": after, "limit": limit, "counted": COUNT_CAP}
    )
    return [(key, ProjectOverview(*row)) for key, *row in rows]


def list_by_id(conn: Connection, owner_id: int, project_ids: Sequence[int]) -> list[ProjectOverview]:
    """Some of the owner's projects at a glance; the ids of others are passed over."""
    chosen = "SELECT p.* FROM project p WHERE p.owner_id = %(owner)s AND p.purging_at IS NULL AND p.id = ANY (%(ids)s)"
    rows = conn.fetch_all(
        f"{_PROJECT_OVERVIEWS_SQL.format(chosen=chosen)} ORDER BY pj.id",
        {"owner": owner_id, "ids": list(project_ids), "counted": COUNT_CAP},
    )
    return [ProjectOverview(*row) for row in rows]


_OPEN_PROJECTS_SQL = (
    "(SELECT p.id, p.name FROM project p WHERE p.owner_id = %(owner)s AND p.purging_at IS NULL"
    " AND p.archived_at IS NULL AND (%(project)s::bigint IS NULL OR p.id = %(project)s)) AS pj"
)

_OVERDUE_POSTS_SQL = f"""
    SELECT pj.id, pj.name, o.id, o.actor, coalesce(o.to_actor, o.to_lane), coalesce(o.subject, left(o.body, 80)),
           o.ack_due_at
    FROM {_OPEN_PROJECTS_SQL}
    CROSS JOIN LATERAL (
        SELECT * FROM post o WHERE o.project_id = pj.id AND o.ack_due_at IS NOT NULL AND o.acked_at IS NULL
          AND o.ack_due_at < clock_timestamp() ORDER BY o.ack_due_at LIMIT %(listed)s) AS o
    ORDER BY o.ack_due_at LIMIT %(listed)s
"""

_BLOCKED_TASKS_SQL = f"""
    SELECT pj.id, pj.name, t.id, t.title, t.owner,
           (SELECT coalesce(b.reason, 'waits for task ' || b.on_task_id) FROM task_blocker b
            WHERE b.project_id = pj.id AND b.task_id = t.id AND b.resolved_at IS NULL ORDER BY b.id DESC LIMIT 1)
    FROM {_OPEN_PROJECTS_SQL}
    CROSS JOIN LATERAL (
        SELECT * FROM task t WHERE t.project_id = pj.id AND t.status = 'blocked'
        ORDER BY t.id DESC LIMIT %(listed)s) AS t
    ORDER BY t.updated_at DESC LIMIT %(listed)s
"""

_EXPIRING_TOKENS_SQL = f"""
    SELECT pj.id, pj.name, p.id, bus_participation_name(p.id), t.hint, t.expires_at
    FROM {_OPEN_PROJECTS_SQL}
    JOIN participation p ON p.project_id = pj.id AND p.removed_at IS NULL
    JOIN token t ON t.participation_id = p.id AND t.revoked_at IS NULL
     AND t.expires_at > clock_timestamp() AND t.expires_at < clock_timestamp() + %(within)s
    ORDER BY t.expires_at LIMIT %(listed)s
"""

_LIVE_LEASES_SQL = f"""
    SELECT pj.id, pj.name, l.id, l.surface, l.mode, l.participation_id, l.actor
    FROM {_OPEN_PROJECTS_SQL}
    CROSS JOIN LATERAL (
        SELECT * FROM lease l WHERE l.project_id = pj.id AND l.ended_at IS NULL AND l.expires_at > clock_timestamp()
        ORDER BY l.id DESC LIMIT %(leases)s) AS l
    ORDER BY pj.id, l.id DESC LIMIT {5 * _MAX_LEASES_PER_PROJECT}
"""


def list_attention_items(conn: Connection, owner_id: int, *, project_id: int | None = None) -> AttentionItems:
    """What needs attention in the owner's projects, or in one: the most pressing first, at most LISTED of each kind."""
    params = {
        "owner": owner_id,
        "project": project_id,
        "listed": MAX_LISTED,
        "leases": _MAX_LEASES_PER_PROJECT,
        "within": TOKEN_EXPIRY_WINDOW,
    }
    return AttentionItems(
        [OverduePost(*row) for row in conn.fetch_all(_OVERDUE_POSTS_SQL, params)],
        _build_contended_surfaces(conn.fetch_all(_LIVE_LEASES_SQL, params)),
        [BlockedTask(*row) for row in conn.fetch_all(_BLOCKED_TASKS_SQL, params)],
        [ExpiringToken(*row) for row in conn.fetch_all(_EXPIRING_TOKENS_SQL, params)],
    )


def _build_contended_surfaces(rows: list[tuple[int, str, int, str, str, int, str]]) -> list[ContendedSurface]:
    by_project: dict[tuple[int, str], list[tuple[int, str, str, int]]] = {}
    actors: dict[tuple[int, int], str] = {}
    for project_id, project, fence, surface, mode, holder, actor in rows:
        by_project.setdefault((project_id, project), []).append((fence, surface, mode, holder))
        actors[project_id, fence] = actor
    found: list[ContendedSurface] = []
    for (project_id, project), leases in by_project.items():
        shown: set[int] = set()
        clashes = find_contention(leases)
        for fence, surface, _, _ in leases:
            if fence not in clashes or fence in shown:
                continue
            shown |= {fence, *clashes[fence]}
            who = [actors[project_id, one] for one in (fence, *clashes[fence])]
            found.append(ContendedSurface(project_id, project, surface, list(dict.fromkeys(who))))
            if len(found) == MAX_LISTED:
                return found
    return found
