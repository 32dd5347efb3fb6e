"""Import of a JSONL file of beads: issues become tasks of a project, dependencies that block become blockers."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from bus import limits
from bus.coordination import tasks
from bus.ctx import Ctx
from bus.db import Connection
from bus.errors import BusError, InvalidArgument
from bus.imports.findings import Finding, Findings
from bus.imports.former_ids import list_numbers, record_ids
from bus.imports.original_values import clean_text, clip
from bus.imports.transactions import Transactions
from bus.rules.task_transitions import would_create_cycle
from bus.tenancy import participation_queries

# Issues that still have work: those of other statuses, custom ones included, are open as well.
_DONE_STATUSES = ("closed", "tombstone")
_BLOCKING_TYPES = ("blocks", "conditional-blocks", "waits-for")
_MAX_LABELS_LENGTH = 500
# A batch takes well below a second.
_BATCH_SIZE = 200


@dataclass(frozen=True, slots=True)
class Issue:
    """An issue that is not done."""

    id: str
    title: str
    detail: str | None
    priority: int
    assignee: str | None
    in_progress: bool
    blocked_on: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class BeadsReport:
    """The result of an import: numbers of tasks by issue, and how many issues were done or known already."""

    imported: dict[str, int]
    done: int
    unchanged: int
    findings: list[Finding] = field(default_factory=list)


def parse(lines: Sequence[str], findings: Findings) -> tuple[list[Issue], int]:
    """Read issues, one JSON object per line; the last line of an id counts.

    Returns:
        The issues that are not done, and how many are.
    Raises:
        InvalidArgument: a line is not an issue.
    """
    by_id: dict[str, dict[str, Any]] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            issue = json.loads(line)
        except (ValueError, RecursionError):
            issue = None
        if not isinstance(issue, dict) or not _is_id(issue.get("id")):
            raise InvalidArgument(
                f"Line {number} is not an issue of beads: a JSON object with an id. Give the file that `bd export`"
                " writes, such as .beads/issues.jsonl."
            )
        by_id[issue["id"]] = issue
    open_issues = [issue for issue in by_id.values() if issue.get("status") not in _DONE_STATUSES]
    open_ids = {issue["id"] for issue in open_issues}
    return [_build_issue(issue, open_ids, findings) for issue in open_issues], len(by_id) - len(open_issues)


def _is_id(value: Any) -> bool:
    return isinstance(value, str) and 1 <= len(value) <= 200 and clean_text(value) == value


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _build_issue(issue: dict[str, Any], open_ids: set[str], findings: Findings) -> Issue:
    text = clean_text(str(issue.get("title") or issue["id"]))
    title = clip(text, limits.MAX_TITLE_LENGTH, findings, "a title") or issue["id"]
    priority = issue.get("priority")
    dependencies = [entry for entry in _list(issue.get("dependencies")) if isinstance(entry, dict)]
    assignee = issue.get("assignee")
    return Issue(
        id=issue["id"],
        title=title,
        detail=clip(
            clean_text("\n\n".join(_detail_parts(issue))), limits.MAX_DETAIL_LENGTH, findings, "the detail of a task"
        ),
        priority=priority if isinstance(priority, int) and 0 <= priority <= 4 else 2,
        assignee=clean_text(assignee) if isinstance(assignee, str) and assignee else None,
        in_progress=issue.get("status") == "in_progress",
        blocked_on=tuple(
            dict.fromkeys(
                str(entry.get("depends_on_id"))
                for entry in dependencies
                if str(entry.get("type", "blocks")) in _BLOCKING_TYPES
                and isinstance(entry.get("depends_on_id"), str)
                and entry.get("depends_on_id") in open_ids
                and entry.get("depends_on_id") != issue["id"]
            )
        ),
    )


def _detail_parts(issue: dict[str, Any]) -> Iterator[str]:
    yield f"Imported from beads: {issue['id']} ({issue.get('issue_type') or 'task'})."
    for name, heading in (
        ("description", ""),
        ("design", "Design: "),
        ("acceptance_criteria", "Acceptance criteria: "),
        ("notes", "Notes: "),
        ("external_ref", "Reference: "),
    ):
        if issue.get(name):
            yield f"{heading}{issue[name]}"
    labels = _list(issue.get("labels"))
    if labels:
        yield f"Labels: {', '.join(map(str, labels))}"[:_MAX_LABELS_LENGTH]


def import_issues(transactions: Transactions, ctx: Ctx, lines: Sequence[str]) -> BeadsReport:
    """Create a task for each issue that is not done and was not imported before, those that block others first.

    Args:
        transactions: opens a transaction; each has a batch of issues.
        ctx: the owner of the project, who creates the tasks.
    Raises:
        InvalidArgument: a line is not an issue.
    Locks: the project clock.
    """
    findings = Findings()
    issues, done = parse(lines, findings)
    ordered = _order(issues, findings)
    imported: dict[str, int] = {}
    for start in range(0, len(ordered), _BATCH_SIZE):
        with transactions() as conn:
            imported |= _import_batch(conn, ctx, ordered[start : start + _BATCH_SIZE], findings)
    return BeadsReport(imported, done, len(issues) - len(imported), findings.list_all())


def _import_batch(conn: Connection, ctx: Ctx, issues: Sequence[Issue], findings: Findings) -> dict[str, int]:
    # The clock makes a concurrent import of the same file wait, so that no issue is imported twice.
    conn.execute("SELECT bus_lock_clock(%s)", (ctx.project_id,))
    numbers = list_numbers(conn, ctx.project_id, "beads")
    imported: dict[str, int] = {}
    for issue in issues:
        if issue.id in numbers:
            continue
        blocking = [numbers[other] for other in issue.blocked_on if other in numbers]
        if len(blocking) > limits.MAX_BLOCKERS:
            findings.add(f"blockers beyond {limits.MAX_BLOCKERS} of one task are left out", issue.id)
        imported[issue.id] = _create_task(conn, ctx, issue, blocking[: limits.MAX_BLOCKERS], findings)
        numbers[issue.id] = imported[issue.id]
    record_ids(conn, ctx.project_id, "beads", imported.items())
    return imported


def _order(issues: Sequence[Issue], findings: Findings) -> list[Issue]:
    """Return the issues so that each follows those that it waits for; a dependency that closes a circle is dropped."""
    by_id = {issue.id: issue for issue in issues}
    edges: dict[int, list[int]] = {}
    index = {issue.id: number for number, issue in enumerate(issues)}
    kept: dict[str, list[str]] = {}
    for issue in issues:
        kept[issue.id] = []
        for other in issue.blocked_on:
            if would_create_cycle(edges, index[issue.id], index[other]):
                findings.add("a dependency that closes a circle is left out", f"{issue.id} on {other}")
                continue
            edges.setdefault(index[issue.id], []).append(index[other])
            kept[issue.id].append(other)
    ordered: dict[str, Issue] = {}
    pending = [issue.id for issue in reversed(issues)]
    while pending:
        current = pending[-1]
        missing = [other for other in kept[current] if other not in ordered]
        if missing and current not in ordered:
            pending += missing
            continue
        pending.pop()
        ordered.setdefault(current, replace(by_id[current], blocked_on=tuple(kept[current])))
    return list(ordered.values())


def _create_task(conn: Connection, ctx: Ctx, issue: Issue, blocking: Sequence[int], findings: Findings) -> int:
    assignee = None
    if issue.assignee is not None:
        assignee = _find_assignee(conn, ctx, issue.assignee)
        if assignee is None:
            findings.add("an assignee that is not in the project is left out", issue.assignee)
    if issue.in_progress:
        findings.add("tasks in progress are assigned but not started; their agents start them again", issue.id)
    created = tasks.create(
        conn,
        ctx,
        issue.title,
        detail=issue.detail,
        owner=assignee,
        priority=issue.priority,
        blocked_on=blocking,
    )
    return created.task_id


def _find_assignee(conn: Connection, ctx: Ctx, name: str) -> str | None:
    try:
        participation = participation_queries.find(conn, ctx.project_id, name)
    except BusError:
        return None
    return None if participation is None else participation.actor
