"""Service totals: numbers of owners, projects and events, cached for all callers and updated incrementally."""

import json
from datetime import timedelta
from typing import Any

from bus.db import Connection, Row

DEFAULT_MAX_AGE = timedelta(seconds=60)
# The next refresh counts the rest, so that no transaction lasts long.
_MAX_EVENTS_PER_CALL = 200_000
# Each ack is looked up in its post.
_MAX_HANDOFF_EVENTS_PER_CALL = 50_000
# Any constant that no other advisory lock uses.
_COUNT_LOCK_KEY = 0x11B5_0002

_SELECT_STATS_SQL = """
SELECT body, at, at > clock_timestamp() - %s AS is_fresh FROM service_stats
"""
_PROJECTS_BEHIND_SQL = """
SELECT c.project_id, coalesce(k.seq, 0), c.last_seq
FROM project_clock c LEFT JOIN event_count k ON k.project_id = c.project_id
WHERE c.last_seq > coalesce(k.seq, 0) ORDER BY c.project_id LIMIT 1000
"""
_COUNT_EVENTS_SQL = """
WITH fresh AS (
    SELECT type, count(*) AS n FROM event
    WHERE project_id = %(project)s AND seq > %(after)s AND seq <= %(until)s GROUP BY type
)
INSERT INTO event_count AS k (project_id, seq, counts)
SELECT %(project)s, %(until)s, coalesce(jsonb_object_agg(type, n), '{}') FROM fresh
ON CONFLICT (project_id) DO UPDATE SET seq = excluded.seq, counts = (
    SELECT jsonb_object_agg(type, n) FROM (
        SELECT type, sum(n::bigint) AS n
        FROM (SELECT * FROM jsonb_each_text(k.counts) UNION ALL SELECT * FROM jsonb_each_text(excluded.counts))
            AS two(type, n)
        GROUP BY type) AS summed)
"""
_HANDOFFS_BEHIND_SQL = """
SELECT k.project_id, k.handoff_seq, k.seq FROM event_count k JOIN project_clock c ON c.project_id = k.project_id
WHERE k.seq > k.handoff_seq ORDER BY k.project_id LIMIT 1000
"""
# `acked_at` of a post is the time of its first ack by another participant (bus_ack_posts in
# bus/coordination/sql/posts.sql). Of the acks with that time the one with the lowest number counts, so the events are
# read from the first one that has the time of the last counted event.
_COUNT_HANDOFFS_SQL = """
WITH fresh AS MATERIALIZED (
    SELECT e.seq, e.at, e.participation_id, e.type, e.payload ->> 'ref' AS ref,
           CASE WHEN e.type = 'ack' THEN (e.payload ->> 'post_id')::bigint END AS post_id
    FROM event e
    WHERE e.project_id = %(project)s AND e.seq <= %(until)s AND e.type IN ('post', 'ack') AND e.seq >= coalesce((
        SELECT bus_seq_at(o.project_id, o.at) FROM event o WHERE o.project_id = %(project)s AND o.seq = %(after)s), 1)
), first_ack AS (
    SELECT DISTINCT ON (f.post_id) f.seq FROM fresh f
    CROSS JOIN LATERAL (
        SELECT FROM post o
        WHERE o.project_id = %(project)s AND o.id = f.post_id AND o.acked_at = f.at
          AND (o.participation_id <> f.participation_id
               OR (o.to_participation_id = f.participation_id AND o.to_lane IS NULL))
        OFFSET 0) AS acked
    WHERE f.type = 'ack' ORDER BY f.post_id, f.seq
)
UPDATE event_count SET
    handoff_seq = %(until)s,
    handoffs = handoffs + (SELECT count(*) FROM fresh WHERE type = 'post' AND seq > %(after)s),
    anchored = anchored + (SELECT count(ref) FROM fresh WHERE type = 'post' AND seq > %(after)s),
    acked = acked + (SELECT count(*) FROM first_ack WHERE seq > %(after)s)
WHERE project_id = %(project)s
"""
_EVENT_TYPE_BY_STAT = {
    "posts": "post",
    "acks": "ack",
    "claims": "claim",
    "leases": "lease",
    "tasks": "task_create",
    "tasks_shipped": "task_ship",
}
_TOTALS_SQL = "SELECT " + ", ".join(
    [
        "(SELECT count(*) FROM owner) AS owners",
        "(SELECT count(*) FROM project WHERE purging_at IS NULL) AS projects",
        "(SELECT count(*) FROM participant WHERE removed_at IS NULL AND label <> '') AS participants",
        "coalesce(sum(seq), 0) AS events",
        *(f"coalesce(sum((counts ->> '{kind}')::bigint), 0) AS {name}" for name, kind in _EVENT_TYPE_BY_STAT.items()),
        *(
            f"round(sum({name}) / nullif(sum(handoffs), 0), 3)::float8 AS {name}_share"
            for name in ("acked", "anchored")
        ),
    ]
)
_STAT_NAMES = ("owners", "projects", "participants", "events", *_EVENT_TYPE_BY_STAT)
_SHARE_NAMES = ("acked_share", "anchored_share")


