"""Rollups: hourly and daily counts of each project, computed from the ledger, never on the path of a call.

As in metering, the project's watermark `tallied_seq` advances over (tallied_seq, last_seq] in the transaction that
counts. Event numbers have no gaps and follow commit order, so each event is counted once, however many workers run.

The column `figure` of a row names its metric, on which the meaning of `key` and `other` depends:

    events      events by type
    anchored    posts with a ref
    waits       posts by the time to their first ack by another participant; `key` is rounded seconds
                (bus/rules/percentiles.py); counted in the hour of the post, not of the ack
    leases      leases by surface
    contended   leases that overlapped a lease of another participant, by surface
    to_lane     posts by sender (`key`) and lane (`other`)
    to_actor    posts by sender (`key`) and recipient (`other`)
    delivered   deliveries of posts; `other` is how the recipient could be reached, a space, and its client
    seen        those that were shown to the recipient, by rounded seconds with two digits (`key`), and as `delivered`
    acked       those that the recipient acked, alike; seen and acked count in the hour of the post

A delivery to a participation that joined the lane after the post is in none of the last three. Whether a delivery was
seen is no event of the ledger: `seen_delivery` holds what was shown since the last rollup.

Hours are kept for 8 days, days for 100. Each hour and each day lists at most TOP_N surfaces and pairs; the others are
counted under an empty name.
Source: docs/decisions/0020-rollups.md
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

from bus.db import Connection
from bus.rules.client_names import UNKNOWN
from bus.rules.percentiles import rounded_seconds_sql

# Events per transaction: about 50 ms.
BATCH_SIZE = 5_000
# Names of one metric in one hour or day; bounds the rows that a page reads for 90 days.
TOP_N = 1_000
RETENTION = {"hour": timedelta(days=8), "day": timedelta(days=100)}
_PROJECT_PAGE_SIZE = 200


@dataclass(frozen=True, slots=True)
class RollupProgress:
    """Progress of the rollup of a project.

    Attributes:
        watermark: the last counted event.
        pending_events: number of events after the watermark.
        oldest_pending_at: time of the oldest pending event; None if there is none.
    """

    watermark: int
    pending_events: int
    oldest_pending_at: datetime | None


def list_projects_behind(conn: Connection, after: int = 0) -> list[int]:
    """Return the ids of projects with uncounted events or sightings, ascending, above the id `after`."""
    rows = conn.fetch_all(
        "SELECT c.project_id FROM project_clock c LEFT JOIN tally_mark m ON m.project_id = c.project_id"
        " WHERE (c.last_seq > coalesce(m.tallied_seq, 0)"
        "   OR EXISTS (SELECT FROM seen_delivery s WHERE s.project_id = c.project_id))"
        " AND c.project_id > %s ORDER BY c.project_id LIMIT %s",
        (after, _PROJECT_PAGE_SIZE),
    )
    return [project_id for (project_id,) in rows]


def roll_up_batch(conn: Connection, project_id: int, *, limit: int = BATCH_SIZE) -> int:
    """Count the next events of a project, and the posts that were shown since the last batch.

    Returns:
        The larger number of the two; less than `limit` when nothing is left to count.
    Locks: the project (shared, so that a purge begins before or after), then its watermark. Events are read afterwards.
    """
    if conn.execute("SELECT 1 FROM project WHERE id = %s AND purging_at IS NULL FOR SHARE", (project_id,)) == 0:
        return 0
    conn.enter_project(project_id)
    conn.execute("INSERT INTO tally_mark (project_id) VALUES (%s) ON CONFLICT DO NOTHING", (project_id,))
    (watermark,) = conn.fetch_one("SELECT tallied_seq FROM tally_mark WHERE project_id = %s FOR UPDATE", (project_id,))
    (ledger_end,) = conn.fetch_one("SELECT last_seq FROM project_clock WHERE project_id = %s", (project_id,))
    last_seq = min(ledger_end, watermark + limit)
    if last_seq > watermark:
        _roll_up_events(conn, project_id, watermark, last_seq)
    params = {"project": project_id, "limit": limit, "hours": RETENTION["hour"], "days": RETENTION["day"]}
    (seen,) = conn.fetch_one(_ROLL_UP_SEEN_SQL, params)
    return max(int(last_seq - watermark), int(seen))


def _roll_up_events(conn: Connection, project_id: int, watermark: int, last_seq: int) -> None:
    # Two acks of the same time may fall into two batches, and only the first counts. So this batch reads back to the
    # first event that has the time of the previous batch's last event.
    (since,) = conn.fetch_one(
        "SELECT coalesce((SELECT bus_seq_at(e.project_id, e.at) FROM event e"
        " WHERE e.project_id = %(project)s AND e.seq = %(watermark)s), 1)",
        {"project": project_id, "watermark": watermark},
    )
    conn.execute(
        _ROLL_UP_SQL,
        {
            "project": project_id,
            "after": watermark,
            "until": last_seq,
            "since": since,
            "top_n": TOP_N,
            "hours": RETENTION["hour"],
            "days": RETENTION["day"],
        },
    )
    conn.execute(_MARK_ACKED_AS_SEEN_SQL, {"project": project_id, "after": watermark, "until": last_seq})
    conn.execute("UPDATE tally_mark SET tallied_seq = %s WHERE project_id = %s", (last_seq, project_id))


def get_progress(conn: Connection, project_id: int) -> RollupProgress:
    """Return the progress of a project; zero for a project that does not exist."""
    progress = conn.fetch_one_or_none_as(
        RollupProgress,
        "SELECT coalesce(m.tallied_seq, 0) AS watermark, c.last_seq - coalesce(m.tallied_seq, 0) AS pending_events,"
        " (SELECT e.at FROM event e WHERE e.project_id = c.project_id AND e.seq = coalesce(m.tallied_seq, 0) + 1)"
        " AS oldest_pending_at"
        " FROM project_clock c LEFT JOIN tally_mark m ON m.project_id = c.project_id WHERE c.project_id = %s",
        (project_id,),
    )
    return progress or RollupProgress(watermark=0, pending_events=0, oldest_pending_at=None)


# An ack also means that its participation has seen the post; where nothing else has shown it, that was then. Rows that
# are locked are just being marked as shown.
_MARK_ACKED_AS_SEEN_SQL = """
WITH acked AS MATERIALIZED (
    SELECT e.participation_id, (e.payload ->> 'post_id')::bigint AS post_id FROM event e
    WHERE e.project_id = %(project)s AND e.seq > %(after)s AND e.seq <= %(until)s AND e.type = 'ack'
), unseen AS MATERIALIZED (
    -- Before the update, so that each delivery is looked up once; see bus/coordination/surfacing.py.
    SELECT o.ctid FROM acked a, LATERAL (
        SELECT d.ctid FROM delivery d
        WHERE d.project_id = %(project)s AND d.participation_id = a.participation_id AND d.post_id = a.post_id
          AND d.surfaced_at IS NULL AND d.acked_at IS NOT NULL AND d.wake IS NOT NULL
        LIMIT 1 FOR NO KEY UPDATE SKIP LOCKED) AS o
), seen AS (
    UPDATE delivery d SET surfaced_at = d.acked_at FROM unseen u
    WHERE d.ctid = u.ctid AND d.project_id = %(project)s
    RETURNING d.participation_id, d.post_id
)
INSERT INTO seen_delivery (project_id, participation_id, post_id)
SELECT %(project)s, s.participation_id, s.post_id FROM seen s ORDER BY 2, 3 ON CONFLICT DO NOTHING
"""

_COUNT_BY_HOUR_AND_DAY_SQL = """
    SELECT %(project)s, 'hour', c.figure, c.hour, c.key, c.other, c.n FROM counted c
    WHERE c.hour >= clock_timestamp() - %(hours)s
    UNION ALL
    SELECT %(project)s, 'day', c.figure, date_trunc('day', c.hour, 'UTC'), c.key, c.other, sum(c.n)::bigint
    FROM counted c WHERE c.hour >= clock_timestamp() - %(days)s GROUP BY 3, 4, 5, 6
