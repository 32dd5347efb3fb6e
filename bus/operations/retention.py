"""Pruning: what nobody asks for any more goes, in batches that lock nobody out. Never the ledger, never money."""

from bus.analytics.rollups import KEPT
from bus.analytics.tables import FIGURES
from bus.db import Connection

BATCH = 5_000


def _old_tallies(grain: str) -> str:
    """By project and figure, since that is how they are indexed: no run reads them all."""
    return (
        "t.ctid = ANY (ARRAY(SELECT old.ctid FROM tally_mark m"
        f" CROSS JOIN unnest(ARRAY[{', '.join(map(repr, FIGURES))}]) AS f(figure)"
        " CROSS JOIN LATERAL (SELECT y.ctid FROM tally y WHERE y.project_id = m.project_id"
        f"  AND y.grain = '{grain}' AND y.figure = f.figure"
        f"  AND y.start < statement_timestamp() - interval '{KEPT[grain].days} days' LIMIT {BATCH}) AS old"
        f" LIMIT {BATCH}))"
    )


# A key is kept for two days: whoever retries a call does so within minutes.
# A run that did nothing tells nothing after a day; the others are history for a month.
_OLD = {
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
    "hours": ("tally", _old_tallies("hour")),
    "days": ("tally", _old_tallies("day")),
    # A gateway that was still flushing when the project went.
    "lost_presence": ("presence", "NOT EXISTS (SELECT FROM project pj WHERE pj.id = t.project_id)"),
    "lost_cursors": ("cursor", "NOT EXISTS (SELECT FROM project pj WHERE pj.id = t.project_id)"),
}
KINDS = tuple(_OLD)


def prune(conn: Connection, kind: str) -> int:
    """Delete one batch of what is old of a kind; returns how many rows went. Repeat until it is less than BATCH."""
    table, old = _OLD[kind]
    return len(
        conn.all(
            f"DELETE FROM {table} WHERE ctid = ANY (ARRAY("
            f" SELECT t.ctid FROM {table} t WHERE {old} LIMIT %s FOR UPDATE SKIP LOCKED)) RETURNING 1",
            (BATCH,),
        )
    )


def find_purges(conn: Connection) -> list[int]:
    """Projects whose purge was begun and not finished."""
    rows = conn.all("SELECT id FROM project WHERE purging_at IS NOT NULL ORDER BY id LIMIT 100")
    return [project_id for (project_id,) in rows]
