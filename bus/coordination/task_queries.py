"""Lists of tasks: what there is to do, who does it, what it waits for."""

from dataclasses import dataclass
from datetime import datetime

from bus import limits
from bus.ctx import Ctx
from bus.db import Connection
from bus.errors import BusError, InvalidArgument
from bus.rules import task_transitions as rules
from bus.rules import validation
from bus.tenancy import participants
from bus.tenancy.caller_queries import fetch_as_caller, paginate


@dataclass(frozen=True, slots=True)
class Blocker:
    """What a task waits for: another task, a reason, or both."""

    on: int | None
    reason: str | None


@dataclass(frozen=True, slots=True)
class Task:
    """A task; `blockers` are the open ones, at most 50."""

    task_id: int
    title: str
    lane: str | None
    owner: str | None
    status: str
    blockers: list[Blocker]
    priority: int


@dataclass(frozen=True, slots=True)
class TaskDetail(Task):
    """A task with all that there is to know of it; `blockers` are the open ones."""

    detail: str | None
    ref: str | None
    created_by: str
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class TaskPage:
    """A page of tasks, newest first; `next_before` asks for the next page."""

    tasks: list[Task]
    next_before: int | None
    unread: int


_TASK_COLUMNS_SQL = (
    "t.id, t.title, t.lane, t.owner, t.status,"
    " ARRAY(SELECT jsonb_build_array(b.on_task_id, b.reason) FROM task_blocker b"
    "       WHERE b.project_id = t.project_id AND b.task_id = t.id AND b.resolved_at IS NULL"
    "       ORDER BY b.id LIMIT 50), t.priority"
)
COUNT_CAP = 1_000


def list_tasks(
    conn: Connection,
    ctx: Ctx,
    *,
    status: str | None = None,
    owner: str | None = None,
    lane: str | None = None,
    ready: bool | None = None,
    before: int | None = None,
    limit: int = 50,
) -> TaskPage:
    """Tasks, newest first.

    Args:
        owner: whose; by a present or former name.
        ready: True for tasks that could be started now, False for the others.
        before: a task_id; only older tasks.
        limit: 1 to 200.
    """
    filters = ["t.project_id = %(project)s", "t.id < %(before)s"]
    if status is not None:
        if status not in rules.STATUSES:
            raise InvalidArgument(f"status must be one of: {', '.join(rules.STATUSES)}.")
        filters.append("t.status = %(status)s")
    if lane is not None:
        lane = validation.name(lane, "lane")
        filters.append("t.lane = %(lane)s")
    if before is not None:
        validation.integer(before, "before", 1, limits.MAX_INTEGER)
    if ready is not None:
        is_ready = "(t.status IN ('open', 'assigned') AND t.open_blockers = 0)"
        filters.append(is_ready if ready else f"NOT {is_ready}")
    validation.integer(limit, "limit", 1, 200)
    assignee = None
    if owner is not None:
        assignee = participants.get_participation_id(conn, ctx, owner, "owner")
        filters.append("t.participation_id = %(assignee)s")
    unread, rows = fetch_as_caller(
        conn,
        ctx,
        f"SELECT {_TASK_COLUMNS_SQL} FROM task t WHERE {' AND '.join(filters)} ORDER BY t.id DESC LIMIT %(limit)s",
        "r.id DESC",
        status=status,
        lane=lane,
        assignee=assignee,
        before=before or limits.MAX_INTEGER,
        limit=limit + 1,
    )
    rows, next_before = paginate(rows, limit)
    found = [
        Task(id_, title, lane_, owner_, status_, [Blocker(*one) for one in blockers], priority)
        for id_, title, lane_, owner_, status_, blockers, priority in rows
    ]
    return TaskPage(found, next_before, unread)


def get_task(conn: Connection, ctx: Ctx, task_id: int) -> TaskDetail:
    """One task of the caller's project.

    Raises:
        BusError: `not_found`.
    """
    _, rows = fetch_as_caller(
        conn,
        ctx,
        f"SELECT {_TASK_COLUMNS_SQL}, t.detail, t.ref, t.created_by, t.created_at, t.updated_at"
        " FROM task t WHERE t.project_id = %(project)s AND t.id = %(task)s",
        "r.id",
        task=task_id,
    )
    if not rows:
        raise BusError("not_found", f"There is no task {task_id}.")
    id_, title, lane, owner, status, blockers, priority, *rest = rows[0]
    return TaskDetail(id_, title, lane, owner, status, [Blocker(*one) for one in blockers], priority, *rest)


def count_by_status(conn: Connection, ctx: Ctx) -> dict[str, int]:
    """How many tasks are in each state, counted up to COUNTED; every state is there."""
    _, rows = fetch_as_caller(
        conn,
        ctx,
        "SELECT kind.status, (SELECT count(*) FROM (SELECT FROM task t WHERE t.project_id = %(project)s"
        "  AND t.status = kind.status LIMIT %(counted)s) AS counted)"
        " FROM unnest(%(statuses)s::text[]) AS kind (status)",
        "r.status",
        statuses=list(rules.STATUSES),
        counted=COUNT_CAP,
    )
    return dict(rows)
