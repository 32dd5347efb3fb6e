"""The owner's dashboard: projects with their activity, and items that need attention.

Counts are capped, lists are bounded, and no statement reads a ledger.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from bus.coordination.post_titles import TITLE_SQL
from bus.db import Connection, Row
from bus.db.capped_count import capped_count
from bus.rules.enums import TASK_STATUSES
from bus.rules.lease_contention import find_contention

MAX_LISTED = 10
TOKEN_EXPIRY_WINDOW = timedelta(days=7)
_COUNT_CAP = 1_000
_TAB_COUNT_CAP = 100
# Leases that are compared for contention, per project and in total.
_MAX_LEASES_PER_PROJECT = 200
_MAX_LEASES = 5 * _MAX_LEASES_PER_PROJECT


@dataclass(frozen=True, slots=True)
class ProjectOverview:
    """The activity of a project.

    Attributes:
        name: qualified with the owner's handle in a project of another owner.
        name_key: the key by which `list_projects` pages.
        role: the viewer's role: `owner` in its own projects.
        event_count: of the whole ledger.
        last_activity_at: the time of the last event, or of the project's creation.
        participant_count: without the owner.
        active_count: participants seen within the project's presence window.
        unanswered_count: posts without an ack, counted up to 100.
        open_task_count: tasks that are not done, counted up to 1,000.
        lease_count: live leases, counted up to 1,000.
    """

    id: int
    name: str
    name_key: str
    role: str
    is_archived: bool
    event_count: int
    last_activity_at: datetime
    participant_count: int
    active_count: int
    unanswered_count: int
    open_task_count: int
    lease_count: int


@dataclass(frozen=True, slots=True)
class OverduePost:
    """A post whose deadline has passed without an ack."""

    project_id: int
    project_name: str
    post_id: int
    actor: str
    addressed_to: str
    subject: str
    due_at: datetime


@dataclass(frozen=True, slots=True)
class ContendedSurface:
    """The surface of a live lease, with its holder and the holders of leases that contend with it."""

    project_id: int
    project_name: str
    surface: str
    actors: list[str]


@dataclass(frozen=True, slots=True)
class BlockedTask:
    """A blocked task; `reason` is that of its newest open blocker."""

    project_id: int
    project_name: str
    task_id: int
    title: str
    task_owner: str | None
    reason: str | None
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class ExpiringToken:
    """A live token that expires within TOKEN_EXPIRY_WINDOW."""

    project_id: int
    project_name: str
    participation_id: int
    actor: str
    token_hint: str
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class AttentionItems:
    """Items that need attention in projects that are not archived; at most MAX_LISTED of each kind."""

    overdue_posts: list[OverduePost]
    contended_surfaces: list[ContendedSurface]
    blocked_tasks: list[BlockedTask]
    expiring_tokens: list[ExpiringToken]

    def __bool__(self) -> bool:
        return bool(self.overdue_posts or self.contended_surfaces or self.blocked_tasks or self.expiring_tokens)


# One index range per status: a scan of all statuses would read every open task before the cap applies.
_OPEN_TASKS_SQL = " UNION ALL ".join(
    f"(SELECT FROM task t WHERE t.project_id = pj.id AND t.status = '{status}' LIMIT {_COUNT_CAP})"
    for status in TASK_STATUSES
    if status != "done"
)
_OPEN_TASK_COUNT_SQL = capped_count(f"FROM ({_OPEN_TASKS_SQL}) AS open_task", _COUNT_CAP)
_LEASE_COUNT_SQL = capped_count(
    "FROM lease l WHERE l.project_id = pj.id AND l.ended_at IS NULL AND l.expires_at > clock_timestamp()", _COUNT_CAP
)
_UNANSWERED_COUNT_SQL = capped_count("FROM post o WHERE o.project_id = pj.id AND o.acked_at IS NULL", _TAB_COUNT_CAP)
_PROJECT_OVERVIEWS_SQL = f"""
    SELECT pj.id, bus_project_name_for(%(owner)s, pj.owner_id, pj.name) AS name, pj.page_key AS name_key, pj.role,
           pj.archived_at IS NOT NULL AS is_archived, c.last_seq AS event_count,
           c.last_at AS last_activity_at, seen.participant_count, seen.active_count,
           {_UNANSWERED_COUNT_SQL} AS unanswered_count,
           {_OPEN_TASK_COUNT_SQL} AS open_task_count, {_LEASE_COUNT_SQL} AS lease_count
    FROM ({{projects}}) AS pj
    JOIN project_clock c ON c.project_id = pj.id
    CROSS JOIN LATERAL (
        SELECT count(*) AS participant_count, count(*) FILTER (
            WHERE pr.last_seen > clock_timestamp() - make_interval(secs => pj.presence_window_seconds)) AS active_count
        FROM participation p
        JOIN participant pt ON pt.id = p.participant_id AND pt.removed_at IS NULL AND pt.label <> ''
        LEFT JOIN presence pr ON pr.project_id = p.project_id AND pr.participation_id = p.id
        WHERE p.project_id = pj.id AND p.removed_at IS NULL) AS seen
