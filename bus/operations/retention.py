"""Retention: deletes expired rows in small batches; never the ledger, credit entries or the audit log."""

from bus.analytics.rollups import RETENTION
from bus.analytics.tables import ROLLUP_METRICS
from bus.db import Connection

BATCH_SIZE = 5_000


def _expired_rollups_condition(granularity: str) -> str:
    """Return the condition for expired rollups; it uses the index by project and metric and so reads few rows."""
    return (
        "t.ctid = ANY (ARRAY(SELECT old.ctid FROM tally_mark m"
        f" CROSS JOIN unnest(ARRAY[{', '.join(map(repr, ROLLUP_METRICS))}]) AS f(figure)"
        " CROSS JOIN LATERAL (SELECT y.ctid FROM tally y WHERE y.project_id = m.project_id"
        f"  AND y.grain = '{granularity}' AND y.figure = f.figure"
        f"  AND y.start < statement_timestamp() - interval '{RETENTION[granularity].days} days'"
        f"  LIMIT {BATCH_SIZE}) AS old"
        f" LIMIT {BATCH_SIZE}))"
    )


# By kind: the table (alias t) and the condition for expired rows.
_EXPIRED_ROWS = {
    # Clients retry within minutes.
    "idempotency_keys": ("idempotency", "created_at < clock_timestamp() - interval '2 days'"),
    "waiters": ("waiter", "alive_until < clock_timestamp() - interval '1 hour'"),
    # Runs that had nothing to do are kept for a day, the others for 30 days, the newest of each job for good.
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
    "share_links": ("share_link", "expires_at < clock_timestamp() - interval '30 days'"),
    # What lasts longer names the token of the connected client (bus_lasting_token).
    "access_tokens": ("token", "parent_id IS NOT NULL AND expires_at < clock_timestamp() - interval '1 day'"),
    # Disconnected, or not used for so long that its refresh token has expired. Its grant goes with its token.
    "ended_clients": (
        "token",
        "EXISTS (SELECT FROM client_grant g WHERE g.token_id = t.id) AND least(t.revoked_at, t.expires_at)"
        " < clock_timestamp() - interval '30 days'",
    ),
    "oauth_clients": ("oauth_client", "expires_at < clock_timestamp()"),
    # A device that polls later is answered that its code has expired.
    "device_codes": ("device_authorization", "expires_at < clock_timestamp() - interval '1 hour'"),
    "gone_processes": ("process", "seen_at < clock_timestamp() - interval '1 day'"),
    "samples": ("service_sample", "at < clock_timestamp() - interval '1 day'"),
    "hours": ("tally", _expired_rollups_condition("hour")),
    "days": ("tally", _expired_rollups_condition("day")),
    "ended_sessions": ("agent_session", "ended_at < clock_timestamp() - interval '30 days'"),
    "session_cursors": (
        "session_cursor",
        "key <> '' AND NOT EXISTS (SELECT FROM agent_session s WHERE s.project_id = t.project_id"
        " AND s.participation_id = t.participation_id AND s.key = t.key)"
        # The row of a session that has just begun is written later than its cursor.
        " AND NOT EXISTS (SELECT FROM project_clock c WHERE c.project_id = t.project_id AND c.last_seq - t.seq < 100)",
    ),
    "lost_session_posts": (
        "session_post",
        "NOT EXISTS (SELECT FROM agent_session s WHERE s.project_id = t.project_id"
        " AND s.participation_id = t.participation_id AND s.key = t.key AND s.ended_at IS NULL)",
    ),
    # Left by a gateway that still flushed when the project was purged.
    "lost_presence": ("presence", "NOT EXISTS (SELECT FROM project pj WHERE pj.id = t.project_id)"),
    "lost_cursors": ("cursor", "NOT EXISTS (SELECT FROM project pj WHERE pj.id = t.project_id)"),
}
PRUNE_KINDS = tuple(_EXPIRED_ROWS)


def prune_batch(conn: Connection, kind: str) -> int:
    """Delete one batch of expired rows; returns how many. Repeat until it is less than BATCH_SIZE.

    Args:
        kind: one of PRUNE_KINDS.
    """
    table, is_expired = _EXPIRED_ROWS[kind]
    return conn.execute(
        f"DELETE FROM {table} WHERE ctid = ANY (ARRAY("
        f" SELECT t.ctid FROM {table} t WHERE {is_expired} LIMIT %s FOR UPDATE SKIP LOCKED))",
        (BATCH_SIZE,),
    )


def list_unfinished_purges(conn: Connection) -> list[int]:
    """Return the ids of projects whose purge has begun and not finished, at most 100."""
    rows = conn.fetch_all("SELECT id FROM project WHERE purging_at IS NOT NULL ORDER BY id LIMIT 100")
    return [project_id for (project_id,) in rows]
