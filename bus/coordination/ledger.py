"""The ledger: one append-only record of events per project. This module searches it.

Events are numbered and appended by bus/coordination/sql/event_numbering.sql.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from bus import limits
from bus.ctx import Ctx
from bus.db import Connection
from bus.db.pagination import paginate
from bus.errors import InvalidArgument
from bus.rules import validation
from bus.rules.enums import EVENT_TYPES
from bus.tenancy import participants
from bus.tenancy.authentication import fetch_as_caller


@dataclass(frozen=True, slots=True)
class Event:
    """One entry of the ledger.

    Attributes:
        id: its number in the project: 1, 2, 3… without gaps, in commit order.
        mine: whether the caller wrote it, also under a former name.
        session: the label of the session that wrote it, if that is another session of the caller's participation.
    """

    id: int
    ts: datetime
    actor: str
    type: str
    payload: dict[str, Any]
    mine: bool
    session: str | None = None


@dataclass(frozen=True, slots=True)
class EventPage:
    """A page of events, newest first; `next_before` asks for the next page."""

    events: list[Event]
    next_before: int | None
    unread: int


def query_events(
    conn: Connection,
    ctx: Ctx,
    *,
    actor: str | None = None,
    type: str | None = None,  # noqa: A002 - the name that agents know
    sequence: str | None = None,
    number: int | None = None,
    ref: str | None = None,
    tag: str | None = None,
    since: str | None = None,
    until: str | None = None,
    last_n: int | None = None,
    limit: int = 100,
    before: int | None = None,
) -> EventPage:
    """Return the events that match every filter exactly, newest first.

    Each filter alone, and each together with `type`, costs in proportion to its result. Other combinations read
    every match of the narrowest filter and are cut off by the statement timeout.

    Args:
        actor: the writer, by a present or former name.
        ref, tag: those of posts and shipped tasks.
        since, until: ISO 8601 times with an offset, inclusive.
        last_n: another name for `limit`, from the original service.
        limit: 1 to 1000.
        before: an event id; only older events.
    Raises:
        BusError: `invalid_argument`, `unknown_recipient`; `unavailable` at the statement timeout.
    """
    page_size = validation.integer(
        limit if last_n is None else last_n, "limit" if last_n is None else "last_n", 1, 1000
    )
    if type is not None and type not in EVENT_TYPES:
        raise InvalidArgument(f"type must be one of: {', '.join(EVENT_TYPES)}.")
    filters: dict[str, Any] = {}
    if number is not None:
        filters["number"] = validation.integer(number, "number", 0, limits.MAX_INTEGER)
    if sequence is not None:
        filters["sequence"] = validation.sequence_name(sequence)
    if ref is not None:
        filters["ref"] = validation.name(ref, "ref", limits.MAX_REF_LENGTH)
    if tag is not None:
        filters["tag"] = validation.name(tag, "tag")
    if before is not None:
        validation.integer(before, "before", 1, limits.MAX_INTEGER)
    times = {"since": validation.timestamp(since, "since"), "until": validation.timestamp(until, "until")}
    if actor is not None:
        filters["actor"] = participants.get_participation_id(conn, ctx, actor, "actor")
    unread, rows = fetch_as_caller(
        conn,
        ctx,
        _build_query(filters, type, _EVENT_COLUMNS_SQL + (_NO_SESSION_SQL if ctx.session is None else _SESSION_SQL)),
        "r.seq DESC",
        type=type,
        session=ctx.session,
        **dict.fromkeys(_EVENT_TYPES_BY_FILTER) | filters,
        **times,
        before=before or limits.MAX_INTEGER,
        limit=page_size + 1,
    )
    page, has_more = paginate(rows, page_size)
    events = [
        Event(
            id=seq,
            ts=at,
            actor=event_actor,
            type=event_type,
            payload=payload,
            mine=participation_id == ctx.participation_id and other_session is None,
            session=other_session,
        )
        for seq, at, event_actor, event_type, payload, participation_id, other_session in page
    ]
    return EventPage(events=events, next_before=events[-1].id if has_more else None, unread=unread)


def list_task_history(
    conn: Connection, ctx: Ctx, task_id: int, *, before: int | None = None, limit: int = 50
) -> EventPage:
    """List the events of a task, newest first. Events that were imported name no task."""
    unread, rows = fetch_as_caller(
        conn,
        ctx,
        f"SELECT {_EVENT_COLUMNS_SQL}{_NO_SESSION_SQL} FROM event e WHERE e.project_id = %(project)s"
        " AND (e.payload ->> 'task_id') IS NOT NULL AND (e.payload ->> 'task_id')::bigint = %(task)s"
        " AND e.seq < %(before)s ORDER BY e.seq DESC LIMIT %(limit)s",
        "r.seq DESC",
        task=validation.integer(task_id, "task_id", 1, limits.MAX_INTEGER),
        before=before or limits.MAX_INTEGER,
        limit=limit + 1,
    )
    page, has_more = paginate(rows, limit)
    events = [
        Event(id=seq, ts=at, actor=actor, type=type_, payload=payload, mine=participation_id == ctx.participation_id)
        for seq, at, actor, type_, payload, participation_id, _ in page
    ]
    return EventPage(events=events, next_before=events[-1].id if has_more else None, unread=unread)


# The types of event that carry a filtered value. Each type is an index range of its own; see _build_query().
# Ordered from the narrowest filter to the widest.
_EVENT_TYPES_BY_FILTER = {
    "number": ("claim",),
    "sequence": ("claim", "seed"),
    "ref": ("post", "task_ship"),
    "tag": ("post",),
    "actor": EVENT_TYPES,
}
_FILTER_CONDITIONS = {
    "number": "(e.payload ->> 'number')::bigint = %(number)s AND e.type = 'claim'",
    "sequence": "e.payload ->> 'sequence' = %(sequence)s AND e.type IN ('claim', 'seed')",
    "ref": "e.payload ->> 'ref' = %(ref)s",
    "tag": "e.payload ->> 'tag' = %(tag)s",
    "actor": "e.participation_id = %(actor)s",
}
_EVENT_COLUMNS_SQL = "e.seq, e.at, e.actor, e.type, e.payload, e.participation_id"
_NO_SESSION_SQL = ", NULL::text"
_SESSION_SQL = (
    ", CASE WHEN e.participation_id = %(me)s AND e.session_key <> %(session)s"
    " THEN bus_session_label(e.session_key) END AS other_session"
)


def _build_query(filters: dict[str, Any], event_type: str | None, columns: str) -> str:
    """Build SQL that reads one index range per type that can match, newest first, and merges the ranges.

    The indexes end in (type, seq), so each serves its filter alone and together with `type`. Without a type the
    ranges of all types that carry the filtered value are read, at most `limit` rows of each.
    """
    conditions = [
        "e.project_id = %(project)s",
        "e.seq < %(before)s",
        "e.seq >= CASE WHEN %(since)s::timestamptz IS NULL THEN 1 ELSE (SELECT bus_seq_at(%(project)s, %(since)s)) END",
        # `until` is inclusive; the resolution of PostgreSQL is one microsecond.
        "e.seq < CASE WHEN %(until)s::timestamptz IS NULL THEN 9007199254740991"
        " ELSE (SELECT bus_seq_at(%(project)s, %(until)s::timestamptz + interval '1 microsecond')) END",
        *(_FILTER_CONDITIONS[name] for name in filters),
    ]
    limit = "ORDER BY e.seq DESC LIMIT %(limit)s"
    if event_type is not None:
        where = " AND ".join([*conditions, "e.type = %(type)s"])
        return f"SELECT {columns} FROM event e WHERE {where} {limit}"
    where = " AND ".join(conditions)
    if not filters:
        return f"SELECT {columns} FROM event e WHERE {where} {limit}"
    narrowest = next(name for name in _EVENT_TYPES_BY_FILTER if name in filters)
    types = ", ".join(f"('{carrier}')" for carrier in _EVENT_TYPES_BY_FILTER[narrowest])
    return (
        f"SELECT e.* FROM (VALUES {types}) AS kind (type) CROSS JOIN LATERAL"
        f" (SELECT {columns} FROM event e WHERE {where} AND e.type = kind.type {limit}) AS e {limit}"
    )


def find_beginning(conn: Connection, project_id: int) -> datetime | None:
    """Return the time of the first event of a project, or None if there is none."""
    row = conn.fetch_one_or_none("SELECT at FROM event WHERE project_id = %s AND seq = 1", (project_id,))
    return None if row is None else row[0]
