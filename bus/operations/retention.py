"""Pruning: what nobody asks for any more goes, in batches that lock nobody out. Never the ledger, never money."""

from bus.analytics.rollups import RETENTION
from bus.analytics.tables import ROLLUP_METRICS
from bus.db import Connection

BATCH_SIZE = 5_000


def _expired_rollups_condition(granularity: str) -> str:
    """By project and figure, since that is how they are indexed: no run reads them all."""
    return (
        "t.ctid = ANY (ARRAY(SELECT old.ctid FROM tally_mark m"
        f" CROSS JOIN unnest(ARRAY[{', '.join(map(repr, ROLLUP_METRICS))}]) AS f(figure)"
        " CROSS JOIN LATERAL (SELECT y.ctid FROM tally y WHERE y.project_id = m.project_id"
        f"  AND y.grain = '{granularity}' AND y.figure = f.figure"
        f"  AND y.start < statement_timestamp() - interval '{RETENTION[granularity].days} days' LIMIT {BATCH_SIZE}) AS old"
        f" LIMIT {BATCH_SIZE}))"
    )


# A key is kept for two days: whoever retries a call does so within minutes.
# A run that did nothing tells nothing after a day; the others are history for a month.
_EXPIRED_ROWS = {
    "idempotency_keys": ("idempotency", "created_at < clock_timestamp() - interval '2 days'"),
    "waiters": ("waiter", "alive_until < clock_timestamp() - interval '1 hour'"),
    "quiet_runs": (
        "job_run",
        "outcome = 'ok' AND counts = '{}' AND started_at < clock_timestamp() - interval '1 day'"
        " AND id < (SELECT max(newer.id) FROM job_run newer WHERE newer.name = t.name)",
    ),
    "runs": (
        "job_run",
        "started_at < clock_timestamp() - interval '30 days'"
        " AND id < (SELECT max(newer.id) FROM job_run newer WHERE newer.name = t.name)",
    ),
    "notices": ("notice", "due_at IS NULL AND created_at < clock_timestamp() - interval '90 days'"),
    "sessions": ("session", "expires_at < clock_timestamp()"),
    "sign_ups": ("sign_up", "expires_at < clock_timestamp()"),
    "login_links": ("login_link", "expires_at < clock_timestamp() - interval '1 day'"),
    "gone_processes": ("process", "seen_at < clock_timestamp() - interval '1 day'"),
    "samples": ("service_sample", "at < clock_timestamp() - interval '1 day'"),
    "hours": ("tally", _expired_rollups_condition("hour")),
    "days": ("tally", _expired_rollups_condition("day")),
    # A gateway that was still flushing when the project went.
    "lost_presence": ("presence", "NOT EXISTS (SELECT FROM project pj WHERE pj.id = t.project_id)"),
    "lost_cursors": ("cursor", "NOT EXISTS (SELECT FROM project pj WHERE pj.id = t.project_id)"),
}
PRUNE_KINDS = tuple(_EXPIRED_ROWS)


def prune_batch(conn: Connection, kind: str) -> int:
    """Delete one batch of what is old of a kind; returns how many rows went. Repeat until it is less than BATCH."""
    table, old = _EXPIRED_ROWS[kind]
    return len(
        conn.fetch_all(
            f"DELETE FROM {table} WHERE ctid = ANY (ARRAY("
            f" SELECT t.ctid FROM {table} t WHERE {old} LIMIT %s FOR UPDATE SKIP LOCKED)) RETURNING 1",
            (BATCH_SIZE,),
        )
    )


def list_unfinished_purges(conn: Connection) -> list[int]:
    """Projects whose purge was begun and not finished."""
    rows = conn.fetch_all("SELECT id FROM project WHERE purging_at IS NOT NULL ORDER BY id LIMIT 100")
    return [project_id for (project_id,) in rows]
