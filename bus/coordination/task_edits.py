"""Edits of the texts of a task by people.

Source: docs/decisions/0003-locks.md
"""

import hashlib
import json
from dataclasses import asdict, dataclass

from bus import limits
from bus.coordination import task_rows, text_search
from bus.coordination.tasks import TaskStatus
from bus.coordination.transactions import CallerTransaction
from bus.ctx import Ctx
from bus.db import Connection
from bus.errors import BusError
from bus.rules import validation


@dataclass(frozen=True, slots=True)
class TaskTexts:
    """What an edit can change."""

    title: str
    detail: str | None
    lane: str | None
    priority: int

    @property
    def version(self) -> str:
        """A short text that differs where the texts do, by which an edit names what its author has seen."""
        return hashlib.sha256(json.dumps(asdict(self)).encode()).hexdigest()[:16]


def edit(conn: Connection, ctx: Ctx, task_id: int, texts: TaskTexts, *, seen: str | None = None) -> TaskStatus:
    """Change the texts, the lane and the priority of a task that is not done. The assignee or a project-admin may.

    An edit that changes nothing adds no event.

    Args:
        seen: the version of the texts that the author has changed; None changes any.

    Raises:
        BusError: `not_found`, `forbidden`, `wrong_state`; `conflict` if the texts are no longer those of `seen`.
    Locks: the project clock.
    """
    validation.free_text(texts.title, "title", limits.MAX_TITLE_LENGTH)
    if texts.detail is not None:
        validation.free_text(texts.detail, "detail", limits.MAX_DETAIL_LENGTH)
    lane = None if texts.lane is None else validation.name(texts.lane, "lane")
    validation.integer(texts.priority, "priority", 0, 4)
    transaction = CallerTransaction(conn, ctx)
    task = task_rows.get_row(transaction, task_id)
    task_rows.require_assignee_or_admin(transaction, task)
    if task.status == "done":
        raise BusError("wrong_state", "Task is done; create a new one.", status=task.status)
    query = "SELECT title, detail, lane, priority FROM task WHERE project_id = %s AND id = %s"
    before = TaskTexts(*conn.fetch_one(query, (transaction.project_id, task_id)))
    if seen is not None and seen != before.version:
        raise BusError("conflict", "The task was changed after you opened it.")
    old = asdict(before)
    changed = {name: value for name, value in (asdict(texts) | {"lane": lane}).items() if value != old[name]}
    if changed:
        task_rows.update_row(transaction, task_id, **changed)
        text_search.update_task(conn, transaction.project_id, task_id)
        # The ledger holds no long texts.
        transaction.record_event(
            "task_edit", task_id=task_id, **changed | ({"detail": True} if "detail" in changed else {})
        )
    return TaskStatus(task_id=task_id, status=task.status, unread=transaction.finish())