"""


# Names of projects have no slash, so the keys of other owners' projects sort among them and are unique.
_MY_PROJECTS_SQL = (
    "SELECT p.*, mine.role, CASE WHEN mine.role = 'owner' THEN p.name_key"
    " ELSE p.name_key || '/' || (SELECT o.handle FROM owner o WHERE o.id = p.owner_id) END AS page_key"
    " FROM bus_projects_of(%(owner)s) mine JOIN project p ON p.id = mine.project_id"
)


def list_recently_active(conn: Connection, owner_id: int, *, limit: int = 12) -> list[ProjectOverview]:
    """List the open projects in which an owner has a role, by the time of their last event, newest first."""
    projects = (
        f"{_MY_PROJECTS_SQL} JOIN project_clock k ON k.project_id = p.id"
        " WHERE p.purging_at IS NULL AND p.archived_at IS NULL"
        " ORDER BY k.last_at DESC, p.id DESC LIMIT %(limit)s"
    )
    return conn.fetch_all_as(
        ProjectOverview,
        f"{_PROJECT_OVERVIEWS_SQL.format(projects=projects)} ORDER BY c.last_at DESC, pj.id DESC",
        {"owner": owner_id, "limit": limit},
    )


def list_projects(conn: Connection, owner_id: int, *, after: str = "", limit: int = 50) -> list[ProjectOverview]:
    """List the projects in which an owner has a role by name.

    Args:
        after: the `name_key` of the last project of the page before.
    """
    projects = (
        f"SELECT p.* FROM ({_MY_PROJECTS_SQL} WHERE p.purging_at IS NULL) AS p WHERE p.page_key > %(after)s"
        " ORDER BY p.page_key LIMIT %(limit)s"
    )
    return conn.fetch_all_as(
        ProjectOverview,
        f"{_PROJECT_OVERVIEWS_SQL.format(projects=projects)} ORDER BY pj.page_key",
        {"owner": owner_id, "after": after, "limit": limit},
    )


def list_by_id(conn: Connection, owner_id: int, project_ids: Sequence[int]) -> list[ProjectOverview]:
    """List some of the projects in which an owner has a role; other ids are ignored."""
    projects = f"{_MY_PROJECTS_SQL} WHERE p.purging_at IS NULL AND p.id = ANY (%(ids)s)"
    return conn.fetch_all_as(
        ProjectOverview,
        f"{_PROJECT_OVERVIEWS_SQL.format(projects=projects)} ORDER BY pj.id",
        {"owner": owner_id, "ids": list(project_ids)},
    )


_OPEN_WORK_SQL = (
    "SELECT "
    + _UNANSWERED_COUNT_SQL
    + ", "
    + capped_count(f"FROM ({_OPEN_TASKS_SQL}) AS open_task", _TAB_COUNT_CAP)
    + " FROM project pj WHERE pj.id = %(project)s"
)


def count_open_work(conn: Connection, project_id: int) -> tuple[int, int]:
    """Count the posts without an ack and the tasks that are not done in a project, each up to 100."""
    posts, tasks = conn.fetch_one(_OPEN_WORK_SQL, {"project": project_id})
    return posts, tasks


def list_recent_names(conn: Connection, owner_id: int, *, limit: int = 10) -> list[tuple[int, str]]:
    """List the ids and names of the projects in which an owner has a role, the most recently active first.

    Archived ones are left out. Names of other owners' projects are qualified.
    """
    return conn.fetch_all(
        "SELECT p.id, bus_project_name_for(%(owner)s, p.owner_id, p.name)"
        " FROM bus_projects_of(%(owner)s) mine JOIN project p ON p.id = mine.project_id"
        " JOIN project_clock k ON k.project_id = p.id"
        " WHERE p.purging_at IS NULL AND p.archived_at IS NULL"
        " ORDER BY k.last_at DESC, p.id DESC LIMIT %(limit)s",
        {"owner": owner_id, "limit": limit},
    )


_OPEN_PROJECTS_SQL = (
    "(SELECT p.id, bus_project_name_for(%(owner)s, p.owner_id, p.name) AS name"
    " FROM bus_projects_of(%(owner)s) mine JOIN project p ON p.id = mine.project_id"
    " WHERE p.purging_at IS NULL AND p.archived_at IS NULL"
    # A viewer acts on nothing; of a single project, it sees what others have to attend to.
    " AND (%(project)s::bigint IS NULL AND mine.role <> 'viewer' OR p.id = %(project)s)) AS pj"
)

_OVERDUE_POSTS_SQL = f"""
    SELECT pj.id AS project_id, pj.name AS project_name, o.id AS post_id, o.actor,
           coalesce(o.to_actor, o.to_lane) AS addressed_to, {TITLE_SQL} AS subject,
           o.ack_due_at AS due_at
    FROM {_OPEN_PROJECTS_SQL}
    CROSS JOIN LATERAL (
        SELECT * FROM post o WHERE o.project_id = pj.id AND o.ack_due_at IS NOT NULL AND o.acked_at IS NULL
          AND o.ack_due_at < clock_timestamp() ORDER BY o.ack_due_at LIMIT %(limit)s) AS o
    ORDER BY o.ack_due_at LIMIT %(limit)s
