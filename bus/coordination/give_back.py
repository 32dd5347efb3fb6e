"""What a call has taken is given back if its answer did not reach the client.

Each function undoes one kind of taking, and does nothing where another call has changed the same since. None of them
authenticates: a participation that was removed meanwhile must not keep a task that it never learned of.
"""

from dataclasses import dataclass
from datetime import datetime

from bus.coordination.transactions import SystemTransaction
from bus.ctx import Ctx
from bus.db import Connection
from bus.rules import task_transitions


@dataclass(frozen=True, slots=True)
class TakenTask:
    """A task that a call started.

    Attributes:
        updated_at: when; a later change of the task is another call's.
        assigned_to: the assignee before the start, as its participation; None if the task was open.
    """

    task_id: int
    actor: str
    updated_at: datetime
    assigned_to: int | None


@dataclass(frozen=True, slots=True)
class TaskOffer:
    """A task that a call was offered, and until when no other call is."""

    task_id: int
    offered_until: datetime


@dataclass(frozen=True, slots=True)
class CursorMove:
    """A move of a cursor past events that a call returned."""

    before: int
    after: int


def give_back_task(conn: Connection, ctx: Ctx, taken: TakenTask) -> bool:
    """Reopen a task that is still in progress as the call left it; return whether it was.

    It is recorded as `task_requeue`, and for a task that had been assigned to the caller as `task_assign` after it.

    Locks: the project clock.
    """
    transaction = SystemTransaction(conn, ctx.project_id)
    if transaction.is_closed:
        return False
    status = task_transitions.next_status("requeue", "in_progress")
    if taken.assigned_to is not None:
        status = task_transitions.next_status("assign", status)
    is_assigned = taken.assigned_to is not None
    changed = conn.execute(
        "UPDATE task SET status = %(status)s, offered_until = NULL, session_key = NULL, updated_at = clock_timestamp(),"
        " participation_id = CASE WHEN %(assigned)s THEN participation_id END,"
        " owner = CASE WHEN %(assigned)s THEN owner END"
        " WHERE project_id = %(project)s AND id = %(task)s AND status = 'in_progress'"
        " AND participation_id = %(me)s AND updated_at = %(updated_at)s",
        {
            "status": status,
            "assigned": is_assigned,
            "project": ctx.project_id,
            "task": taken.task_id,
            "me": ctx.participation_id,
            "updated_at": taken.updated_at,
        },
    )
    if not changed:
        return False
    event = {"task_id": taken.task_id, "owner": taken.actor}
    transaction.record_event(ctx.participation_id, taken.actor, "task_requeue", **event)
    if is_assigned:
        transaction.record_event(ctx.participation_id, taken.actor, "task_assign", **event)
    transaction.finish("tasks")
    return True


def withdraw_offer(conn: Connection, ctx: Ctx, offer: TaskOffer) -> None:
    """Let the task be offered to other calls at once."""
    conn.execute(
        "UPDATE task SET offered_until = NULL WHERE project_id = %s AND id = %s AND offered_until = %s",
        (ctx.project_id, offer.task_id, offer.offered_until),
    )
    conn.notify_on_commit(ctx.project_id, "tasks")


def move_ack_cursor_back(conn: Connection, ctx: Ctx, move: CursorMove) -> None:
    """Report the acks to the session again, unless a later call of it has reported more."""
    if ctx.session is None:
        conn.execute(
            "UPDATE ack_cursor SET seq = %s WHERE project_id = %s AND participation_id = %s AND seq = %s",
            (move.before, ctx.project_id, ctx.participation_id, move.after),
        )
    else:
        conn.execute(
            "UPDATE session_cursor SET ack_seq = %s"
            " WHERE project_id = %s AND participation_id = %s AND key = %s AND ack_seq = %s",
            (move.before, ctx.project_id, ctx.participation_id, ctx.session, move.after),
        )
    conn.notify_on_commit(ctx.project_id, "acks")


def move_digest_cursor_back(conn: Connection, ctx: Ctx, move: CursorMove) -> None:
    """Return the events in the next digest of the session again, unless a later call of it has read on."""
    if ctx.session is not None:
        conn.execute(
            "UPDATE session_cursor SET seq = %s"
            " WHERE project_id = %s AND participation_id = %s AND key = %s AND seq = %s",
            (move.before, ctx.project_id, ctx.participation_id, ctx.session, move.after),
        )
        return
    conn.execute(
        "UPDATE cursor SET seq = %s WHERE project_id = %s AND participation_id = %s AND seq = %s",
        (move.before, ctx.project_id, ctx.participation_id, move.after),
    )


def leave_queue(conn: Connection, ctx: Ctx, queue_position: int) -> None:
    """Give up a turn in the queue for a surface, so that the next in the queue has it at once."""
    conn.execute("DELETE FROM waiter WHERE project_id = %s AND id = %s", (ctx.project_id, queue_position))
    conn.notify_on_commit(ctx.project_id, "leases")


def withdraw_post_offers(conn: Connection, ctx: Ctx, post_ids: list[int]) -> None:
    """Let posts that woke the session wake it or another session of its participation at once."""
    if ctx.session is not None:
        conn.execute(
            "DELETE FROM session_post"
            " WHERE project_id = %s AND participation_id = %s AND key = %s AND post_id = ANY (%s)",
            (ctx.project_id, ctx.participation_id, ctx.session, sorted(post_ids)),
        )
        conn.execute(
            "UPDATE delivery SET offered_until = NULL, offered_session = NULL"
            " WHERE project_id = %s AND participation_id = %s AND post_id = ANY (%s) AND offered_session = %s",
            (ctx.project_id, ctx.participation_id, sorted(post_ids), ctx.session),
        )
        conn.notify_on_commit(ctx.project_id, "inbox")


def unmark_surfaced(conn: Connection, ctx: Ctx, post_ids: list[int]) -> None:
    """Record that posts were not shown to the caller after all; another session of it may have been shown them."""
    params = {"project": ctx.project_id, "me": ctx.participation_id, "session": ctx.session, "posts": sorted(post_ids)}
    if ctx.session is not None:
        conn.execute(
            "DELETE FROM session_post WHERE project_id = %(project)s AND participation_id = %(me)s"
            " AND key = %(session)s AND post_id = ANY (%(posts)s)",
            params,
        )
    conn.execute(
        "WITH unmarked AS ("
        " UPDATE delivery d SET surfaced_at = NULL WHERE d.project_id = %(project)s AND d.participation_id = %(me)s"
        " AND d.post_id = ANY (%(posts)s) AND d.surfaced_at IS NOT NULL AND d.acked_at IS NULL"
        " AND NOT EXISTS (SELECT FROM session_post s WHERE s.project_id = d.project_id"
        "  AND s.participation_id = d.participation_id AND s.post_id = d.post_id)"
        " RETURNING d.post_id)"
        " DELETE FROM seen_delivery v USING unmarked u"
        " WHERE v.project_id = %(project)s AND v.participation_id = %(me)s AND v.post_id = u.post_id",
        params,
    )
