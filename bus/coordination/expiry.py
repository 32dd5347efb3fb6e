"""Time-based expiry of leases, presence, tasks and invites.

Every read decides by the database's clock whether something has expired. The functions here only record it, once, so
that the ledger contains it and waiting calls are woken. Each handles one bounded batch of one project and may run
concurrently with itself: it locks the project clock first and reads afterwards.
"""

from collections.abc import Callable

from bus.coordination.transactions import SystemTransaction
from bus.db import Connection
from bus.rules import task_transitions

BATCH_SIZE = 500
_MAX_PROJECTS = 200

ProjectLister = Callable[[Connection, int], list[int]]


def list_projects_with_expired_leases(conn: Connection, after_project_id: int = 0) -> list[int]:
    """List the projects after `after_project_id`, by id, that have an expired lease to end."""
    return _list_project_ids(
        conn,
        "SELECT DISTINCT l.project_id FROM lease l"
        " WHERE l.ended_at IS NULL AND l.expires_at <= statement_timestamp() AND l.project_id > %s",
        after_project_id,
    )


def expire_leases(conn: Connection, project_id: int) -> int:
    """End expired leases, with one `lease_expire` event each; returns their number.

    Locks: the project clock, then the leases.
    """
    transaction = SystemTransaction(conn, project_id)
    rows = conn.fetch_all(
        "UPDATE lease l SET ended_at = l.expires_at, ended_by = 'expiry'"
        " WHERE l.project_id = %(project)s AND l.id = ANY (ARRAY("
        "  SELECT d.id FROM lease d WHERE d.project_id = %(project)s AND d.ended_at IS NULL"
        "   AND d.expires_at <= clock_timestamp() ORDER BY d.id LIMIT %(limit)s))"
        " RETURNING l.id, l.participation_id, l.actor, l.surface, l.fence",
        {"project": project_id, "limit": BATCH_SIZE},
    )
    for _, participation_id, actor, surface, fence in sorted(rows):
        transaction.record_event(participation_id, actor, "lease_expire", surface=surface, fence=fence)
    transaction.finish("leases")
    return len(rows)


def list_projects_with_absent_participants(conn: Connection, after_project_id: int = 0) -> list[int]:
    """List the projects after `after_project_id`, by id, that have an absence to record."""
    return _list_project_ids(
        conn,
        "SELECT DISTINCT pr.project_id FROM presence pr JOIN project pj ON pj.id = pr.project_id"
        " WHERE pr.lapsed_at IS NULL AND pr.project_id > %s"
        " AND pr.last_seen <= statement_timestamp() - make_interval(secs => pj.gone_window_seconds)",
        after_project_id,
    )


def record_absent_participants(conn: Connection, project_id: int) -> int:
    """Record participants not seen for the project's gone window, with one `presence_lapse` event each.

    A participant is recorded again only after it was seen again. A removed participant gets no event: it did not
    leave by itself.

    Returns:
        The number of participants recorded.
    Locks: the project clock, then the presence rows, in the order in which a gateway's flush takes them.
    """
    transaction = SystemTransaction(conn, project_id)
    rows = conn.fetch_all(
        "WITH absent AS MATERIALIZED ("
        "  SELECT pr.participation_id FROM presence pr JOIN project pj ON pj.id = pr.project_id"
        "  WHERE pr.project_id = %(project)s AND pr.lapsed_at IS NULL"
        "   AND pr.last_seen <= clock_timestamp() - make_interval(secs => pj.gone_window_seconds)"
        "  ORDER BY pr.participation_id LIMIT %(limit)s FOR NO KEY UPDATE OF pr)"
        " UPDATE presence pr SET lapsed_at = clock_timestamp() FROM absent, participation p"
        " WHERE pr.project_id = %(project)s AND pr.participation_id = absent.participation_id"
        "  AND p.id = absent.participation_id"
        " RETURNING pr.participation_id, bus_participation_name(pr.participation_id), coalesce(pr.lane, p.lane),"
        "  p.removed_at IS NOT NULL, to_char(pr.last_seen AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.MS\"Z\"')",
        {"project": project_id, "limit": BATCH_SIZE},
    )
    for participation_id, actor, lane, is_removed, last_seen in sorted(rows):
        if not is_removed:
            transaction.record_event(participation_id, actor, "presence_lapse", lane=lane, last_seen=last_seen)
    transaction.finish("presence")
    return len(rows)


