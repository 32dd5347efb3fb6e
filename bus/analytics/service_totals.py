"""What the service as a whole has seen: counted once for all who ask, and only what is new since the last time."""

import json
from datetime import timedelta
from typing import Any

from bus.db import Connection

DEFAULT_MAX_AGE = timedelta(seconds=60)
# Counted in one go; what is beyond comes with the next, so that no transaction lasts.
_MAX_EVENTS_PER_CALL = 200_000
# Any constant that no other advisory lock of the bus has.
_COUNT_LOCK_KEY = 0x11B5_0002

_SELECT_STATS_SQL = """
SELECT body, at, at > clock_timestamp() - %s FROM service_stats
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
RETURNING 1
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
    ]
)
_STAT_NAMES = ("owners", "projects", "participants", "events", *_EVENT_TYPE_BY_STAT)


def get_stats(conn: Connection, *, max_age: timedelta = DEFAULT_MAX_AGE) -> dict[str, Any]:
    """The counts, not older than `fresh` unless somebody is counting at this moment.

    Returns:
        owners, projects, participants, events, posts, acks, claims, leases, tasks, tasks_shipped: whole numbers; what
        was deleted still counts as an event. `at`: when it was counted, as ISO 8601.
    Locks: an advisory one for the length of the caller's transaction, if this call is the one that counts. Whoever
        comes meanwhile gets the counts of before, and waits only if there never were any.
    """
    found = conn.fetch_one_or_none(_SELECT_STATS_SQL, (max_age,))
    if found is not None and found[2]:
        return _stats_from_row(found)
    (mine,) = conn.fetch_one("SELECT pg_try_advisory_xact_lock(%s)", (_COUNT_LOCK_KEY,))
    if not mine:
        if found is not None:
            return _stats_from_row(found)
        conn.execute("SELECT pg_advisory_xact_lock(%s)", (_COUNT_LOCK_KEY,))
    found = conn.fetch_one_or_none(_SELECT_STATS_SQL, (max_age,))
    if found is not None and found[2]:
        # Somebody counted while we came here.
        return _stats_from_row(found)
    _count_new_events(conn)
    counts = conn.fetch_one(f"{_TOTALS_SQL} FROM event_count")
    body = {name: int(value) for name, value in zip(_STAT_NAMES, counts, strict=True)}
    return _stats_from_row(
        conn.fetch_one(
            'INSERT INTO service_stats ("only", at, body) VALUES (true, clock_timestamp(), %s::jsonb)'
            ' ON CONFLICT ("only") DO UPDATE SET at = excluded.at, body = excluded.body RETURNING body, at, true',
            (json.dumps(body),),
        )
    )


def _count_new_events(conn: Connection) -> None:
    left = _MAX_EVENTS_PER_CALL
    for project, after, last in conn.fetch_all(_PROJECTS_BEHIND_SQL):
        if left <= 0:
            break
        # The clock is locked until its events commit, so up to a number that one reads there is no hole.
        until = min(last, after + left)
        conn.execute(_COUNT_EVENTS_SQL, {"project": project, "after": after, "until": until})
        left -= until - after


def _stats_from_row(row: tuple[Any, ...]) -> dict[str, Any]:
    body, at, _ = row
    return {**body, "at": at.isoformat(timespec="seconds")}
