"""Writes of tasks: a small dependency graph with an enforced state machine.

Every function locks the project clock in its first statement and reads afterwards, so concurrent writes of one project
never decide on stale rows. The state machine is bus/rules/task_transitions.py.
Source: docs/decisions/0003-locks.md
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from psycopg.types.json import Jsonb

from bus import limits
from bus.coordination import task_blockers, task_rows
from bus.coordination.give_back import TakenTask, TaskOffer
from bus.coordination.idempotency import validate_and_fingerprint
from bus.coordination.task_queries import Task
from bus.coordination.transactions import CallerTransaction
from bus.ctx import Ctx
from bus.db import Connection
from bus.errors import BusError, InvalidArgument
from bus.rules import validation
from bus.rules.task_transitions import next_status, would_create_cycle
from bus.tenancy import participation_queries


@dataclass(frozen=True, slots=True)
class TaskStatus:
    """A task after a write."""

    task_id: int
    status: str
    unread: int


@dataclass(frozen=True, slots=True)
class TaskAssignment:
    """A task after its assignment; `owner` is a qualified name."""

    task_id: int
    owner: str
    status: str
    unread: int


@dataclass(frozen=True, slots=True)
class ShippedTask:
    """A done task; `unblocked` lists the tasks that are in progress again or became ready because of it."""

    task_id: int
    status: str
    unblocked: list[int]
    unread: int


@dataclass(frozen=True, slots=True)
class ReadyTask(Task):
    """A task that was ready and is now started by the caller or offered to it, with its detail."""

    detail: str | None


@dataclass(frozen=True, slots=True)
class NextTask:
    """The next task for the caller; None if none is ready.

    Attributes:
        taken: what to give back if the answer does not reach the client; bus/coordination/give_back.py does.
    """

    task: ReadyTask | None
    unread: int
    taken: TakenTask | TaskOffer | None = None


@dataclass(frozen=True, slots=True)
class _ReadyTaskRow(task_rows.TaskRow):
    title: str
    lane: str | None
    priority: int
    detail: str | None


def create(
    conn: Connection,
    ctx: Ctx,
    title: str,
    *,
    detail: str | None = None,
    lane: str | None = None,
    owner: str | None = None,
    priority: int = 2,
    blocked_on: Sequence[int] = (),
    idempotency_key: str | None = None,
) -> TaskStatus:
    """Create a task: `open`, or `assigned` if an owner is named.

    Args:
        priority: 0 (first) to 4.
        blocked_on: tasks of this project, at most 50, that must ship before this one is ready; done tasks are ignored.
    Raises:
        BusError: `unknown_recipient`, `not_found` for blocked_on, `key_reuse`.
    Locks: the idempotency key, then the project clock.
    """
    validation.free_text(title, "title", limits.MAX_TITLE_LENGTH)
    if detail is not None:
        validation.free_text(detail, "detail", limits.MAX_DETAIL_LENGTH)
    if lane is not None:
        lane = validation.name(lane, "lane")
    if owner is not None:
        validation.qualified_name(owner, "owner")
    validation.integer(priority, "priority", 0, 4)
    blocking_ids = list(dict.fromkeys(blocked_on))
    if len(blocking_ids) > limits.MAX_BLOCKERS:
        raise InvalidArgument(f"blocked_on takes at most {limits.MAX_BLOCKERS} tasks.")
    for blocking_id in blocking_ids:
        validation.integer(blocking_id, "blocked_on", 1, limits.MAX_INTEGER)
    key, fingerprint = validate_and_fingerprint(
        "task_create",
        idempotency_key,
        title=title,
        detail=detail,
        lane=lane,
        owner=owner,
        priority=priority,
        blocked_on=blocking_ids,
    )
    if key is not None:
        stored, unread = conn.fetch_one(
            "SELECT bus_find_result(c.project_id, %(me)s, %(key)s, %(fingerprint)s),"
            " bus_unread(c.project_id, %(me)s) FROM bus_authenticate(%(me)s, %(token)s, true) c",
            {"me": ctx.participation_id, "token": ctx.token_id, "key": key, "fingerprint": fingerprint},
        )
        if stored is not None:
            return TaskStatus(task_id=stored["task_id"], status=stored["status"], unread=unread)
    transaction = CallerTransaction(conn, ctx)
    assignee = (
        None
        if owner is None
        else participation_queries.get_addressable(conn, ctx, transaction.project_id, owner, "owner")
    )
    unfinished_ids = task_blockers.list_unfinished(transaction, blocking_ids)
    (task_id,) = conn.fetch_one(
        "UPDATE project_clock SET last_task = last_task + 1 WHERE project_id = %s RETURNING last_task",
        (transaction.project_id,),
    )
    status = "open" if assignee is None else "assigned"
    assignee_name = None if assignee is None else assignee.actor
    conn.execute(
        "INSERT INTO task (project_id, id, title, detail, lane, participation_id, owner, status, priority,"
        " open_blockers, created_by, created_at, updated_at)"
        " VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, clock_timestamp(), clock_timestamp())",
        (
            transaction.project_id,
            task_id,
            title,
            detail,
            lane,
            None if assignee is None else assignee.id,
            assignee_name,
            status,
            priority,
            len(unfinished_ids),
            transaction.actor,
        ),
    )
    for blocking_id in unfinished_ids:
        task_blockers.add(transaction, task_id, blocking_id, None)
    transaction.record_event(
        "task_create",
        task_id=task_id,
        title=title,
        lane=lane,
        owner=assignee_name,
        priority=priority,
        blocked_on=unfinished_ids,
    )
    if key is not None:
        conn.execute(
            "SELECT bus_store_result(%s, %s, %s, %s)",
            (transaction.project_id, ctx.participation_id, key, Jsonb({"task_id": task_id, "status": status})),
        )
    return TaskStatus(task_id=task_id, status=status, unread=transaction.finish())


def assign(conn: Connection, ctx: Ctx, task_id: int, owner: str) -> TaskAssignment:
    """Assign an open or assigned task to a participant; anyone may. Repeating an assignment adds no event.

    Raises:
        BusError: `not_found`, `unknown_recipient`, `wrong_state`.
    Locks: the project clock.
    """
    transaction = CallerTransaction(conn, ctx)
    task = task_rows.get_row(transaction, task_id)
    assignee = participation_queries.get_addressable(conn, ctx, transaction.project_id, owner, "owner")
    status = next_status("assign", task.status)
    if (status, assignee.id) != (task.status, task.participation_id):
        task_rows.update_row(transaction, task_id, status=status, participation_id=assignee.id, owner=assignee.actor)
        transaction.record_event("task_assign", task_id=task_id, owner=assignee.actor)
    return TaskAssignment(task_id=task_id, owner=assignee.actor, status=status, unread=transaction.finish())


def start(conn: Connection, ctx: Ctx, task_id: int) -> TaskStatus:
    """Start an assigned task, or take an open one. The assignee or a project-admin may.

    Raises:
        BusError: `not_found`, `forbidden`, `wrong_state` (also while it has open blockers).
    Locks: the project clock.
    """
    transaction = CallerTransaction(conn, ctx)
    task = task_rows.get_row(transaction, task_id)
    status = next_status("start", task.status, task.open_blockers)
    task_rows.require_assignee_or_admin(transaction, task)
    _mark_started(transaction, task, status)
    return TaskStatus(task_id=task_id, status=status, unread=transaction.finish())


def start_next(conn: Connection, ctx: Ctx, *, lane: str | None = None) -> NextTask:
    """Start the first task that is ready for the caller, by priority and then age.

    Args:
        lane: only tasks of this lane.
    Locks: the project clock.
    """
    if lane is not None:
        lane = validation.name(lane, "lane")
    transaction = CallerTransaction(conn, ctx)
    task = _find_first_ready(transaction, lane)
    if task is None:
        return NextTask(task=None, unread=transaction.finish())
    status = next_status("start", task.status)
    started_at = _mark_started(transaction, task, status)
    owner = task.owner or transaction.actor
    started = _build_ready_task(task, owner=owner, status=status)
    taken = TakenTask(task.id, owner, updated_at=started_at, assigned_to=task.participation_id)
    return NextTask(task=started, unread=transaction.finish(), taken=taken)


def offer_next(conn: Connection, ctx: Ctx, seconds: float) -> NextTask:
    """Offer the caller the first task that is ready for it and not on offer; the task's status is unchanged.

    For `seconds` it is not offered to other callers, so that one of many waiting calls is answered. An offer reserves
    nothing: task_start and task_next ignore it, and it adds no event.

    Locks: the project clock.
    """
    transaction = CallerTransaction(conn, ctx)
    task = _find_first_ready(transaction, None, only_unoffered=True)
    if task is None:
        return NextTask(task=None, unread=transaction.finish())
    (offered_until,) = conn.fetch_one(
        "UPDATE task SET offered_until = clock_timestamp() + make_interval(secs => %s)"
        " WHERE project_id = %s AND id = %s RETURNING offered_until",
        (seconds, transaction.project_id, task.id),
    )
    offered = _build_ready_task(task, owner=task.owner, status=task.status)
    return NextTask(task=offered, unread=transaction.finish(), taken=TaskOffer(task.id, offered_until))


def block(conn: Connection, ctx: Ctx, task_id: int, reason: str, *, on: int | None = None) -> TaskStatus:
    """Mark a task in progress as blocked, by a reason and possibly a task. The assignee or a project-admin may.

    Raises:
        BusError: `not_found`, `forbidden`, `wrong_state` (also when `on` is done), `conflict` when the task would
            wait for itself.
    Locks: the project clock.
    """
    validation.free_text(reason, "reason", limits.MAX_REASON_LENGTH)
    transaction = CallerTransaction(conn, ctx)
    task = task_rows.get_row(transaction, task_id)
    status = next_status("block", task.status)
    task_rows.require_assignee_or_admin(transaction, task)
    if on is not None:
        validation.integer(on, "on", 1, limits.MAX_INTEGER)
        blocking_task = task_rows.get_row(transaction, on)
        if would_create_cycle(task_blockers.fetch_open_edges(transaction, on), task_id, on):
            raise BusError(
                "conflict",
                f"Task {on} waits for task {task_id} already, so neither could ever start; resolve that first.",
            )
        if blocking_task.status == "done":
            raise BusError("wrong_state", f"Task {on} is done, so there is nothing to wait for; go on.", status="done")
    task_blockers.add(transaction, task_id, on, reason)
    task_rows.update_row(transaction, task_id, status=status, open_blockers=1)
    transaction.record_event("task_block", task_id=task_id, reason=reason, on=on)
    return TaskStatus(task_id=task_id, status=status, unread=transaction.finish())


def resolve(conn: Connection, ctx: Ctx, task_id: int, *, blocker: int | None = None) -> TaskStatus:
    """Resolve blockers of a task; anyone may. Without open blockers a blocked task is in progress again.

    Args:
        blocker: the task that it waits for, as `on` in list_tasks; None resolves every open blocker.
    Raises:
        BusError: `not_found` (also when it does not wait for `blocker`), `wrong_state`.
    Locks: the project clock.
    """
    transaction = CallerTransaction(conn, ctx)
    task = task_rows.get_row(transaction, task_id)
    if blocker is not None:
        validation.integer(blocker, "blocker", 1, limits.MAX_INTEGER)
    # The status is checked first, so that a refusal by status takes precedence over an unknown blocker.
    next_status("resolve", task.status, task.open_blockers)
    if task.open_blockers == 0:
        raise BusError(
            "wrong_state", f"Task {task_id} has no open blockers; start it when you like.", status=task.status
        )
    resolved_count = task_blockers.resolve(transaction, task_id, blocker)
    if not resolved_count:
        raise BusError("not_found", f"Task {task_id} does not wait for task {blocker}.", hint="list_tasks")
    open_blockers = task.open_blockers - resolved_count
    status = next_status("resolve", task.status, open_blockers)
    task_rows.update_row(transaction, task_id, status=status, open_blockers=open_blockers)
    transaction.record_event("task_resolve", task_id=task_id, blocker=blocker, status=status)
    return TaskStatus(task_id=task_id, status=status, unread=transaction.finish())


def ship(conn: Connection, ctx: Ctx, task_id: int, *, ref: str | None = None) -> ShippedTask:
    """Finish a task in progress and resolve the blockers on it. The assignee or a project-admin may.

    Args:
        ref: the artifact that finishes it: a PR, a commit.
    Returns:
        With `unblocked`: tasks that were blocked and are in progress again (one task_resolve event each), and tasks
        that became ready to start.
    Raises:
        BusError: `not_found`, `forbidden`, `wrong_state`.
    Locks: the project clock.
    """
    if ref is not None:
        ref = validation.name(ref, "ref", limits.MAX_REF_LENGTH)
    transaction = CallerTransaction(conn, ctx)
    task = task_rows.get_row(transaction, task_id)
    status = next_status("ship", task.status)
    task_rows.require_assignee_or_admin(transaction, task)
    task_rows.update_row(transaction, task_id, status=status, ref=ref, session_key=None)
    waiting_tasks = sorted(task_blockers.resolve_blocked_by(transaction, task_id))
    unblocked = [waiting_id for waiting_id, _, open_blockers in waiting_tasks if open_blockers == 0]
    transaction.record_event("task_ship", task_id=task_id, ref=ref, unblocked=unblocked)
    for waiting_id, waiting_status, open_blockers in waiting_tasks:
        if open_blockers == 0 and waiting_status == "in_progress":
            transaction.record_event("task_resolve", task_id=waiting_id, blocker=task_id, status=waiting_status)
    return ShippedTask(task_id=task_id, status=status, unblocked=unblocked, unread=transaction.finish())


def _find_first_ready(
    transaction: CallerTransaction, lane: str | None, *, only_unoffered: bool = False
) -> _ReadyTaskRow | None:
    unoffered = " AND (offered_until IS NULL OR offered_until <= clock_timestamp())" if only_unoffered else ""
    return transaction.conn.fetch_one_or_none_as(
        _ReadyTaskRow,
        "SELECT id, status, participation_id, owner, open_blockers, title, lane, priority, detail FROM task"
        " WHERE project_id = %(project)s AND status IN ('open', 'assigned') AND open_blockers = 0"
        " AND (participation_id IS NULL OR participation_id = %(me)s)"
        f" AND (%(lane)s::text IS NULL OR lane = %(lane)s){unoffered} ORDER BY priority, id LIMIT 1",
        {"project": transaction.project_id, "me": transaction.ctx.participation_id, "lane": lane},
    )


def _build_ready_task(task: _ReadyTaskRow, *, owner: str | None, status: str) -> ReadyTask:
    return ReadyTask(
        task_id=task.id,
        title=task.title,
        lane=task.lane,
        owner=owner,
        status=status,
        blockers=[],
        priority=task.priority,
        detail=task.detail,
    )


def _mark_started(transaction: CallerTransaction, task: task_rows.TaskRow, status: str) -> datetime:
    """Start a task; return when."""
    if task.participation_id is None:
        started_at = task_rows.update_row(
            transaction,
            task.id,
            status=status,
            participation_id=transaction.ctx.participation_id,
            owner=transaction.actor,
            session_key=transaction.ctx.session,
        )
    else:
        started_at = task_rows.update_row(transaction, task.id, status=status, session_key=transaction.ctx.session)
    transaction.record_event("task_start", task_id=task.id, owner=task.owner or transaction.actor)
    return started_at