"""
_DELIVERY_GROUP_SQL = f"d.wake || ' ' || coalesce(d.client, '{UNKNOWN}')"

_ROLL_UP_SEEN_SQL = f"""
WITH shown AS MATERIALIZED (
    DELETE FROM seen_delivery s USING (
        SELECT v.participation_id, v.post_id FROM seen_delivery v WHERE v.project_id = %(project)s
        ORDER BY v.participation_id, v.post_id LIMIT %(limit)s FOR UPDATE SKIP LOCKED) AS next
    WHERE s.project_id = %(project)s AND s.participation_id = next.participation_id AND s.post_id = next.post_id
    RETURNING s.participation_id, s.post_id
), counted AS MATERIALIZED (
    SELECT 'seen' AS figure, date_trunc('hour', w.created_at, 'UTC') AS hour,
           trim_scale({rounded_seconds_sql("w.seconds", 2)})::text AS key, w.other, count(*) AS n
    FROM shown s CROSS JOIN LATERAL (
        SELECT o.created_at, {_DELIVERY_GROUP_SQL} AS other,
               greatest(extract(epoch FROM least(d.surfaced_at, d.acked_at) - o.created_at), 0)::float8 AS seconds
        FROM delivery d JOIN post o ON o.project_id = d.project_id AND o.id = d.post_id
        WHERE d.project_id = %(project)s AND d.participation_id = s.participation_id AND d.post_id = s.post_id
          AND d.wake IS NOT NULL AND d.surfaced_at IS NOT NULL
        LIMIT 1) AS w
    GROUP BY 2, 3, 4
), stored AS (
    INSERT INTO tally AS t (project_id, grain, figure, start, key, other, n)
    {_COUNT_BY_HOUR_AND_DAY_SQL}
    ON CONFLICT ON CONSTRAINT tally_pkey DO UPDATE SET n = t.n + excluded.n
)
SELECT count(*) FROM shown
"""

# `acked_at` of a post is the time of its first ack by another participant (bus_ack_posts in
# bus/coordination/sql/posts.sql).
# Of the acks by other participants with that time, the one with the lowest number counts the post as acked. Only
# committed data decides this, so the result does not depend on when and in how many batches the events are counted.
#
# Posts and existing rows are looked up one by one, in subqueries that the planner cannot turn into a table scan.
_ROLL_UP_SQL = f"""
WITH fresh AS MATERIALIZED (
    SELECT e.seq, e.at, date_trunc('hour', e.at, 'UTC') AS hour, e.participation_id, e.actor, e.type,
           CASE WHEN e.type = 'ack' THEN (e.payload ->> 'post_id')::bigint END AS post_id,
           CASE WHEN e.type = 'lease' THEN e.payload ->> 'surface' END AS surface,
           CASE WHEN e.type = 'lease' THEN (e.payload ->> 'contended')::bigint > 0 END AS contended,
           CASE WHEN e.type = 'post' THEN e.payload ->> 'ref' END AS ref,
           CASE WHEN e.type = 'post' THEN e.payload ->> 'to_lane' END AS to_lane,
           CASE WHEN e.type = 'post' THEN e.payload ->> 'to_actor' END AS to_actor
    FROM event e WHERE e.project_id = %(project)s AND e.seq >= %(since)s AND e.seq <= %(until)s
), first_ack AS (
    SELECT DISTINCT ON (f.post_id) f.seq, acked.hour, acked.seconds
    FROM fresh f
    CROSS JOIN LATERAL (
        SELECT date_trunc('hour', o.created_at, 'UTC') AS hour,
               extract(epoch FROM o.acked_at - o.created_at)::float8 AS seconds
        FROM post o
        WHERE o.project_id = %(project)s AND o.id = f.post_id AND o.acked_at = f.at
          AND (o.participation_id <> f.participation_id
               OR (o.to_participation_id = f.participation_id AND o.to_lane IS NULL))
        OFFSET 0) AS acked
    WHERE f.post_id IS NOT NULL
    ORDER BY f.post_id, f.seq
), new AS (
    SELECT * FROM fresh f WHERE f.seq > %(after)s
), counted AS MATERIALIZED (
    SELECT 'events' AS figure, f.hour, f.type AS key, '' AS other, count(*) AS n FROM new f GROUP BY f.hour, f.type
    UNION ALL
    SELECT 'anchored', f.hour, '', '', count(*) FROM new f WHERE f.ref IS NOT NULL GROUP BY f.hour
    UNION ALL
    SELECT 'waits', a.hour, trim_scale({rounded_seconds_sql("a.seconds")})::text, '', count(*) FROM first_ack a
    WHERE a.seq > %(after)s GROUP BY 2, 3
    UNION ALL
    SELECT 'leases', f.hour, f.surface, '', count(*) FROM new f WHERE f.surface IS NOT NULL GROUP BY 2, 3
    UNION ALL
    SELECT 'contended', f.hour, f.surface, '', count(*) FROM new f WHERE f.contended GROUP BY 2, 3
    UNION ALL
    SELECT 'to_lane', f.hour, f.actor, f.to_lane, count(*) FROM new f WHERE f.to_lane IS NOT NULL GROUP BY 2, 3, 4
    UNION ALL
    SELECT 'to_actor', f.hour, f.actor, f.to_actor, count(*) FROM new f WHERE f.to_actor IS NOT NULL GROUP BY 2, 3, 4
    UNION ALL
    SELECT 'delivered', f.hour, '', w.other, count(*) FROM new f
    CROSS JOIN LATERAL (
        SELECT {_DELIVERY_GROUP_SQL} AS other FROM delivery d
        WHERE d.project_id = %(project)s AND d.post_id = f.seq AND d.wake IS NOT NULL OFFSET 0) AS w
    WHERE f.type = 'post' GROUP BY 2, 4
    UNION ALL
    SELECT 'acked', w.hour, trim_scale({rounded_seconds_sql("w.seconds", 2)})::text, w.other, count(*) FROM new f
    CROSS JOIN LATERAL (
        SELECT date_trunc('hour', o.created_at, 'UTC') AS hour, {_DELIVERY_GROUP_SQL} AS other,
               extract(epoch FROM d.acked_at - o.created_at)::float8 AS seconds
        FROM delivery d JOIN post o ON o.project_id = d.project_id AND o.id = d.post_id
        WHERE d.project_id = %(project)s AND d.participation_id = f.participation_id AND d.post_id = f.post_id
          AND d.wake IS NOT NULL
        LIMIT 1) AS w
    WHERE f.post_id IS NOT NULL GROUP BY 2, 3, 4
), by_granularity AS MATERIALIZED (
    SELECT 'hour' AS grain, c.figure, c.hour AS start, c.key, c.other, c.n FROM counted c
    WHERE c.hour >= clock_timestamp() - %(hours)s
    UNION ALL
    SELECT 'day', c.figure, date_trunc('day', c.hour, 'UTC') AS start, c.key, c.other, sum(c.n)::bigint FROM counted c
    WHERE c.hour >= clock_timestamp() - %(days)s GROUP BY c.figure, 3, c.key, c.other
), free_slots AS (
    SELECT g.grain, g.figure, g.start, %(top_n)s - (
        SELECT count(*) FROM tally t WHERE t.project_id = %(project)s AND t.grain = g.grain AND t.figure = g.figure
          AND t.start = g.start AND t.key <> '') AS free
    FROM by_granularity g WHERE g.figure IN ('leases', 'contended', 'to_lane', 'to_actor')
    GROUP BY g.grain, g.figure, g.start
), known AS (
    SELECT g.*, g.figure IN ('events', 'anchored', 'waits', 'delivered', 'seen', 'acked') OR (
        SELECT t.n FROM tally t WHERE t.project_id = %(project)s AND t.grain = g.grain AND t.figure = g.figure
          AND t.start = g.start AND t.key = g.key AND t.other = g.other) IS NOT NULL AS is_known
    FROM by_granularity g
), ranked AS (
    SELECT k.*, row_number() OVER (
        PARTITION BY k.grain, k.figure, k.start, k.is_known ORDER BY k.n DESC, k.key, k.other) AS rank
    FROM known k
), named AS (
    SELECT p.grain, p.figure, p.start, p.n, p.is_known OR p.rank <= r.free AS is_named, p.key, p.other
    FROM ranked p LEFT JOIN free_slots r ON r.grain = p.grain AND r.figure = p.figure AND r.start = p.start
)
INSERT INTO tally AS t (project_id, grain, figure, start, key, other, n)
SELECT %(project)s, m.grain, m.figure, m.start, CASE WHEN m.is_named THEN m.key ELSE '' END,
       CASE WHEN m.is_named THEN m.other ELSE '' END, sum(m.n)
FROM named m GROUP BY 2, 3, 4, 5, 6
ON CONFLICT ON CONSTRAINT tally_pkey DO UPDATE SET n = t.n + excluded.n
"""
