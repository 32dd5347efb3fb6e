"""The digest (whats_new): events after the caller's cursor, with the present counts."""

from dataclasses import dataclass

from bus import limits
from bus.coordination.give_back import CursorMove
from bus.coordination.ledger import Event
from bus.ctx import Ctx
from bus.db import Connection
from bus.db.timestamps import from_epoch_milliseconds
from bus.rules import validation


@dataclass(frozen=True, slots=True)
class Digest:
    """Events after a point of the ledger, and the present state.

    Attributes:
        since_event_id: the events start after this one.
        events: oldest first, contiguous.
        unacked_posts, active_leases: counted up to 1,000.
        latest_claims: the last formatted number of the 50 most recently used sequences.
        cursor: the caller's cursor after this call.
        more: whether there are events after the last one returned.
        cursor_move: the move of the cursor, to undo if the answer does not reach the client; None if there was none.
    """

    since_event_id: int
    events: list[Event]
    unacked_posts: int
    active_leases: int
    latest_claims: dict[str, str]
    cursor: int
    more: bool
    cursor_move: CursorMove | None = None


def read_digest(
    conn: Connection, ctx: Ctx, *, advance_cursor: bool = True, limit: int = 100, since: int | None = None
) -> Digest:
    """Read the events after the caller's cursor, oldest first, and advance the cursor past them. It never goes back.

    Args:
        advance_cursor: False reads without advancing.
        limit: 1 to 500 events.
        since: read after this event instead, without advancing.
    Locks: the cursor (bus_whats_new in sql/digest.sql). Concurrent calls of one session, or of one identity without
        sessions, are serialised and get contiguous runs of events.
    """
    validation.integer(limit, "limit", 1, 500)
    if since is not None:
        validation.integer(since, "since", 0, limits.MAX_INTEGER)
    since_event_id, cursor, last_seq, rows, unacked_posts, active_leases, latest_claims = conn.fetch_one(
        "SELECT * FROM bus_whats_new(%s, %s, %s, %s, %s, %s)",
        (ctx.participation_id, ctx.token_id, advance_cursor, limit, since, ctx.session),
    )
    events = [
        Event(
            id=seq,
            ts=from_epoch_milliseconds(milliseconds),
            actor=actor,
            type=event_type,
            payload=payload,
            mine=mine is True,
            session=mine if isinstance(mine, str) else None,
        )
        for seq, milliseconds, actor, event_type, payload, mine in rows
    ]
    last_read = events[-1].id if events else since_event_id
    return Digest(
        since_event_id=since_event_id,
        events=events,
        unacked_posts=unacked_posts,
        active_leases=active_leases,
        latest_claims=latest_claims,
        cursor=cursor,
        more=last_seq > last_read,
        cursor_move=CursorMove(since_event_id, cursor)
        if since is None and advance_cursor and cursor > since_event_id
        else None,
    )
