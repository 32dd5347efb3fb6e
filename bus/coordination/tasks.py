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
from bus.coordination.caller_transaction import Verb
from bus.coordination.idempotency import key_and_fingerprint
from bus.coordination.task_queries import Task
from bus.ctx import Ctx
from bus.db import Connection, Row
from bus.errors import BusError, InvalidArgument
from bus.rules import task_transitions as rules
from bus.rules import validation
from bus.tenancy import members


@dataclass(frozen=True, slots=True)
class TaskStatus:
    """A task after a verb."""

    task_id: int
    status: str
    unread: int


@dataclass(frozen=True, slots=True)
class Assigned:
    """A task after it was assigned; `owner` is a qualified name."""

    task_id: int
    owner: str
    status: str
    unread: int


@dataclass(frozen=True, slots=True)
class Shipped:
    """A task that is done; `unblocked` lists the tasks that were freed or became ready by it."""

    task_id: int
    status: str
    unblocked: list[int]
    unread: int


@dataclass(frozen=True, slots=True)
class TakenTask(Task):
    """The task that the caller has just started, with what there is to know about it."""

    detail: str | None


@dataclass(frozen=True, slots=True)
class Next:
    """The task that the caller has just started, or None where nothing is ready."""

    task: TakenTask | None
    unread: int


@dataclass(frozen=True, slots=True)
class _Row:
    id: int
    status: str
    participation_id: int | None
    owner: str | None
    open_blockers: int


def _get(verb: Verb, task_id: int) -> _Row:
    validation.integer(task_id, "task_id", 1, limits.MAX_INTEGER)
    row = verb.conn.maybe(
        "SELECT id, status, participation_id, owner, open_blockers FROM task WHERE project_id = %s AND id = %s",
        (verb.project_id, task_id),
    )
    if row is None:
        raise BusError("not_found", f"There is no task {task_id}; list_tasks shows what there is.")
    return _Row(*row)


def _check_may_work_on(verb: Verb, task: _Row) -> None:
    if task.participation_id not in (None, verb.ctx.participation_id) and not verb.is_admin:
        raise BusError(
            "forbidden",
            f"Task {task.id} is {task.owner}'s; ask them, or have it assigned to you with task_assign.",
        )


