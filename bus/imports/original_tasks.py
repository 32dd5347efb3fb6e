"""Import of the original's tasks with their blockers, under numbers of the project."""

from collections.abc import Sequence
from typing import Any

from bus import limits
from bus.db import Connection
from bus.imports import original_rows as rows
from bus.imports.findings import Findings
from bus.imports.former_ids import record_ids
from bus.imports.original_source import OriginalSource
from bus.imports.original_tenancy import ImportedProject
from bus.imports.original_values import clip
from bus.rules.enums import TASK_STATUSES

_DEFAULT_PRIORITY = 2


def import_tasks(conn: Connection, source: OriginalSource, project: ImportedProject, findings: Findings) -> None:
    """Insert all tasks of a project, numbered in the order of their former ids, and advance the project's task number.

    The caller has locked the project clock.
    """
    tasks = source.list_tasks(project.original_id)
    numbers = {row.id: number for number, row in enumerate(tasks, 1)}
    statuses = {row.id: row.status for row in tasks}
    blocker_rows, open_blockers = _build_blockers(
        source.list_blockers(project.original_id), numbers, statuses, findings
    )
    names: dict[int, str] = dict(
        conn.fetch_all(
            "SELECT p.id, bus_participation_name(p.id) FROM participation p WHERE p.project_id = %s", (project.id,)
        )
    )
    task_rows: list[tuple[Any, ...]] = []
    for row in tasks:
        assignee = project.find_participation(row.owner_participation_id, row.owner_name)
        if row.owner_participation_id is None and row.owner_name is None:
            assignee = None
        creator = project.participations.get(row.created_by_id or 0)
        if assignee is None and row.status == "done":
            findings.add("a task that is done without an assignee has its creator as one", f"task {row.id}")
            assignee = creator or project.owner_participation
        task_rows.append(
            (
                numbers[row.id],
                clip(row.title, limits.MAX_TITLE_LENGTH, findings, "a title") or "(untitled)",
                clip(row.detail, limits.MAX_DETAIL_LENGTH, findings, "the detail of a task"),
                clip(row.lane, 64, findings, "a lane"),
                assignee,
                None if assignee is None else names[assignee],
                _choose_status(row, assignee, open_blockers.get(row.id, 0), findings),
                _DEFAULT_PRIORITY,
                open_blockers.get(row.id, 0),
                project.owner.handle if creator is None else names[creator],
                row.created_at,
                row.updated_at,
            )
        )
    if task_rows:
        conn.execute(
            "INSERT INTO task (project_id, id, title, detail, lane, participation_id, owner, status, priority,"
            " open_blockers, created_by, created_at, updated_at)"
            " SELECT %s, t.* FROM unnest(%s::bigint[], %s::text[], %s::text[], %s::text[], %s::bigint[], %s::text[],"
            " %s::text[], %s::smallint[], %s::integer[], %s::text[], %s::timestamptz[], %s::timestamptz[]) AS t",
            (project.id, *(list(column) for column in zip(*task_rows, strict=True))),
        )
        record_ids(conn, project.id, "task", numbers.items())
    if blocker_rows:
        conn.execute(
            "INSERT INTO task_blocker (project_id, task_id, id, on_task_id, reason, created_at, resolved_at)"
            " SELECT %s, b.* FROM unnest(%s::bigint[], %s::bigint[], %s::bigint[], %s::text[], %s::timestamptz[],"
            " %s::timestamptz[]) AS b",
            (project.id, *(list(column) for column in zip(*blocker_rows, strict=True))),
        )
    conn.execute("UPDATE project_clock SET last_task = %s WHERE project_id = %s", (len(tasks), project.id))


def _build_blockers(
    blockers: Sequence[rows.BlockerRow], numbers: dict[int, int], statuses: dict[int, str], findings: Findings
) -> tuple[list[tuple[Any, ...]], dict[int, int]]:
    """Return rows of blockers, and the number of open ones by the former id of the task."""
    built: list[tuple[Any, ...]] = []
    count: dict[int, int] = {}
    open_blockers: dict[int, int] = {}
    for row in blockers:
        task_id, on_id, resolved_at = row.task_id, row.blocked_on_task_id, row.resolved_at
        reason = clip(row.reason, limits.MAX_REASON_LENGTH, findings, "the reason of a blocker")
        if on_id is not None and (on_id not in numbers or on_id == task_id):
            findings.add("blockers on the task itself or on a task elsewhere keep their reason only", f"task {task_id}")
            reason, on_id = reason or f"task {on_id} of the original", None
        if resolved_at is None and statuses[task_id] == "done":
            findings.add("a task that is done and blocked is done", f"task {task_id}")
            resolved_at = row.created_at
        elif resolved_at is None and on_id is not None and statuses[on_id] == "done":
            findings.add("blockers on a task that is done are resolved", f"task {task_id} on {on_id}")
            resolved_at = row.created_at
        elif resolved_at is None:
            open_blockers[task_id] = open_blockers.get(task_id, 0) + 1
        count[task_id] = count.get(task_id, 0) + 1
        on_number = None if on_id is None else numbers[on_id]
        if on_number is None and reason is None:
            reason = "no reason given"
        built.append((numbers[task_id], count[task_id], on_number, reason, row.created_at, resolved_at))
    return built, open_blockers


def _choose_status(row: rows.TaskRow, assignee: int | None, open_blockers: int, findings: Findings) -> str:
    """Return the status of a task, changed where it contradicts its assignee or its blockers."""
    status = row.status if row.status in TASK_STATUSES else "open"
    if status != "open" and assignee is None:
        findings.add("tasks with a status that needs an assignee, and without one, are open", f"task {row.id}")
        return "open"
    if status == "blocked" and not open_blockers:
        findings.add("tasks that are blocked by nothing are in progress", f"task {row.id}")
        return "in_progress"
    if status == "in_progress" and open_blockers:
        findings.add("tasks in progress with open blockers are blocked", f"task {row.id}")
        return "blocked"
    return status
