"""whats_new: what happened since the caller last asked, and the state that goes with it."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from bus import limits
from bus.coordination.ledger import Event
from bus.ctx import Ctx
from bus.db import Connection
from bus.rules import validation

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Digest:
    """The events after a point of the ledger, and what is open now.

    Attributes:
        since_event_id: the events start after this one.
        events: oldest first, a contiguous run.
        unacked_posts, active_leases: counted up to 1,000.
        latest_claims: the last formatted number of the 50 most recently used sequences.
        cursor: where the caller's cursor stands after this call.
        more: whether there are events behind the last one returned.
    """

    since_event_id: int
    events: list[Event]
    unacked_posts: int
    active_leases: int
    latest_claims: dict[str, str]
    cursor: int
    more: bool


def read_digest(
    conn: Connection, ctx: Ctx, *, advance_cursor: bool = True, limit: int = 100, since: int | None = None
) -> Digest:
    """Events after the caller's cursor, oldest first; moves the cursor past what is returned, never back.

    Args:
        advance_cursor: False looks without moving.
        limit: 1 to 500 events.
        since: read after this event instead; moves nothing.
    Locks: the cursor (bus_whats_new in sql/digest.sql). Callers that share an identity are served one after
        another and get contiguous runs.
    """
    validation.integer(limit, "limit", 1, 500)
    if since is not None:
        validation.integer(since, "since", 0, limits.MAX_INTEGER)
    started_at, cursor, last_seq, rows, unacked, leases, claims = conn.fetch_one(
        "SELECT * FROM bus_whats_new(%s, %s, %s, %s, %s)",
        (ctx.participation_id, ctx.token_id, advance_cursor, limit, since),
    )
    events = [
        Event(seq, _EPOCH + timedelta(milliseconds=ms), actor, kind, payload, mine)
        for seq, ms, actor, kind, payload, mine in rows
    ]
    read_to = events[-1].id if events else started_at
    return Digest(started_at, events, unacked, leases, claims, cursor, last_seq > read_to)
