"""Which deliveries were shown to their recipients. give_back.py undoes it if an answer did not arrive."""

from collections.abc import Mapping

from bus.db import Connection


def mark_surfaced(conn: Connection, seconds_since_surfaced: Mapping[tuple[int, int, int], float]) -> None:
    """Record which deliveries were shown to their recipients. The first time stands.

    Args:
        seconds_since_surfaced: ages by (project_id, participation_id, post_id); not times, since the host's clock may
            differ from PostgreSQL's.
    Locks: the deliveries; skips locked ones, which are being acked or withdrawn.
    """
    keys = sorted(seconds_since_surfaced)
    conn.execute(
        _MARK_SURFACED_SQL,
        {
            "projects": [project for project, _, _ in keys],
            "participations": [participation for _, participation, _ in keys],
            "posts": [post for _, _, post in keys],
            "ages": [seconds_since_surfaced[key] for key in keys],
        },
    )


# The deliveries are found before the update, each by its key: in a join of all three, PostgreSQL may look each delivery
# up once for each row of the table. One that is taken back and shown again counts once for the rollup, unless the
# rollup has run between.
_MARK_SURFACED_SQL = """
WITH unseen AS MATERIALIZED (
    SELECT o.project_id, o.ctid, s.age
    FROM unnest(%(projects)s::bigint[], %(participations)s::bigint[], %(posts)s::bigint[], %(ages)s::float8[])
         AS s (project_id, participation_id, post_id, age),
    LATERAL (
        SELECT d.project_id, d.ctid FROM delivery d
        WHERE d.project_id = s.project_id AND d.participation_id = s.participation_id AND d.post_id = s.post_id
          AND d.surfaced_at IS NULL
        LIMIT 1 FOR NO KEY UPDATE SKIP LOCKED) AS o
), seen AS (
    UPDATE delivery d SET surfaced_at = clock_timestamp() - make_interval(secs => u.age) FROM unseen u
    WHERE d.ctid = u.ctid AND d.project_id = u.project_id
    RETURNING d.project_id, d.participation_id, d.post_id, d.wake
)
INSERT INTO seen_delivery (project_id, participation_id, post_id)
SELECT s.project_id, s.participation_id, s.post_id FROM seen s WHERE s.wake IS NOT NULL ORDER BY 1, 2, 3
ON CONFLICT DO NOTHING
"""
