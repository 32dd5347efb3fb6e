"""Tasks: a small dependency graph with an enforced state machine.

Every verb locks the project clock in its first statement and reads what it decides on in a later one, so two verbs
of one project never decide on old rows. The state machine itself is bus/rules/task_transitions.py.
Source: docs/decisions/0003-locks.md
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from psycopg.types.json import Jsonb

from bus import limits
from bus.coordination import task_blockers
from bus.coordination.caller_transaction import CallerTransaction
from bus.coordination.idempotency import validate_and_fingerprint
from bus.coordination.task_queries import Task
from bus.ctx import Ctx
from bus.db import Connection, Row
from bus.errors import BusError, InvalidArgument
from bus.rules import task_transitions as rules
from bus.rules import validation
from bus.tenancy import participations


@dataclass(frozen=True, slots=True)
class TaskStatus:
    """A task after a verb."""

    task_id: int
    status: str
    unread: int


@dataclass(frozen=True, slots=True)
class TaskAssignment:
    """A task after it was assigned; `owner` is a qualified name."""

    task_id: int
    owner: str
    status: str
    unread: int


@dataclass(frozen=True, slots=True)
class ShippedTask:
    """A task that is done; `unblocked` lists the tasks that were freed or became ready by it."""

    task_id: int
    status: str
    unblocked: list[int]
    unread: int


@dataclass(frozen=True, slots=True)
class ReadyTask(Task):
    """The task that the caller has just started, with what there is to know about it."""

    detail: str | None


@dataclass(frozen=True, slots=True)
class NextTask:
    """The task that the caller has just started, or None where nothing is ready."""

    task: ReadyTask | None
    unread: int


@dataclass(frozen=True, slots=True)
class _TaskRow:
    id: int
    status: str
    participation_id: int | None
    owner: str | None
    open_blockers: int


def _get_task(transaction: CallerTransaction, task_id: int) -> _TaskRow:
    validation.integer(task_id, "task_id", 1, limits.MAX_INTEGER)
    row = transaction.conn.fetch_one_or_none(
        "SELECT id, status, participation_id, owner, open_blockers FROM task WHERE project_id = %s AND id = %s",
        (transaction.project_id, task_id),
    )
    if row is None:
        raise BusError("not_found", f"There is no task {task_id}.", hint="list_tasks")
    return _TaskRow(*row)


def _require_assignee_or_admin(transaction: CallerTransaction, task: _TaskRow) -> None:
    if task.participation_id not in (None, transaction.ctx.participation_id) and not transaction.is_admin:
        raise BusError(
            "forbidden",
            f"Task {task.id} is {task.owner}'s; ask them, or have it assigned to you.",
            hint="assign_task",
        )


def _update_task(transaction: CallerTransaction, task_id: int, **values: Any) -> None:
    assignments = ", ".join(f"{name} = %({name})s" for name in values)
    transaction.conn.execute(
        f"UPDATE task SET {assignments}, updated_at = clock_timestamp()"
        " WHERE project_id = %(project_id)s AND id = %(id)s RETURNING id",
        {**values, "project_id": transaction.project_id, "id": task_id},
    )


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
    """Create a task: `open`, or `assigned` where an owner is named.

    Args:
        priority: 0 (first) to 4.
        blocked_on: tasks of this project, at most 50, that must ship before it is ready; those done count not.
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
    waits_for = list(dict.fromkeys(blocked_on))
    if len(waits_for) > limits.MAX_BLOCKERS:
        raise InvalidArgument(f"blocked_on takes at most {limits.MAX_BLOCKERS} tasks.")
    for other in waits_for:
        validation.integer(other, "blocked_on", 1, limits.MAX_INTEGER)
    key, fingerprint = validate_and_fingerprint(
        "task_create",
        idempotency_key,
        title=title,
        detail=detail,
        lane=lane,
        owner=owner,
        priority=priority,
        blocked_on=waits_for,
    )
    if key is not None:
        (stored, unread) = conn.fetch_one(
            "SELECT bus_find_result(c.project_id, %(me)s, %(key)s, %(fingerprint)s),"
            " bus_unread(c.project_id, %(me)s) FROM bus_authenticate(%(me)s, %(token)s, true) c",
            {"me": ctx.participation_id, "token": ctx.token_id, "key": key, "fingerprint": fingerprint},
        )
        if stored is not None:
            return TaskStatus(stored["task_id"], stored["status"], unread)
    verb = CallerTransaction(conn, ctx)
    assignee = None if owner is None else participations.get(conn, verb.project_id, owner, "owner")
    open_ones = task_blockers.list_unfinished(verb, waits_for)
    (task_id,) = conn.fetch_one(
        "UPDATE project_clock SET last_task = last_task + 1 WHERE project_id = %s RETURNING last_task",
        (verb.project_id,),
    )
    status = "open" if assignee is None else "assigned"
    owner_name = None if assignee is None else assignee.actor
    conn.execute(
        "INSERT INTO task (project_id, id, title, detail, lane, participation_id, owner, status, priority,"
        " open_blockers, created_by, created_at, updated_at)"
        " VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, clock_timestamp(), clock_timestamp()) RETURNING id",
        (
            verb.project_id,
            task_id,
            title,
            detail,
            lane,
            None if assignee is None else assignee.id,
            owner_name,
            status,
            priority,
            len(open_ones),
            verb.actor,
        ),
    )
    for other in open_ones:
        task_blockers.add(verb, task_id, other, None)
    verb.record_event(
        "task_create",
        task_id=task_id,
        title=title,
        lane=lane,
        owner=owner_name,
        priority=priority,
        blocked_on=open_ones,
    )
    if key is not None:
        conn.execute(
            "SELECT bus_store_result(%s, %s, %s, %s)",
            (verb.project_id, ctx.participation_id, key, Jsonb({"task_id": task_id, "status": status})),
        )
    return TaskStatus(task_id, status, verb.finish())


