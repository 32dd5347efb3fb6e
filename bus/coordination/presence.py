"""Presence: who is here, in which lane, doing what. Any call refreshes it."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from bus import limits
from bus.ctx import Ctx
from bus.db import Connection
from bus.rules import validation
from bus.tenancy.caller_queries import fetch_as_caller, paginate


@dataclass(frozen=True, slots=True)
class Registration:
    """The caller as it registered."""

    actor: str
    lane: str
    status: str
    registered_at: datetime
    unread: int


@dataclass(frozen=True, slots=True)
class ActiveParticipant:
    """Somebody who was seen within the window."""

    actor: str
    lane: str | None
    status: str
    last_seen: datetime


@dataclass(frozen=True, slots=True)
class ActiveParticipantPage:
    """A page of who is active, by name; `next_before` asks for the next page."""

    active: list[ActiveParticipant]
    next_before: str | None
    unread: int


def register(conn: Connection, ctx: Ctx, lane: str, *, status: str = "") -> Registration:
    """Say which lane the caller is in and what it does. Repeating it unchanged adds no event.

    Changing the lane withdraws what waited for the caller only because of the old one, and delivers the newest
    100 posts of the new one that nobody has acked.

    Locks: the project clock, then the caller's presence (bus_register in sql/presence.sql).
    """
    lane = validation.name(lane, "lane", limits.MAX_LABEL_LENGTH)
    validation.free_text(status, "status", limits.MAX_STATUS_LENGTH, 0)
    actor, registered_at, unread = conn.fetch_one(
        "SELECT * FROM bus_register(%s, %s, %s, %s)", (ctx.participation_id, ctx.token_id, lane, status)
    )
    return Registration(actor, lane, status, registered_at, unread)


def list_active(
    conn: Connection,
    ctx: Ctx,
    *,
    lane: str | None = None,
    within_seconds: int | None = None,
    before: str | None = None,
    limit: int = 200,
) -> ActiveParticipantPage:
    """Who was seen lately, by name. May lag by two seconds.

    Args:
        within_seconds: 1 to 86400; None takes the project's window. Less than 60 counts as 60.
        before: the `next_before` of the page before.
    """
    if lane is not None:
        lane = validation.name(lane, "lane", limits.MAX_LABEL_LENGTH)
    if within_seconds is not None:
        validation.integer(within_seconds, "within_seconds", 1, limits.MAX_DURATION_SECONDS)
    if before is not None:
        validation.name(before, "before", limits.MAX_QUALIFIED_NAME_LENGTH)
    validation.integer(limit, "limit", 1, 200)
    unread, rows = fetch_as_caller(
        conn,
        ctx,
        "SELECT * FROM ("
        "  SELECT bus_participation_name(p.id) AS actor, coalesce(pr.lane, p.lane) AS lane, pr.status, pr.last_seen"
        "  FROM presence pr JOIN participation p ON p.id = pr.participation_id"
        "  JOIN participant pt ON pt.id = p.participant_id JOIN project pj ON pj.id = pr.project_id"
        "  WHERE pr.project_id = %(project)s AND p.removed_at IS NULL AND pt.removed_at IS NULL"
        "    AND pr.last_seen > clock_timestamp() - make_interval(secs =>"
        "        greatest(coalesce(%(within)s::integer, pj.presence_window_seconds), 60))) AS seen"
        " WHERE (%(lane)s::text IS NULL OR seen.lane = %(lane)s) AND seen.actor > %(before)s"
        " ORDER BY seen.actor LIMIT %(limit)s",
        "r.actor",
        within=within_seconds,
        lane=lane,
        before=before or "",
        limit=limit + 1,
    )
    rows, next_before = paginate(rows, limit)
    return ActiveParticipantPage([ActiveParticipant(*row) for row in rows], next_before, unread)


def record_seen(conn: Connection, seconds_since_seen: Mapping[int, float]) -> None:
    """Note when participations were last seen, in one batch.

    Args:
        seen: for each participation how many seconds ago; ages, not times, since the host's clock may differ
            from PostgreSQL's. Never moves anyone back, never touches a lane.
    Locks: the presence rows, by ascending project and participation.
    """
    ids = sorted(seconds_since_seen)
    conn.execute(
        "INSERT INTO presence AS pr (project_id, participation_id, last_seen)"
        " SELECT p.project_id, p.id, clock_timestamp() - make_interval(secs => s.age)"
        " FROM unnest(%s::bigint[], %s::float8[]) AS s (id, age) JOIN participation p ON p.id = s.id"
        " WHERE p.removed_at IS NULL ORDER BY p.project_id, p.id"
        " ON CONFLICT ON CONSTRAINT presence_pkey DO UPDATE"
        " SET last_seen = greatest(pr.last_seen, excluded.last_seen),"
        # A sighting that is new brings back who was recorded as gone; one that comes late does not.
        " lapsed_at = CASE WHEN excluded.last_seen > pr.last_seen THEN NULL ELSE pr.lapsed_at END",
        (ids, [seconds_since_seen[one] for one in ids]),
    )
