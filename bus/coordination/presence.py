"""Presence: which participants are here, in which lane, with which status. Every call refreshes it."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from bus import limits
from bus.ctx import Ctx
from bus.db import Connection
from bus.db.pagination import paginate
from bus.rules import validation
from bus.tenancy.authentication import fetch_all_as_caller


@dataclass(frozen=True, slots=True)
class Registration:
    """The caller's registered lane and status."""

    actor: str
    lane: str
    status: str
    registered_at: datetime
    unread: int


@dataclass(frozen=True, slots=True)
class ActiveParticipant:
    """A participant that was seen within the window.

    Attributes:
        wake: how it can be woken now: `waiting`, `listening` or `hooks`; None if only at its next turn.
        sessions: its sessions within the window, those seen last first, at most 10; None if it names none.
    """

    actor: str
    lane: str | None
    status: str
    last_seen: datetime
    wake: str | None = None
    sessions: list[dict[str, Any]] | None = None


@dataclass(frozen=True, slots=True)
class ActiveParticipantPage:
    """A page of active participants, by name; `next_before` asks for the next page."""

    active: list[ActiveParticipant]
    next_before: str | None
    unread: int


def register(conn: Connection, ctx: Ctx, lane: str, *, status: str = "") -> Registration:
    """Set the caller's lane and status. Repeating it unchanged adds no event.

    A change of lane withdraws unacked posts that the caller received only through the old lane, and delivers the
    newest 100 unacked posts of the new one.

    Locks: the project clock, then the caller's presence (bus_register in sql/presence.sql).
    """
    lane = validation.name(lane, "lane", limits.MAX_LABEL_LENGTH)
    validation.free_text(status, "status", limits.MAX_STATUS_LENGTH, 0)
    actor, registered_at, unread = conn.fetch_one(
        "SELECT * FROM bus_register(%s, %s, %s, %s, %s)",
        (ctx.participation_id, ctx.token_id, lane, status, ctx.session),
    )
    return Registration(actor=actor, lane=lane, status=status, registered_at=registered_at, unread=unread)


def list_active(
    conn: Connection,
    ctx: Ctx,
    *,
    lane: str | None = None,
    within_seconds: int | None = None,
    before: str | None = None,
    limit: int = 200,
) -> ActiveParticipantPage:
    """List participants that were seen within a window, by name. May lag by two seconds.

    Args:
        within_seconds: the window, 1 to 86400; None takes the project's. Less than 60 counts as 60.
        before: the `next_before` of the page before.
        limit: 1 to 200.
    """
    if lane is not None:
        lane = validation.name(lane, "lane", limits.MAX_LABEL_LENGTH)
    if within_seconds is not None:
        validation.integer(within_seconds, "within_seconds", 1, limits.MAX_DURATION_SECONDS)
    if before is not None:
        validation.name(before, "before", limits.MAX_QUALIFIED_NAME_LENGTH)
    validation.integer(limit, "limit", 1, 200)
    unread, rows = fetch_all_as_caller(
        conn,
        ctx,
        ActiveParticipant,
        # Materialized: otherwise the planner may apply the filter by name to every participation of the service.
        "WITH seen AS MATERIALIZED ("
        "  SELECT bus_participation_name(p.id) AS actor, coalesce(pr.lane, p.lane) AS lane, pr.status, pr.last_seen,"
        "   bus_wake(greatest(pr.waiting_until, s.waiting_until), greatest(pr.listening_until, s.listening_until),"
        "    s.hooks_until) AS wake, s.sessions"
        "  FROM presence pr JOIN participation p ON p.id = pr.participation_id AND p.project_id = pr.project_id"
        "  JOIN participant pt ON pt.id = p.participant_id JOIN project pj ON pj.id = pr.project_id"
        f"  CROSS JOIN LATERAL ({_SESSIONS_SQL}) AS s"
        "  WHERE pr.project_id = %(project)s AND p.removed_at IS NULL AND pt.removed_at IS NULL"
        "    AND pr.last_seen > clock_timestamp() - make_interval(secs =>"
        "        greatest(coalesce(%(within)s::integer, pj.presence_window_seconds), 60)))"
        " SELECT seen.* FROM seen"
        " WHERE (%(lane)s::text IS NULL OR seen.lane = %(lane)s) AND seen.actor > %(before)s"
        " ORDER BY seen.actor LIMIT %(limit)s",
        "r.actor",
        within=within_seconds,
        lane=lane,
        before=before or "",
        limit=limit + 1,
    )
    page, has_more = paginate(rows, limit)
    return ActiveParticipantPage(active=list(page), next_before=page[-1].actor if has_more else None, unread=unread)


_SESSIONS_SQL = """
    SELECT max(a.waiting_until) AS waiting_until, max(a.listening_until) AS listening_until,
           max(a.hooks_until) AS hooks_until, jsonb_agg(jsonb_strip_nulls(jsonb_build_object(
               'session', bus_session_label(a.key), 'status', nullif(a.status, ''),
               'last_seen', to_char(a.last_seen AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'),
               'wake', bus_wake(a.waiting_until, a.listening_until, a.hooks_until)))
           ORDER BY a.last_seen DESC, a.key) AS sessions
    FROM (SELECT * FROM agent_session a
          WHERE a.project_id = pr.project_id AND a.participation_id = pr.participation_id AND a.ended_at IS NULL
            AND a.last_seen > clock_timestamp() - make_interval(secs =>
                greatest(coalesce(%(within)s::integer, pj.presence_window_seconds), 60))
          ORDER BY a.last_seen DESC, a.key LIMIT 10) AS a
"""


def record_seen(
    conn: Connection, seconds_since_seen: Mapping[int, float], clients: Mapping[int, str] | None = None
) -> None:
    """Record when participations were last seen, in one batch. `last_seen` never goes back; lanes are unchanged.

    Args:
        seconds_since_seen: ages by participation id; not times, since the host's clock may differ from PostgreSQL's.
        clients: the clients that they have used (bus/rules/client_names.py); those of others are unchanged.
    Locks: the presence rows, by ascending project and participation.
    """
    participation_ids = sorted(seconds_since_seen)
    ages = [seconds_since_seen[participation_id] for participation_id in participation_ids]
    conn.execute(
        "INSERT INTO presence AS pr (project_id, participation_id, last_seen, client)"
        " SELECT p.project_id, p.id, clock_timestamp() - make_interval(secs => s.age), s.client"
        " FROM unnest(%s::bigint[], %s::float8[], %s::text[]) AS s (id, age, client)"
        " JOIN participation p ON p.id = s.id"
        " WHERE p.removed_at IS NULL ORDER BY p.project_id, p.id"
        " ON CONFLICT ON CONSTRAINT presence_pkey DO UPDATE"
        " SET last_seen = greatest(pr.last_seen, excluded.last_seen), client = coalesce(excluded.client, pr.client),"
        # A newer sighting ends a recorded absence; a late one does not.
        " lapsed_at = CASE WHEN excluded.last_seen > pr.last_seen THEN NULL ELSE pr.lapsed_at END",
        (participation_ids, ages, [(clients or {}).get(participation_id) for participation_id in participation_ids]),
    )