def assign(conn: Connection, ctx: Ctx, task_id: int, owner: str) -> TaskAssignment:
    """Give an open or assigned task to a participant; anyone may. Assigning it to its owner again adds no event.

    Raises:
        BusError: `not_found`, `unknown_recipient`, `wrong_state`.
    Locks: the project clock.
    """
    verb = CallerTransaction(conn, ctx)
    task = _get_task(verb, task_id)
    assignee = participations.get(conn, verb.project_id, owner, "owner")
    status = rules.next_status("assign", task.status)
    if (status, assignee.id) != (task.status, task.participation_id):
        _update_task(verb, task_id, status=status, participation_id=assignee.id, owner=assignee.actor)
        verb.record_event("task_assign", task_id=task_id, owner=assignee.actor)
    return TaskAssignment(task_id, assignee.actor, status, verb.finish())


def start(conn: Connection, ctx: Ctx, task_id: int) -> TaskStatus:
    """Start an assigned task, or take an open one. The assignee or a project-admin may.

    Raises:
        BusError: `not_found`, `forbidden`, `wrong_state` (also while it has open blockers).
    Locks: the project clock.
    """
    verb = CallerTransaction(conn, ctx)
    task = _get_task(verb, task_id)
    status = rules.next_status("start", task.status, task.open_blockers)
    _require_assignee_or_admin(verb, task)
    _mark_started(verb, task, status)
    return TaskStatus(task_id, status, verb.finish())


def start_next(conn: Connection, ctx: Ctx, *, lane: str | None = None) -> NextTask:
    """Start the first task that is ready for the caller, by priority and then age; None where there is none.

    Args:
        lane: only tasks of this lane.
    Locks: the project clock.
    """
    if lane is not None:
        lane = validation.name(lane, "lane")
    verb = CallerTransaction(conn, ctx)
    row = _find_first_ready(verb, lane)
    if row is None:
        return NextTask(None, verb.finish())
    found = _TaskRow(*row[:5])
    title, task_lane, priority, detail = row[5:]
    status = rules.next_status("start", found.status)
    _mark_started(verb, found, status)
    owner = found.owner or verb.actor
    return NextTask(ReadyTask(found.id, title, task_lane, owner, status, [], priority, detail), verb.finish())


def offer_next(conn: Connection, ctx: Ctx, seconds: float) -> NextTask:
    """The first task that is ready for the caller and offered to nobody; it stays as it is.

    For so many seconds it is offered to nobody else, so that of many who wait one is told. An offer binds nobody:
    task_start and task_next do not ask for it, and it adds no event.

    Locks: the project clock.
    """
    verb = CallerTransaction(conn, ctx)
    row = _find_first_ready(verb, None, only_unoffered=True)
    if row is None:
        return NextTask(None, verb.finish())
    task_id, status, _, owner, _, title, lane, priority, detail = row
    verb.conn.execute(
        "UPDATE task SET offered_until = clock_timestamp() + make_interval(secs => %s)"
        " WHERE project_id = %s AND id = %s",
        (seconds, verb.project_id, task_id),
    )
    return NextTask(ReadyTask(task_id, title, lane, owner, status, [], priority, detail), verb.finish())


def _find_first_ready(transaction: CallerTransaction, lane: str | None, *, only_unoffered: bool = False) -> Row | None:
    offered = " AND (offered_until IS NULL OR offered_until <= clock_timestamp())" if only_unoffered else ""
    return transaction.conn.fetch_one_or_none(
        "SELECT id, status, participation_id, owner, open_blockers, title, lane, priority, detail FROM task"
        " WHERE project_id = %(project)s AND status IN ('open', 'assigned') AND open_blockers = 0"
        " AND (participation_id IS NULL OR participation_id = %(me)s)"
        f" AND (%(lane)s::text IS NULL OR lane = %(lane)s){offered} ORDER BY priority, id LIMIT 1",
        {"project": transaction.project_id, "me": transaction.ctx.participation_id, "lane": lane},
    )


