"""Tools of tasks: task_create, task_assign, task_start, task_block, task_resolve, task_ship, task_next, list_tasks."""

from typing import Annotated

from msgspec import Meta

from bus import limits
from bus.coordination import task_queries, tasks
from bus.ctx import Ctx
from bus.db import Connection
from bus.rules.enums import TaskStatus
from mcp_gateway.tool_registry import tool
from mcp_gateway.tools.arguments import Actor, BeforeId, Id, IdempotencyKey, Lane, Ref, SearchText


@tool(transaction=True, notifies="tasks ledger")
def task_create(
    conn: Connection,
    ctx: Ctx,
    title: Annotated[str, Meta(min_length=1, max_length=limits.MAX_TITLE_LENGTH)],
    detail: Annotated[str, Meta(min_length=1, max_length=limits.MAX_DETAIL_LENGTH)] | None = None,
    lane: Lane | None = None,
    owner: Actor | None = None,
    priority: Annotated[int, Meta(ge=0, le=4, description="0 is first")] = 2,
    blocked_on: Annotated[list[Id], Meta(max_length=limits.MAX_BLOCKERS)] | None = None,
    idempotency_key: IdempotencyKey | None = None,
) -> tasks.TaskStatus:
    """Create a task, with the tasks that it must wait for."""
    return tasks.create(
        conn,
        ctx,
        title,
        detail=detail,
        lane=lane,
        owner=owner,
        priority=priority,
        blocked_on=blocked_on or (),
        idempotency_key=idempotency_key,
    )


@tool(transaction=True, idempotent=True, notifies="tasks ledger")
def task_assign(conn: Connection, ctx: Ctx, task_id: Id, owner: Actor) -> tasks.TaskAssignment:
    """Assign an open or assigned task to a participant."""
    return tasks.assign(conn, ctx, task_id, owner)


@tool(transaction=True, notifies="tasks ledger")
def task_start(conn: Connection, ctx: Ctx, task_id: Id) -> tasks.TaskStatus:
    """Start a task that is assigned to you, or take and start an open one."""
    return tasks.start(conn, ctx, task_id)


@tool(transaction=True, notifies="tasks ledger")
def task_block(
    conn: Connection,
    ctx: Ctx,
    task_id: Id,
    reason: Annotated[str, Meta(min_length=1, max_length=limits.MAX_REASON_LENGTH)],
    on: Id | None = None,
) -> tasks.TaskStatus:
    """Block your task, with the reason and the task that it waits for."""
    return tasks.block(conn, ctx, task_id, reason, on=on)


@tool(transaction=True, notifies="tasks ledger")
def task_resolve(
    conn: Connection,
    ctx: Ctx,
    task_id: Id,
    blocker: Annotated[int, Meta(ge=1, le=limits.MAX_INTEGER, description="Task it waited for; default all")]
    | None = None,
) -> tasks.TaskStatus:
    """Resolve the blockers of a task, or one of them; without blockers the task continues."""
    return tasks.resolve(conn, ctx, task_id, blocker=blocker)


@tool(transaction=True, notifies="tasks ledger")
def task_ship(conn: Connection, ctx: Ctx, task_id: Id, ref: Ref | None = None) -> tasks.ShippedTask:
    """Ship your finished task, with a ref to the result; tasks that waited for it continue."""
    return tasks.ship(conn, ctx, task_id, ref=ref)


@tool(transaction=True, notifies="tasks ledger")
def task_next(conn: Connection, ctx: Ctx, lane: Lane | None = None) -> tasks.NextTask:
    """Take and start the next ready task, by priority and age; task is null if there is none."""
    return tasks.start_next(conn, ctx, lane=lane)


@tool(read_only=True)
def list_tasks(
    conn: Connection,
    ctx: Ctx,
    status: TaskStatus | None = None,
    owner: Actor | None = None,
    lane: Lane | None = None,
    ready: bool | None = None,
    text: SearchText | None = None,
    before: BeforeId | None = None,
    limit: Annotated[int, Meta(ge=1, le=200)] = 50,
) -> task_queries.TaskPage:
    """List tasks, newest first; ready=true lists those that can be started now."""
    return task_queries.list_tasks(
        conn, ctx, status=status, owner=owner, lane=lane, ready=ready, text=text, before=before, limit=limit
    )
