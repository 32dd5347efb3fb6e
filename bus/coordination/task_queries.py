"""Reads of tasks: lists, details and counts."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from bus import limits
from bus.coordination import text_search
from bus.ctx import Ctx
from bus.db import Connection, Row
from bus.db.capped_count import capped_count
from bus.db.pagination import count_rows_that_fit, paginate
from bus.errors import BusError, InvalidArgument
from bus.rules import validation
from bus.rules.enums import TASK_STATUSES
from bus.tenancy import participants
from bus.tenancy.authentication import fetch_as_caller


@dataclass(frozen=True, slots=True)
class Blocker:
    """An open blocker of a task: another task, a reason, or both."""

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
    """A task with all of its fields; `blockers` are the open ones, at most 50."""

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


_COUNT_CAP = 1_000
_TASK_COLUMNS_SQL = (
    "t.id, t.title, t.lane, t.owner, t.status,"
    " ARRAY(SELECT jsonb_build_array(b.on_task_id, b.reason) FROM task_blocker b"
    "       WHERE b.project_id = t.project_id AND b.task_id = t.id AND b.resolved_at IS NULL"
    "       ORDER BY b.id LIMIT 50), t.priority"
)


def list_tasks(
    conn: Connection,
    ctx: Ctx,
    *,
    status: str | None = None,
    owner: str | None = None,
    lane: str | None = None,
    ready: bool | None = None,
    text: str | None = None,
    task_ids: Sequence[int] | None = None,
    before: int | None = None,
    limit: int = 50,
) -> TaskPage:
    """List tasks, newest first.

    Args:
        owner: the assignee, by a present or former name.
        ready: True for tasks that could be started now, False for the others.
        text: only tasks that contain all of its words, in title or detail; a part in double quotes is a phrase.
        task_ids: only these tasks; ids of other projects' tasks are ignored.
        before: a task id; only older tasks.
        limit: 1 to 200. A page ends early when its texts together exceed limits.MAX_PAGE_BYTES.
    """
    filters = ["t.project_id = %(project)s", "t.id < %(before)s"]
    if status is not None:
        if status not in TASK_STATUSES:
            raise InvalidArgument(f"status must be one of: {', '.join(TASK_STATUSES)}.")
        filters.append("t.status = %(status)s")
    if lane is not None:
        lane = validation.name(lane, "lane")
        filters.append("t.lane = %(lane)s")
    if before is not None:
        validation.integer(before, "before", 1, limits.MAX_INTEGER)
    if task_ids is not None:
        filters.append("t.id = ANY (%(ids)s)")
    if ready is not None:
        is_ready = "(t.status IN ('open', 'assigned') AND t.open_blockers = 0)"
        filters.append(is_ready if ready else f"NOT {is_ready}")
    validation.integer(limit, "limit", 1, 200)
    assignee_id = None
    if owner is not None:
        assignee_id = participants.get_participation_id(conn, ctx, owner, "owner")
        filters.append("t.participation_id = %(assignee)s")
    matches = None
    if text is not None:
        candidate_count = text_search.MAX_CANDIDATES if len(filters) > 2 else limit + 1
        matches = text_search.find_ids(conn, ctx.project_id, "task", text, before=before, limit=candidate_count)
        filters.append("t.id = ANY (%(matches)s)")
    unread, rows = fetch_as_caller(
        conn,
        ctx,
        f"SELECT {_TASK_COLUMNS_SQL} FROM task t WHERE {' AND '.join(filters)} ORDER BY t.id DESC LIMIT %(limit)s",
        "r.id DESC",
        matches=matches,
        status=status,
        lane=lane,
        assignee=assignee_id,
        ids=None if task_ids is None else list(task_ids),
        before=before or limits.MAX_INTEGER,
        limit=limit + 1,
    )
    page, has_more = paginate(rows, count_rows_that_fit(rows, limit, limits.MAX_PAGE_BYTES, _text_size))
    tasks = [
        Task(
            task_id=task_id,
            title=title,
            lane=task_lane,
            owner=owner_name,
            status=task_status,
            blockers=_build_blockers(blockers),
            priority=priority,
        )
        for task_id, title, task_lane, owner_name, task_status, blockers, priority in page
    ]
    next_before = tasks[-1].task_id if has_more else None
    if matches is not None and len(matches) == text_search.MAX_CANDIDATES and next_before is None:
        # Older tasks may match as well.
        next_before = matches[-1]
    return TaskPage(tasks=tasks, next_before=next_before, unread=unread)


def get_task(conn: Connection, ctx: Ctx, task_id: int) -> TaskDetail:
    """Return one task of the caller's project.

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
    _, title, lane, owner, status, blockers, priority, detail, ref, created_by, created_at, updated_at = rows[0]
    return TaskDetail(
        task_id=task_id,
        title=title,
        lane=lane,
        owner=owner,
        status=status,
        blockers=_build_blockers(blockers),
        priority=priority,
        detail=detail,
        ref=ref,
        created_by=created_by,
        created_at=created_at,
        updated_at=updated_at,
    )


def count_by_status(conn: Connection, ctx: Ctx) -> dict[str, int]:
    """Count the tasks of each status, up to 1,000; a status without tasks has 0."""
    count = capped_count("FROM task t WHERE t.project_id = %(project)s AND t.status = kind.status", _COUNT_CAP)
    _, rows = fetch_as_caller(
        conn,
        ctx,
        f"SELECT kind.status, {count} FROM unnest(%(statuses)s::text[]) AS kind (status)",
        "r.status",
        statuses=list(TASK_STATUSES),
    )
    return dict(rows)


def _text_size(row: Row) -> int:
    _, title, _, _, _, blockers, _ = row
    return len(title.encode()) + sum(len((reason or "").encode()) for _, reason in blockers)


def _build_blockers(pairs: list[tuple[int | None, str | None]]) -> list[Blocker]:
    return [Blocker(on=on, reason=reason) for on, reason in pairs]