# A participant that was never seen counts as seen when it took the task.
_STALLED_TASKS_SQL = (
    "SELECT t.id, t.participation_id, t.owner FROM task t JOIN project own ON own.id = t.project_id"
    " LEFT JOIN presence pr ON pr.project_id = t.project_id AND pr.participation_id = t.participation_id"
    " WHERE t.project_id = {project} AND t.status = 'in_progress'"
    "  AND greatest(pr.last_seen, t.updated_at)"
    "   <= clock_timestamp() - make_interval(secs => own.stall_window_seconds)"
)


def list_projects_with_stalled_tasks(conn: Connection, after_project_id: int = 0) -> list[int]:
    """List the projects after `after_project_id`, by id, that have a stall window and a stalled task."""
    return _list_project_ids(
        conn,
        "SELECT pj.id FROM project pj WHERE pj.stall_window_seconds IS NOT NULL AND pj.archived_at IS NULL"
        f" AND pj.id > %s AND EXISTS ({_STALLED_TASKS_SQL.format(project='pj.id')})",
        after_project_id,
    )


def requeue_stalled_tasks(conn: Connection, project_id: int) -> int:
    """Reopen tasks whose assignees were absent for the project's stall window, with one `task_requeue` event each.

    Returns:
        The number of tasks reopened.
    Locks: the project clock.
    """
    transaction = SystemTransaction(conn, project_id)
    if transaction.is_closed:
        return 0
    rows = conn.fetch_all(
        f"SELECT s.id, s.participation_id, s.owner FROM ({_STALLED_TASKS_SQL.format(project='%(project)s')}"
        " ORDER BY t.id LIMIT %(limit)s) AS s ORDER BY s.id",
        {"project": project_id, "limit": BATCH_SIZE},
    )
    for task_id, participation_id, owner in rows:
        conn.execute(
            "UPDATE task SET status = %s, participation_id = NULL, owner = NULL, session_key = NULL,"
            " offered_until = NULL, updated_at = clock_timestamp() WHERE project_id = %s AND id = %s",
            (task_transitions.next_status("requeue", "in_progress"), project_id, task_id),
        )
        transaction.record_event(participation_id, owner, "task_requeue", task_id=task_id, owner=owner)
    return transaction.finish("tasks")


def expire_invites(conn: Connection) -> int:
    """Record expired invites with remaining uses in the audit log; returns their number.

    Locks: the invites; those that are locked already are skipped.
    """
    (count,) = conn.fetch_one(
        "WITH due AS (SELECT i.id FROM invite i WHERE i.revoked_at IS NULL AND i.expired_at IS NULL"
        "  AND i.used < i.uses AND i.expires_at <= clock_timestamp() ORDER BY i.id LIMIT %s FOR UPDATE SKIP LOCKED),"
        " expired AS (UPDATE invite i SET expired_at = clock_timestamp() FROM due WHERE i.id = due.id"
        "  RETURNING i.project_id, i.hint, i.used, i.uses),"
        " recorded AS (INSERT INTO audit (owner_id, project_id, actor, action, subject, detail)"
        "  SELECT pj.owner_id, expired.project_id, 'clock', 'invite.expire', expired.hint,"
        "   jsonb_build_object('used', expired.used, 'uses', expired.uses)"
        "  FROM expired JOIN project pj ON pj.id = expired.project_id RETURNING 1)"
        " SELECT count(*) FROM recorded",
        (BATCH_SIZE,),
    )
    return int(count)


def _list_project_ids(conn: Connection, sql: str, after_project_id: int) -> list[int]:
    rows = conn.fetch_all(f"{sql} ORDER BY 1 LIMIT {_MAX_PROJECTS}", (after_project_id,))
    return [project_id for (project_id,) in rows]