"""

_BLOCKED_TASKS_SQL = f"""
    SELECT pj.id AS project_id, pj.name AS project_name, t.id AS task_id, t.title, t.owner AS task_owner,
           (SELECT coalesce(b.reason, 'waits for task ' || b.on_task_id) FROM task_blocker b
            WHERE b.project_id = pj.id AND b.task_id = t.id AND b.resolved_at IS NULL ORDER BY b.id DESC LIMIT 1)
           AS reason, t.updated_at
    FROM {_OPEN_PROJECTS_SQL}
    CROSS JOIN LATERAL (
        SELECT * FROM task t WHERE t.project_id = pj.id AND t.status = 'blocked'
        ORDER BY t.id DESC LIMIT %(limit)s) AS t
    ORDER BY t.updated_at LIMIT %(limit)s
"""

_EXPIRING_TOKENS_SQL = f"""
    SELECT pj.id AS project_id, pj.name AS project_name, p.id AS participation_id,
           bus_participation_name(p.id) AS actor, t.hint AS token_hint, t.expires_at
    FROM {_OPEN_PROJECTS_SQL}
    JOIN participation p ON p.project_id = pj.id AND p.removed_at IS NULL
    JOIN participant pt ON pt.id = p.participant_id AND pt.owner_id = %(owner)s
    JOIN token t ON t.participation_id = p.id AND t.revoked_at IS NULL AND t.parent_id IS NULL
     AND t.expires_at > clock_timestamp() AND t.expires_at < clock_timestamp() + %(window)s
     -- Those of connected clients are renewed with each use.
     AND NOT EXISTS (SELECT FROM client_grant g WHERE g.token_id = t.id)
    ORDER BY t.expires_at LIMIT %(limit)s
