"""The rows of tasks, as the writes of tasks read and change them under the lock of the project clock."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from bus import limits
from bus.coordination.transactions import CallerTransaction
from bus.errors import BusError
from bus.rules import validation


@dataclass(frozen=True, slots=True)
class TaskRow:
    """A task as a write reads it, under the lock of the project clock."""

    id: int
    status: str
    participation_id: int | None
    owner: str | None
    open_blockers: int


def get_row(transaction: CallerTransaction, task_id: int) -> TaskRow:
    """Return a task of the caller's project.

    Raises:
        BusError: `not_found`.
    """
    validation.integer(task_id, "task_id", 1, limits.MAX_INTEGER)
    task = transaction.conn.fetch_one_or_none_as(
        TaskRow,
        "SELECT id, status, participation_id, owner, open_blockers FROM task WHERE project_id = %s AND id = %s",
        (transaction.project_id, task_id),
    )
    if task is None:
        raise BusError("not_found", f"There is no task {task_id}.", hint="list_tasks")
    return task


def require_assignee_or_admin(transaction: CallerTransaction, task: TaskRow) -> None:
    """Refuse callers that may not change a task.

    Raises:
        BusError: `forbidden`.
    """
    if task.participation_id not in (None, transaction.ctx.participation_id) and not transaction.is_admin:
        raise BusError(
            "forbidden",
            f"Task {task.id} is {task.owner}'s; ask them, or have it assigned to you.",
            hint="assign_task",
        )


def update_row(transaction: CallerTransaction, task_id: int, **values: Any) -> datetime:
    """Change columns of a task; return the time of the change."""
    assignments = ", ".join(f"{column} = %({column})s" for column in values)
    (updated_at,) = transaction.conn.fetch_one(
        f"UPDATE task SET {assignments}, updated_at = clock_timestamp()"
        " WHERE project_id = %(project_id)s AND id = %(id)s RETURNING updated_at",
        {**values, "project_id": transaction.project_id, "id": task_id},
    )
    return updated_at  # type: ignore[no-any-return]