def _set(verb: Verb, task_id: int, **values: Any) -> None:
    assignments = ", ".join(f"{name} = %({name})s" for name in values)
    verb.conn.maybe(
        f"UPDATE task SET {assignments}, updated_at = clock_timestamp()"
        " WHERE project_id = %(project_id)s AND id = %(id)s RETURNING id",
        {**values, "project_id": verb.project_id, "id": task_id},
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
    validation.words(title, "title", limits.TITLE)
    if detail is not None:
        validation.words(detail, "detail", limits.DETAIL)
    if lane is not None:
        lane = validation.name(lane, "lane")
    if owner is not None:
        validation.qualified(owner, "owner")
    validation.integer(priority, "priority", 0, 4)
    waits_for = list(dict.fromkeys(blocked_on))
    if len(waits_for) > limits.BLOCKERS:
        raise InvalidArgument(f"blocked_on takes at most {limits.BLOCKERS} tasks.")
    for other in waits_for:
        validation.integer(other, "blocked_on", 1, limits.MAX_INTEGER)
    key, fingerprint = key_and_fingerprint(
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
        (stored, unread) = conn.one(
            "SELECT bus_remembered(c.project_id, %(me)s, %(key)s, %(fingerprint)s),"
            " bus_unread(c.project_id, %(me)s) FROM bus_enter(%(me)s, %(token)s, true) c",
            {"me": ctx.participation_id, "token": ctx.token_id, "key": key, "fingerprint": fingerprint},
        )
        if stored is not None:
            return TaskStatus(stored["task_id"], stored["status"], unread)
    verb = Verb(conn, ctx)
    assignee = None if owner is None else members.get(conn, verb.project_id, owner, "owner")
    open_ones = task_blockers.list_unfinished(verb, waits_for)
    (task_id,) = conn.one(
        "UPDATE project_clock SET last_task = last_task + 1 WHERE project_id = %s RETURNING last_task",
        (verb.project_id,),
    )
    status = "open" if assignee is None else "assigned"
    owner_name = None if assignee is None else assignee.actor
    conn.maybe(
        "INSERT INTO task (project_id, id, title, detail, lane, participation_id, owner, status, priority,"
        " open_blockers, created_by, created_at, updated_at)"
        " VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, clock_timestamp(), clock_timestamp()) RETURNING id",
        (
            verb.project_id,
            task_id,
            title,
            detail,
            lane,
            None if assignee is None else assignee.participation_id,
            owner_name,
            status,
            priority,
            len(open_ones),
            verb.actor,
        ),
    )
    for other in open_ones:
        task_blockers.add(verb, task_id, other, None)
    verb.event(
        "task_create",
        task_id=task_id,
        title=title,
        lane=lane,
        owner=owner_name,
        priority=priority,
        blocked_on=open_ones,
    )
    if key is not None:
        conn.maybe(
            "SELECT bus_remember(%s, %s, %s, %s)",
            (verb.project_id, ctx.participation_id, key, Jsonb({"task_id": task_id, "status": status})),
        )
    return TaskStatus(task_id, status, verb.finish())


def assign(conn: Connection, ctx: Ctx, task_id: int, owner: str) -> Assigned:
    """Give an open or assigned task to a participant; anyone may. Assigning it to its owner again adds no event.

    Raises:
        BusError: `not_found`, `unknown_recipient`, `wrong_state`.
    Locks: the project clock.
    """
    verb = Verb(conn, ctx)
    task = _get(verb, task_id)
    assignee = members.get(conn, verb.project_id, owner, "owner")
    status = rules.after("assign", task.status)
    if (status, assignee.participation_id) != (task.status, task.participation_id):
        _set(verb, task_id, status=status, participation_id=assignee.participation_id, owner=assignee.actor)
        verb.event("task_assign", task_id=task_id, owner=assignee.actor)
    return Assigned(task_id, assignee.actor, status, verb.finish())


def start(conn: Connection, ctx: Ctx, task_id: int) -> TaskStatus:
    """Start an assigned task, or take an open one. The assignee or a project-admin may.

    Raises:
        BusError: `not_found`, `forbidden`, `wrong_state` (also while it has open blockers).
    Locks: the project clock.
    """
    verb = Verb(conn, ctx)
    task = _get(verb, task_id)
    status = rules.after("start", task.status, task.open_blockers)
    _check_may_work_on(verb, task)
    _begin(verb, task, status)
    return TaskStatus(task_id, status, verb.finish())


def take_next(conn: Connection, ctx: Ctx, *, lane: str | None = None) -> Next:
    """Start the first task that is ready for the caller, by priority and then age; None where there is none.

    Args:
        lane: only tasks of this lane.
    Locks: the project clock.
    """
    if lane is not None:
        lane = validation.name(lane, "lane")
    verb = Verb(conn, ctx)
    row = _first_ready(verb, lane)
    if row is None:
        return Next(None, verb.finish())
    found = _Row(*row[:5])
    title, task_lane, priority, detail = row[5:]
    status = rules.after("start", found.status)
    _begin(verb, found, status)
    owner = found.owner or verb.actor
    return Next(TakenTask(found.id, title, task_lane, owner, status, [], priority, detail), verb.finish())


def offer(conn: Connection, ctx: Ctx, seconds: float) -> Next:
    """The first task that is ready for the caller and offered to nobody; it stays as it is.

    For so many seconds it is offered to nobody else, so that of many who wait one is told. An offer binds nobody:
    task_start and task_next do not ask for it, and it adds no event.

    Locks: the project clock.
    """
    verb = Verb(conn, ctx)
    row = _first_ready(verb, None, unoffered=True)
    if row is None:
        return Next(None, verb.finish())
    task_id, status, _, owner, _, title, lane, priority, detail = row
    verb.conn.maybe(
        "UPDATE task SET offered_until = clock_timestamp() + make_interval(secs => %s)"
        " WHERE project_id = %s AND id = %s RETURNING 1",
        (seconds, verb.project_id, task_id),
    )
    return Next(TakenTask(task_id, title, lane, owner, status, [], priority, detail), verb.finish())


def _first_ready(verb: Verb, lane: str | None, *, unoffered: bool = False) -> Row | None:
    offered = " AND (offered_until IS NULL OR offered_until <= clock_timestamp())" if unoffered else ""
    return verb.conn.maybe(
        "SELECT id, status, participation_id, owner, open_blockers, title, lane, priority, detail FROM task"
        " WHERE project_id = %(project)s AND status IN ('open', 'assigned') AND open_blockers = 0"
        " AND (participation_id IS NULL OR participation_id = %(me)s)"
        f" AND (%(lane)s::text IS NULL OR lane = %(lane)s){offered} ORDER BY priority, id LIMIT 1",
        {"project": verb.project_id, "me": verb.ctx.participation_id, "lane": lane},
    )


def block(conn: Connection, ctx: Ctx, task_id: int, reason: str, *, on: int | None = None) -> TaskStatus:
    """Say that a task in progress cannot go on, and on which task it waits. The assignee or a project-admin may.

    Raises:
        BusError: `not_found`, `forbidden`, `wrong_state` (also when `on` is done), `conflict` when it would make
            a task wait for itself.
    Locks: the project clock.
    """
    validation.words(reason, "reason", limits.REASON)
    verb = Verb(conn, ctx)
    task = _get(verb, task_id)
    status = rules.after("block", task.status)
    _check_may_work_on(verb, task)
    if on is not None:
        validation.integer(on, "on", 1, limits.MAX_INTEGER)
        blocking = _get(verb, on)
        if rules.would_cycle(task_blockers.get_open_edges(verb, on), task_id, on):
            raise BusError(
                "conflict",
                f"Task {on} waits for task {task_id} already, so neither could ever start; resolve that first.",
            )
        if blocking.status == "done":
            raise BusError("wrong_state", f"Task {on} is done, so there is nothing to wait for; go on.", status="done")
    task_blockers.add(verb, task_id, on, reason)
    _set(verb, task_id, status=status, open_blockers=1)
    verb.event("task_block", task_id=task_id, reason=reason, on=on)
    return TaskStatus(task_id, status, verb.finish())


def resolve(conn: Connection, ctx: Ctx, task_id: int, *, blocker: int | None = None) -> TaskStatus:
    """Say that a blocker is gone; anyone may. When the last one goes, a blocked task is in progress again.

    Args:
        blocker: the task it waited for, as `on` in list_tasks; None resolves every open blocker.
    Raises:
        BusError: `not_found` (also when it does not wait for `blocker`), `wrong_state`.
    Locks: the project clock.
    """
    verb = Verb(conn, ctx)
    task = _get(verb, task_id)
    if blocker is not None:
        validation.integer(blocker, "blocker", 1, limits.MAX_INTEGER)
    # The state machine speaks first: a task that waits for nothing is told so.
    rules.after("resolve", task.status, task.open_blockers)
    if task.open_blockers == 0:
        raise BusError(
            "wrong_state", f"Task {task_id} has no open blockers; start it when you like.", status=task.status
        )
    gone = task_blockers.resolve(verb, task_id, blocker)
    if not gone:
        raise BusError("not_found", f"Task {task_id} does not wait for task {blocker}; list_tasks shows its blockers.")
    left = task.open_blockers - gone
    status = rules.after("resolve", task.status, left)
    _set(verb, task_id, status=status, open_blockers=left)
    verb.event("task_resolve", task_id=task_id, blocker=blocker, status=status)
    return TaskStatus(task_id, status, verb.finish())


def ship(conn: Connection, ctx: Ctx, task_id: int, *, ref: str | None = None) -> Shipped:
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
        ref = validation.name(ref, "ref", limits.REF)
    verb = Verb(conn, ctx)
    task = _get(verb, task_id)
    status = rules.after("ship", task.status)
    _check_may_work_on(verb, task)
    _set(verb, task_id, status=status, ref=ref)
    moved = task_blockers.resolve_all_on(verb, task_id)
    unblocked = sorted(other for other, _, left in moved if left == 0)
    verb.event("task_ship", task_id=task_id, ref=ref, unblocked=unblocked)
    for other, other_status, left in sorted(moved):
        if left == 0 and other_status == "in_progress":
            verb.event("task_resolve", task_id=other, blocker=task_id, status=other_status)
    return Shipped(task_id, status, unblocked, verb.finish())


def _begin(verb: Verb, task: _Row, status: str) -> None:
    if task.participation_id is None:
        _set(verb, task.id, status=status, participation_id=verb.ctx.participation_id, owner=verb.actor)
    else:
        _set(verb, task.id, status=status)
    verb.event("task_start", task_id=task.id, owner=task.owner or verb.actor)
