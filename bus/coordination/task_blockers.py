"""Blockers: what a task waits for. Only the verbs of tasks use them, with the project clock locked."""

from bus.coordination.caller_transaction import CallerTransaction
from bus.errors import BusError


def list_unfinished(transaction: CallerTransaction, task_ids: list[int]) -> list[int]:
    """Those of the tasks that are not done.

    Raises:
        BusError: `not_found` when one of them does not exist.
    """
    rows = transaction.conn.fetch_all(
        "SELECT id, status FROM task WHERE project_id = %s AND id = ANY (%s)", (transaction.project_id, task_ids)
    )
    known: dict[int, str] = dict(rows)
    for other in task_ids:
        if other not in known:
            raise BusError("not_found", f"There is no task {other} to wait for.", hint="list_tasks")
    return [other for other in task_ids if known[other] != "done"]


def add(transaction: CallerTransaction, task_id: int, on: int | None, reason: str | None) -> None:
    """Let a task wait for another task, for a reason, or both. The caller keeps the task's count."""
    transaction.conn.execute(
        "INSERT INTO task_blocker (project_id, task_id, id, on_task_id, reason, created_at)"
        " SELECT %(project)s, %(task)s, coalesce(max(b.id), 0) + 1, %(on)s, %(reason)s, clock_timestamp()"
        " FROM task_blocker b WHERE b.project_id = %(project)s AND b.task_id = %(task)s RETURNING id",
        {"project": transaction.project_id, "task": task_id, "on": on, "reason": reason},
    )


def resolve(transaction: CallerTransaction, task_id: int, on: int | None) -> int:
    """Resolve what a task waits for: `on`, or everything where it is None. Returns how many that were."""
    gone = transaction.conn.fetch_all(
        "UPDATE task_blocker SET resolved_at = clock_timestamp() WHERE project_id = %(project)s"
        " AND task_id = %(task)s AND resolved_at IS NULL"
        " AND (%(on)s::bigint IS NULL OR on_task_id = %(on)s) RETURNING id",
        {"project": transaction.project_id, "task": task_id, "on": on},
    )
    return len(gone)


def resolve_blocked_by(transaction: CallerTransaction, task_id: int) -> list[tuple[int, str, int]]:
    """Resolve every blocker on a task that is done; blocked tasks that wait for nothing else go on.

    Returns:
        For each task that waited: its id, its status now and how many blockers it has left.
    """
    rows = transaction.conn.fetch_all(
        "WITH gone AS (UPDATE task_blocker SET resolved_at = clock_timestamp()"
        "  WHERE project_id = %(project)s AND on_task_id = %(task)s AND resolved_at IS NULL"
        "  RETURNING task_id),"
        " counted AS (SELECT task_id, count(*)::integer AS n FROM gone GROUP BY task_id)"
        " UPDATE task t SET open_blockers = t.open_blockers - counted.n, updated_at = clock_timestamp(),"
        "  status = CASE WHEN t.status = 'blocked' AND t.open_blockers = counted.n THEN 'in_progress'"
        "           ELSE t.status END"
        " FROM counted WHERE t.project_id = %(project)s AND t.id = counted.task_id"
        " RETURNING t.id, t.status, t.open_blockers",
        {"project": transaction.project_id, "task": task_id},
    )
    return [(int(waited), str(status), int(left)) for waited, status, left in rows]


def fetch_open_edges(transaction: CallerTransaction, on: int) -> dict[int, list[int]]:
    """What a task waits for, directly and indirectly: for each task on the way, the tasks that it waits for."""
    rows = transaction.conn.fetch_all(
        "WITH RECURSIVE chain (task_id, on_task_id) AS ("
        "  SELECT b.task_id, b.on_task_id FROM task_blocker b WHERE b.project_id = %(project)s"
        "    AND b.task_id = %(on)s AND b.resolved_at IS NULL AND b.on_task_id IS NOT NULL"
        "  UNION SELECT b.task_id, b.on_task_id FROM chain c JOIN task_blocker b ON b.task_id = c.on_task_id"
        "    AND b.project_id = %(project)s AND b.resolved_at IS NULL AND b.on_task_id IS NOT NULL)"
        " SELECT task_id, on_task_id FROM chain",
        {"project": transaction.project_id, "on": on},
    )
    edges: dict[int, list[int]] = {}
    for task_id, other in rows:
        edges.setdefault(task_id, []).append(other)
    return edges