"""

_LIVE_LEASES_SQL = f"""
    SELECT pj.id, pj.name, l.id, l.surface, l.mode, l.participation_id, l.actor
    FROM {_OPEN_PROJECTS_SQL}
    CROSS JOIN LATERAL (
        SELECT * FROM lease l WHERE l.project_id = pj.id AND l.ended_at IS NULL AND l.expires_at > clock_timestamp()
        ORDER BY l.id DESC LIMIT {_MAX_LEASES_PER_PROJECT}) AS l
    ORDER BY pj.id, l.id DESC LIMIT {_MAX_LEASES}
"""


def list_attention_items(conn: Connection, owner_id: int, *, project_id: int | None = None) -> AttentionItems:
    """List the items that need attention in the owner's projects, or in one project; the most urgent first."""
    bounded = {"owner": owner_id, "project": project_id, "limit": MAX_LISTED}
    return AttentionItems(
        overdue_posts=conn.fetch_all_as(OverduePost, _OVERDUE_POSTS_SQL, bounded),
        contended_surfaces=list_contended_surfaces(conn, owner_id, project_id=project_id, limit=MAX_LISTED),
        blocked_tasks=list_blocked_tasks(conn, owner_id, project_id=project_id, limit=MAX_LISTED),
        expiring_tokens=list_expiring_tokens(conn, owner_id, project_id=project_id),
    )


def list_blocked_tasks(
    conn: Connection, owner_id: int, *, project_id: int | None = None, limit: int
) -> list[BlockedTask]:
    """List the blocked tasks in the owner's projects; of more than `limit` in a project, its newest tasks."""
    return conn.fetch_all_as(
        BlockedTask, _BLOCKED_TASKS_SQL, {"owner": owner_id, "project": project_id, "limit": limit}
    )


def list_contended_surfaces(
    conn: Connection, owner_id: int, *, project_id: int | None = None, limit: int
) -> list[ContendedSurface]:
    """List the surfaces of contended live leases in the owner's projects."""
    rows = conn.fetch_all(_LIVE_LEASES_SQL, {"owner": owner_id, "project": project_id})
    return _build_contended_surfaces(rows, limit)


def list_expiring_tokens(conn: Connection, owner_id: int, *, project_id: int | None = None) -> list[ExpiringToken]:
    """List the tokens of the owner's participants that expire within TOKEN_EXPIRY_WINDOW; at most MAX_LISTED."""
    params = {"owner": owner_id, "project": project_id, "limit": MAX_LISTED, "window": TOKEN_EXPIRY_WINDOW}
    return conn.fetch_all_as(ExpiringToken, _EXPIRING_TOKENS_SQL, params)


def _build_contended_surfaces(rows: list[Row], limit: int) -> list[ContendedSurface]:
    leases_by_project: dict[tuple[int, str], list[tuple[int, str, str, int]]] = {}
    actor_by_lease: dict[tuple[int, int], str] = {}
    for project_id, project_name, lease_id, surface, mode, participation_id, actor in rows:
        leases_by_project.setdefault((project_id, project_name), []).append((lease_id, surface, mode, participation_id))
        actor_by_lease[project_id, lease_id] = actor
    contended: list[ContendedSurface] = []
    for (project_id, project_name), leases in leases_by_project.items():
        listed: set[int] = set()
        contention = find_contention(leases)
        for lease_id, surface, _, _ in leases:
            if lease_id not in contention or lease_id in listed:
                continue
            group = (lease_id, *contention[lease_id])
            listed.update(group)
            actors = list(dict.fromkeys(actor_by_lease[project_id, member] for member in group))
            contended.append(
                ContendedSurface(project_id=project_id, project_name=project_name, surface=surface, actors=actors)
            )
            if len(contended) == limit:
                return contended
    return contended