def get_stats(conn: Connection, *, max_age: timedelta = DEFAULT_MAX_AGE) -> dict[str, Any]:
    """Return the totals, at most `max_age` old unless another caller is refreshing them.

    Returns:
        owners, projects, participants, events, posts, acks, claims, leases, tasks, tasks_shipped: whole numbers; events
        of purged projects still count. acked_share, anchored_share: fractions of the posts, 0 to 1, that another
        participant acknowledged, and that have a ref; None before the first post. `at`: time of the count, ISO 8601.
    Locks: an advisory lock until the end of the transaction, in the caller that refreshes. Concurrent callers get the
        previous totals, and wait only if there are none.
    """
    cached = conn.fetch_one_or_none(_SELECT_STATS_SQL, (max_age,))
    if cached is not None and _is_fresh(cached):
        return _stats_from_row(cached)
    (has_lock,) = conn.fetch_one("SELECT pg_try_advisory_xact_lock(%s)", (_COUNT_LOCK_KEY,))
    if not has_lock:
        if cached is not None:
            return _stats_from_row(cached)
        conn.execute("SELECT pg_advisory_xact_lock(%s)", (_COUNT_LOCK_KEY,))
    # Another caller may have refreshed the totals before this one got the lock.
    cached = conn.fetch_one_or_none(_SELECT_STATS_SQL, (max_age,))
    if cached is not None and _is_fresh(cached):
        return _stats_from_row(cached)
    _count_new(conn, _PROJECTS_BEHIND_SQL, _COUNT_EVENTS_SQL, _MAX_EVENTS_PER_CALL)
    _count_new(conn, _HANDOFFS_BEHIND_SQL, _COUNT_HANDOFFS_SQL, _MAX_HANDOFF_EVENTS_PER_CALL)
    row = conn.fetch_one(f"{_TOTALS_SQL} FROM event_count")
    counts, shares = row[: len(_STAT_NAMES)], row[len(_STAT_NAMES) :]
    totals: dict[str, Any] = {name: int(value) for name, value in zip(_STAT_NAMES, counts, strict=True)}
    totals |= dict(zip(_SHARE_NAMES, shares, strict=True))
    return _stats_from_row(
        conn.fetch_one(
            'INSERT INTO service_stats ("only", at, body) VALUES (true, clock_timestamp(), %s::jsonb)'
            ' ON CONFLICT ("only") DO UPDATE SET at = excluded.at, body = excluded.body RETURNING body, at, true',
            (json.dumps(totals),),
        )
    )


def _count_new(conn: Connection, projects_sql: str, count_sql: str, max_events: int) -> None:
    """Count the events of projects that are behind, at most so many in all."""
    remaining = max_events
    for project_id, counted_seq, last_seq in conn.fetch_all(projects_sql):
        if remaining <= 0:
            break
        # The clock is locked until its events commit, so there are no gaps up to the `last_seq` that was read.
        until = min(last_seq, counted_seq + remaining)
        conn.execute(count_sql, {"project": project_id, "after": counted_seq, "until": until})
        remaining -= until - counted_seq


def _is_fresh(row: Row) -> bool:
    return bool(row[2])


def _stats_from_row(row: Row) -> dict[str, Any]:
    body, at, _ = row
    # Totals that the previous version stored have no shares.
    return {**dict.fromkeys(_SHARE_NAMES), **body, "at": at.isoformat(timespec="seconds")}
