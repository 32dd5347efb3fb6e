"""The digest (whats_new): events after the caller's cursor, with the present counts."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from bus import limits
from bus.coordination.give_back import CursorMove
from bus.coordination.ledger import Event
from bus.ctx import Ctx
from bus.db import Connection
from bus.db.timestamps import from_epoch_milliseconds
from bus.rules import validation

MAX_UNCONDENSED_EVENTS = 20


@dataclass(frozen=True, slots=True)
class LeftOut:
    """Events of a digest that are counted and not listed.

    Attributes:
        own: the caller's own.
        inbox: posts that wait in the caller's inbox, which the digest counts and read_posts lists.
    """

    own: int = 0
    inbox: int = 0


@dataclass(frozen=True, slots=True)
class Digest:
    """Events after a point of the ledger, and the present state.

    Attributes:
        since_event_id: the events start after this one.
        events: oldest first; contiguous, unless the digest is condensed.
        unacked_posts, active_leases: counted up to 1,000.
        latest_claims: the last formatted number of the 50 most recently used sequences.
        cursor: the caller's cursor after this call.
        more: whether there are events after the last one read.
        cursor_move: the move of the cursor, to undo if the answer does not reach the client; None if there was none.
        left_out: None if the digest is not condensed.
    """

    since_event_id: int
    events: list[Event]
    unacked_posts: int
    active_leases: int
    latest_claims: dict[str, str]
    cursor: int
    more: bool
    cursor_move: CursorMove | None = None
    left_out: LeftOut | None = None


class _EventRow(msgspec.Struct, array_like=True):
    seq: int
    milliseconds: int
    actor: str
    type: str
    payload: dict[str, Any]
    # The label of the session, for an event of another session of the caller.
    mine: bool | str
    in_inbox: bool


_rows_decoder = msgspec.json.Decoder(list[_EventRow])


def read_digest(
    conn: Connection,
    ctx: Ctx,
    *,
    advance_cursor: bool = True,
    limit: int = 100,
    since: int | None = None,
    condense: bool = False,
) -> Digest:
    """Read the events after the caller's cursor, oldest first, and advance the cursor past them. It never goes back.

    Args:
        advance_cursor: False reads without advancing.
        limit: 1 to 500 events.
        since: read after this event instead, without advancing.
        condense: leave out what the caller knows: its own events, which are counted. Of more than
            MAX_UNCONDENSED_EVENTS also posts that wait in its inbox, and all but the last ack of each participant,
            whose payload then names every post in `post_ids`. A read with `since` is never condensed, so it returns
            what was left out.
    Locks: the cursor (bus_whats_new in sql/digest.sql). Concurrent calls of one session, or of one identity without
        sessions, are serialised and get contiguous runs of events.
    """
    validation.integer(limit, "limit", 1, 500)
    if since is not None:
        validation.integer(since, "since", 0, limits.MAX_INTEGER)
    since_event_id, cursor, last_seq, events_json, unacked_posts, active_leases, latest_claims = conn.fetch_one(
        "SELECT * FROM bus_whats_new(%s, %s, %s, %s, %s, %s)",
        (ctx.participation_id, ctx.token_id, advance_cursor, limit, since, ctx.session),
    )
    rows = _rows_decoder.decode(events_json)
    last_read = rows[-1].seq if rows else since_event_id
    left_out = None
    if condense and since is None:
        rows, left_out = _condense(rows)
    return Digest(
        since_event_id=since_event_id,
        events=[_build_event(row) for row in rows],
        unacked_posts=unacked_posts,
        active_leases=active_leases,
        latest_claims=latest_claims,
        cursor=cursor,
        more=last_seq > last_read,
        cursor_move=CursorMove(since_event_id, cursor)
        if since is None and advance_cursor and cursor > since_event_id
        else None,
        left_out=left_out,
    )


def _condense(rows: Sequence[_EventRow]) -> tuple[list[_EventRow], LeftOut]:
    listed = [row for row in rows if row.mine is not True]
    own_count = len(rows) - len(listed)
    if len(listed) <= MAX_UNCONDENSED_EVENTS:
        return listed, LeftOut(own=own_count)
    outside_inbox = [row for row in listed if not row.in_inbox]
    return list(_merge_acks(outside_inbox)), LeftOut(own=own_count, inbox=len(listed) - len(outside_inbox))


def _merge_acks(rows: Iterable[_EventRow]) -> Iterable[_EventRow]:
    """Replace the acks of each participant, or of each session, by the last one, which names all of the posts."""
    rows = list(rows)
    acked: dict[tuple[str, bool | str], list[int]] = {}
    last_ack: dict[tuple[str, bool | str], int] = {}
    for row in rows:
        if row.type == "ack":
            acked.setdefault((row.actor, row.mine), []).append(row.payload["post_id"])
            last_ack[row.actor, row.mine] = row.seq
    for row in rows:
        acker = (row.actor, row.mine)
        if row.type != "ack":
            yield row
        elif last_ack[acker] == row.seq:
            if len(acked[acker]) > 1:
                row.payload["post_ids"] = acked[acker]
            yield row


def _build_event(row: _EventRow) -> Event:
    return Event(
        id=row.seq,
        ts=from_epoch_milliseconds(row.milliseconds),
        actor=row.actor,
        type=row.type,
        payload=row.payload,
        mine=row.mine is True,
        session=row.mine if isinstance(row.mine, str) else None,
    )
