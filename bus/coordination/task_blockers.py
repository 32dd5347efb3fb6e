"""Blockers of tasks. Used by the writes of bus/coordination/tasks.py, under the project clock."""

from bus import limits
from bus.coordination.transactions import CallerTransaction
from bus.errors import BusError


def list_unfinished(transaction: CallerTransaction, task_ids: list[int]) -> list[int]:
    """Return those of the tasks that are not done.

    Raises:
        BusError: `not_found` when one of them does not exist.
    """
    rows = transaction.conn.fetch_all(
        "SELECT id, status FROM task WHERE project_id = %s AND id = ANY (%s)", (transaction.project_id, task_ids)
    )
    status_by_id: dict[int, str] = dict(rows)
    for task_id in task_ids:
        if task_id not in status_by_id:
            raise BusError("not_found", f"There is no task {task_id} to wait for.", hint="list_tasks")
    return [task_id for task_id in task_ids if status_by_id[task_id] != "done"]


def add(transaction: CallerTransaction, task_id: int, on: int | None, reason: str | None) -> None:
    """Add a blocker to a task: another task, a reason, or both. The caller updates the task's `open_blockers`."""
    transaction.conn.execute(
        "INSERT INTO task_blocker (project_id, task_id, id, on_task_id, reason, created_at)"
        " SELECT %(project)s, %(task)s, coalesce(max(b.id), 0) + 1, %(on)s, %(reason)s, clock_timestamp()"
        " FROM task_blocker b WHERE b.project_id = %(project)s AND b.task_id = %(task)s",
        {"project": transaction.project_id, "task": task_id, "on": on, "reason": reason},
    )


def resolve(transaction: CallerTransaction, task_id: int, on: int | None) -> int:
    """Resolve the open blockers of a task on the task `on`, or all of them if it is None; returns their number."""
    return transaction.conn.execute(
        "UPDATE task_blocker SET resolved_at = clock_timestamp() WHERE project_id = %(project)s"
        " AND task_id = %(task)s AND resolved_at IS NULL"
        " AND (%(on)s::bigint IS NULL OR on_task_id = %(on)s)",
        {"project": transaction.project_id, "task": task_id, "on": on},
    )


def resolve_blocked_by(transaction: CallerTransaction, task_id: int) -> list[tuple[int, str, int]]:
    """Resolve every blocker on a done task; blocked tasks without another open blocker are in progress again.

    Returns:
        For each task that had such a blocker: its id, its new status and the number of its open blockers.
    """
    rows = transaction.conn.fetch_all(
        "WITH resolved AS (UPDATE task_blocker SET resolved_at = clock_timestamp()"
        "  WHERE project_id = %(project)s AND on_task_id = %(task)s AND resolved_at IS NULL"
        "  RETURNING task_id),"
        " counted AS (SELECT task_id, count(*)::integer AS n FROM resolved GROUP BY task_id)"
        " UPDATE task t SET open_blockers = t.open_blockers - counted.n, updated_at = clock_timestamp(),"
        "  status = CASE WHEN t.status = 'blocked' AND t.open_blockers = counted.n THEN 'in_progress'"
        "           ELSE t.status END"
        " FROM counted WHERE t.project_id = %(project)s AND t.id = counted.task_id"
        " RETURNING t.id, t.status, t.open_blockers",
        {"project": transaction.project_id, "task": task_id},
    )
    return [(int(waiting_task_id), str(status), int(open_blockers)) for waiting_task_id, status, open_blockers in rows]


def fetch_open_edges(transaction: CallerTransaction, on: int) -> dict[int, list[int]]:
    """Fetch the tasks that the task `on` waits for, directly and indirectly, by the task that waits for them.

    Raises:
        BusError: `conflict` when there are more than limits.MAX_BLOCKER_CHAIN blockers.
    """
    rows = transaction.conn.fetch_all(
        "WITH RECURSIVE chain (task_id, on_task_id) AS ("
        "  SELECT b.task_id, b.on_task_id FROM task_blocker b WHERE b.project_id = %(project)s"
        "    AND b.task_id = %(on)s AND b.resolved_at IS NULL AND b.on_task_id IS NOT NULL"
        "  UNION SELECT b.task_id, b.on_task_id FROM chain c JOIN task_blocker b ON b.task_id = c.on_task_id"
        "    AND b.project_id = %(project)s AND b.resolved_at IS NULL AND b.on_task_id IS NOT NULL)"
        " SELECT task_id, on_task_id FROM chain LIMIT %(limit)s",
        {"project": transaction.project_id, "on": on, "limit": limits.MAX_BLOCKER_CHAIN + 1},
    )
    if len(rows) > limits.MAX_BLOCKER_CHAIN:
        raise BusError(
            "conflict",
            f"Task {on} waits for more than {limits.MAX_BLOCKER_CHAIN:,} tasks, directly and indirectly;"
            " resolve blockers that are out of date first, or give a reason without a task.",
        )
    edges: dict[int, list[int]] = {}
    for task_id, on_task_id in rows:
        edges.setdefault(task_id, []).append(on_task_id)
    return edges
