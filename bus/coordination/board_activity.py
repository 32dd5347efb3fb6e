"""The last hour of a project in equal steps, for the figures above its live board.

Read from the end of the ledger: the events of the last hour, at most MAX_EVENTS, so that a busy project costs no more.
Source: docs/decisions/0024-live-board.md
"""

from dataclasses import dataclass
from datetime import timedelta

from bus.db import Connection, Row
from bus.db.capped_count import capped_count

STEP_COUNT = 30
SPAN = timedelta(hours=1)
MAX_EVENTS = 2_000
_STEP_SECONDS = SPAN.total_seconds() / STEP_COUNT
_SHIPPED_SPAN = timedelta(hours=24)
_SHIPPED_CAP = 1_000


@dataclass(frozen=True, slots=True)
class Activity:
    """The last hour; each series has STEP_COUNT values, oldest first.

    Attributes:
        active: participants with an event in the step; None where the ledger was not read back so far.
        unacked: posts without an ack at the end of the step; None likewise.
        ack_seconds: the median time to the first ack of the posts acked in the step; None if there is none.
        contended: leases that overlapped one of another participant when they were taken.
        shipped: tasks shipped.
        median_ack_seconds: the median over the hour, or None.
        shipped_last_day: tasks shipped within 24 hours, counted up to 1,000.
    """

    active: list[int | None]
    unacked: list[int | None]
    ack_seconds: list[float | None]
    contended: list[int]
    shipped: list[int]
    median_ack_seconds: float | None
    shipped_last_day: int


# `step` counts from the present backwards. The first ack of a post by another participant has the time `acked_at` of
# the post. The lookup of the post stands behind an offset; otherwise PostgreSQL may hash the whole table.
_STEPS_SQL = """
    WITH span AS MATERIALIZED (
        SELECT clock_timestamp() AS until,
               greatest(bus_seq_at(c.project_id, clock_timestamp() - %(span)s), c.last_seq - %(limit)s + 1) AS first_seq
        FROM project_clock c WHERE c.project_id = %(project)s
    ), recent AS (
        SELECT e.at, e.type, e.participation_id,
               greatest(floor(extract(epoch FROM s.until - e.at) / %(step)s), 0)::int AS step,
               CASE WHEN e.type = 'ack' THEN (e.payload ->> 'post_id')::bigint END AS acked_post_id,
               CASE WHEN e.type = 'lease' THEN (e.payload ->> 'contended')::bigint > 0 END AS contended
        FROM span s JOIN event e ON e.project_id = %(project)s AND e.seq >= s.first_seq
    )
    SELECT r.step, count(*), count(DISTINCT r.participation_id), count(*) FILTER (WHERE r.type = 'post'),
           count(o.delay), percentile_cont(0.5) WITHIN GROUP (ORDER BY o.delay), count(*) FILTER (WHERE r.contended),
           count(*) FILTER (WHERE r.type = 'task_ship')
    FROM recent r
    LEFT JOIN LATERAL (
        SELECT extract(epoch FROM o.acked_at - o.created_at)::double precision AS delay FROM post o
        WHERE o.project_id = %(project)s AND o.id = r.acked_post_id AND o.acked_at = r.at OFFSET 0) AS o ON true
    GROUP BY GROUPING SETS ((r.step), ())
"""
_SHIPPED_SQL = "SELECT " + capped_count(
    "FROM event e WHERE e.project_id = %(project)s AND e.type = 'task_ship'"
    " AND e.seq >= bus_seq_at(%(project)s, clock_timestamp() - %(span)s)",
    _SHIPPED_CAP,
)


def get_activity(conn: Connection, project_id: int, unacked_count: int) -> Activity:
    """Return the last hour of a project.

    Args:
        unacked_count: posts without an ack now, from which their earlier number is computed.
    """
    rows = conn.fetch_all(_STEPS_SQL, {"project": project_id, "span": SPAN, "step": _STEP_SECONDS, "limit": MAX_EVENTS})
    (shipped_last_day,) = conn.fetch_one(_SHIPPED_SQL, {"project": project_id, "span": _SHIPPED_SPAN})
    steps = {row[0]: row for row in rows if row[0] is not None}
    total = next((row for row in rows if row[0] is None), None)
    is_cut = total is not None and total[1] >= MAX_EVENTS
    return _build_activity(
        steps, total, unacked_count, max(steps, default=0) if is_cut else STEP_COUNT, shipped_last_day
    )


def _build_activity(
    steps: dict[int, Row], total: Row | None, unacked_count: int, covered: int, shipped_last_day: int
) -> Activity:
    activity = Activity([], [], [], [], [], total[5] if total is not None else None, shipped_last_day)
    waiting = unacked_count
    for step in range(STEP_COUNT):
        _, _, active, posts, acks, ack_seconds, contended, shipped = steps.get(step, (0, 0, 0, 0, 0, None, 0, 0))
        activity.active.append(active if step <= covered else None)
        activity.unacked.append(max(waiting, 0) if step <= covered else None)
        activity.ack_seconds.append(ack_seconds)
        activity.contended.append(contended)
        activity.shipped.append(shipped)
        waiting += acks - posts
    for series in (activity.active, activity.unacked, activity.ack_seconds, activity.contended, activity.shipped):
        series.reverse()
    return activity