def block(conn: Connection, ctx: Ctx, task_id: int, reason: str, *, on: int | None = None) -> TaskStatus:
    """Say that a task in progress cannot go on, and on which task it waits. The assignee or a project-admin may.

    Raises:
        BusError: `not_found`, `forbidden`, `wrong_state` (also when `on` is done), `conflict` when it would make
            a task wait for itself.
    Locks: the project clock.
    """
    validation.free_text(reason, "reason", limits.MAX_REASON_LENGTH)
    verb = CallerTransaction(conn, ctx)
    task = _get_task(verb, task_id)
    status = rules.next_status("block", task.status)
    _require_assignee_or_admin(verb, task)
    if on is not None:
        validation.integer(on, "on", 1, limits.MAX_INTEGER)
        blocking = _get_task(verb, on)
        if rules.would_create_cycle(task_blockers.fetch_open_edges(verb, on), task_id, on):
            raise BusError(
                "conflict",
                f"Task {on} waits for task {task_id} already, so neither could ever start; resolve that first.",
            )
        if blocking.status == "done":
            raise BusError("wrong_state", f"Task {on} is done, so there is nothing to wait for; go on.", status="done")
    task_blockers.add(verb, task_id, on, reason)
    _update_task(verb, task_id, status=status, open_blockers=1)
    verb.record_event("task_block", task_id=task_id, reason=reason, on=on)
    return TaskStatus(task_id, status, verb.finish())


def resolve(conn: Connection, ctx: Ctx, task_id: int, *, blocker: int | None = None) -> TaskStatus:
    """Say that a blocker is gone; anyone may. When the last one goes, a blocked task is in progress again.

    Args:
        blocker: the task it waited for, as `on` in list_tasks; None resolves every open blocker.
    Raises:
        BusError: `not_found` (also when it does not wait for `blocker`), `wrong_state`.
    Locks: the project clock.
    """
    verb = CallerTransaction(conn, ctx)
    task = _get_task(verb, task_id)
    if blocker is not None:
        validation.integer(blocker, "blocker", 1, limits.MAX_INTEGER)
    # The state machine speaks first: a task that waits for nothing is told so.
    rules.next_status("resolve", task.status, task.open_blockers)
    if task.open_blockers == 0:
        raise BusError(
            "wrong_state", f"Task {task_id} has no open blockers; start it when you like.", status=task.status
        )
    gone = task_blockers.resolve(verb, task_id, blocker)
    if not gone:
        raise BusError("not_found", f"Task {task_id} does not wait for task {blocker}.", hint="list_tasks")
    left = task.open_blockers - gone
    status = rules.next_status("resolve", task.status, left)
    _update_task(verb, task_id, status=status, open_blockers=left)
    verb.record_event("task_resolve", task_id=task_id, blocker=blocker, status=status)
    return TaskStatus(task_id, status, verb.finish())


def ship(conn: Connection, ctx: Ctx, task_id: int, *, ref: str | None = None) -> ShippedTask:
    """Finish a task in progress. Blockers on it resolve. The assignee or a project-admin may.

    Args:
        ref: the artifact that finishes it: a PR, a commit.
    Returns:
        With `unblocked`: tasks that were blocked and go on (one task_resolve event each), and tasks that became
        ready to start.
    Raises:
        BusError: `not_found`, `forbidden`, `wrong_state`.
    Locks: the project clock.
    """
    if ref is not None:
        ref = validation.name(ref, "ref", limits.MAX_REF_LENGTH)
    verb = CallerTransaction(conn, ctx)
    task = _get_task(verb, task_id)
    status = rules.next_status("ship", task.status)
    _require_assignee_or_admin(verb, task)
    _update_task(verb, task_id, status=status, ref=ref)
    moved = task_blockers.resolve_blocked_by(verb, task_id)
    unblocked = sorted(other for other, _, left in moved if left == 0)
    verb.record_event("task_ship", task_id=task_id, ref=ref, unblocked=unblocked)
    for other, other_status, left in sorted(moved):
        if left == 0 and other_status == "in_progress":
            verb.record_event("task_resolve", task_id=other, blocker=task_id, status=other_status)
    return ShippedTask(task_id, status, unblocked, verb.finish())


def _mark_started(transaction: CallerTransaction, task: _TaskRow, status: str) -> None:
    if task.participation_id is None:
        _update_task(
            transaction,
            task.id,
            status=status,
            participation_id=transaction.ctx.participation_id,
            owner=transaction.actor,
        )
    else:
        _update_task(transaction, task.id, status=status)
    transaction.record_event("task_start", task_id=task.id, owner=task.owner or transaction.actor)
