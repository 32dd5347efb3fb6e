"""What lapses when nobody calls: leases, presence, tasks of those who are gone, invites.

Whether something is over is judged by the clock wherever it is read; what is here only writes down that it is, once,
so that the ledger says so and whoever waits is woken. Each function does one bounded batch of one project and is safe
to run twice at once: the project clock is locked first and everything is read afterwards.
"""

from collections.abc import Callable

from bus.coordination.system_transaction import SystemTransaction
from bus.db import Connection
from bus.rules import task_transitions as rules

BATCH_SIZE = 500
_MAX_PROJECTS = 200

ProjectLister = Callable[[Connection, int], list[int]]


def list_projects_with_expired_leases(conn: Connection, after_project_id: int = 0) -> list[int]:
    """Projects above an id, in order, that have a lease to end."""
    return _list_project_ids(
        conn,
        "SELECT DISTINCT l.project_id FROM lease l"
        " WHERE l.ended_at IS NULL AND l.expires_at <= statement_timestamp() AND l.project_id > %s",
        after_project_id,
    )


def expire_leases(conn: Connection, project_id: int) -> int:
    """End the leases whose time is over, with one `lease_expire` each; returns how many.

    Locks: the project clock, then the leases.
    """
    work = SystemTransaction(conn, project_id)
    rows = conn.fetch_all(
        "UPDATE lease l SET ended_at = l.expires_at, ended_by = 'expiry' FROM ("
        "  SELECT d.id FROM lease d WHERE d.project_id = %(project)s AND d.ended_at IS NULL"
        "   AND d.expires_at <= clock_timestamp() ORDER BY d.id LIMIT %(limit)s) AS due"
        " WHERE l.project_id = %(project)s AND l.id = due.id"
        " RETURNING l.id, l.participation_id, l.actor, l.surface, l.fence",
        {"project": project_id, "limit": BATCH_SIZE},
    )
    for _, participation_id, actor, surface, fence in sorted(rows):
        work.record_event(participation_id, actor, "lease_expire", surface=surface, fence=fence)
    work.finish("leases")
    return len(rows)


def list_projects_with_absent_participants(conn: Connection, after_project_id: int = 0) -> list[int]:
    """Projects above an id, in order, in which somebody is gone and it was not written down."""
    return _list_project_ids(
        conn,
        "SELECT DISTINCT pr.project_id FROM presence pr JOIN project pj ON pj.id = pr.project_id"
        " WHERE pr.lapsed_at IS NULL AND pr.project_id > %s"
        " AND pr.last_seen <= statement_timestamp() - make_interval(secs => pj.gone_window_seconds)",
        after_project_id,
    )


def record_absent_participants(conn: Connection, project_id: int) -> int:
    """Write down who is gone, with one `presence_lapse` each until they are seen again; returns how many.

    Locks: the project clock, then the presence rows, in the order in which a gateway's flush takes them.
    """
    work = SystemTransaction(conn, project_id)
    rows = conn.fetch_all(
        "WITH due AS MATERIALIZED (SELECT pr.participation_id FROM presence pr JOIN project pj ON pj.id = pr.project_id"
        "  WHERE pr.project_id = %(project)s AND pr.lapsed_at IS NULL"
        "   AND pr.last_seen <= clock_timestamp() - make_interval(secs => pj.gone_window_seconds)"
        "  ORDER BY pr.participation_id LIMIT %(limit)s FOR NO KEY UPDATE OF pr)"
        " UPDATE presence pr SET lapsed_at = clock_timestamp() FROM due, participation p"
        " WHERE pr.project_id = %(project)s AND pr.participation_id = due.participation_id"
        "  AND p.id = due.participation_id"
        " RETURNING pr.participation_id, bus_participation_name(pr.participation_id), coalesce(pr.lane, p.lane),"
        "  p.removed_at IS NOT NULL, to_char(pr.last_seen AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.MS\"Z\"')",
        {"project": project_id, "limit": BATCH_SIZE},
    )
    # Who was let go did not leave by itself.
    for participation_id, actor, lane, removed, last_seen in sorted(rows):
        if not removed:
            work.record_event(participation_id, actor, "presence_lapse", lane=lane, last_seen=last_seen)
    work.finish("presence")
    return len(rows)


def list_projects_with_stalled_tasks(conn: Connection, after_project_id: int = 0) -> list[int]:
    """Projects above an id, in order, whose stalled tasks go back, and that have one."""
    return _list_project_ids(
        conn,
        "SELECT pj.id FROM project pj WHERE pj.stall_window_seconds IS NOT NULL AND pj.archived_at IS NULL"
        f" AND pj.id > %s AND EXISTS ({_STALLED_TASKS_SQL.format(project='pj.id')})",
        after_project_id,
    )


def requeue_stalled_tasks(conn: Connection, project_id: int) -> int:
    """Take tasks from those who are gone for the project's stall window, with one `task_requeue` each.

    Returns:
        How many are open again.
    Locks: the project clock.
    """
    work = SystemTransaction(conn, project_id)
    if work.is_closed:
        return 0
    rows = conn.fetch_all(
        f"SELECT s.id, s.participation_id, s.owner FROM ({_STALLED_TASKS_SQL.format(project='%(project)s')}"
        " ORDER BY t.id LIMIT %(limit)s) AS s ORDER BY s.id",
        {"project": project_id, "limit": BATCH_SIZE},
    )
    for task_id, participation_id, owner in rows:
        conn.execute(
            "UPDATE task SET status = %s, participation_id = NULL, owner = NULL, offered_until = NULL,"
            " updated_at = clock_timestamp() WHERE project_id = %s AND id = %s",
            (rules.next_status("requeue", "in_progress"), project_id, task_id),
        )
        work.record_event(participation_id, owner, "task_requeue", task_id=task_id, owner=owner)
    return work.finish("tasks")


# Who was never seen counts from when it took the task.
_STALLED_TASKS_SQL = (
    "SELECT t.id, t.participation_id, t.owner FROM task t JOIN project own ON own.id = t.project_id"
    " LEFT JOIN presence pr ON pr.project_id = t.project_id AND pr.participation_id = t.participation_id"
    " WHERE t.project_id = {project} AND t.status = 'in_progress'"
    "  AND greatest(pr.last_seen, t.updated_at)"
    "   <= clock_timestamp() - make_interval(secs => own.stall_window_seconds)"
)


def expire_invites(conn: Connection) -> int:
    """Write to the audit log which invites ended by the clock, unused or half used; returns how many.

    Locks: the invites, and waits for none.
    """
    (count,) = conn.fetch_one(
        "WITH due AS (SELECT i.id FROM invite i WHERE i.revoked_at IS NULL AND i.expired_at IS NULL"
        "  AND i.used < i.uses AND i.expires_at <= clock_timestamp() ORDER BY i.id LIMIT %s FOR UPDATE SKIP LOCKED),"
        " ended AS (UPDATE invite i SET expired_at = clock_timestamp() FROM due WHERE i.id = due.id"
        "  RETURNING i.project_id, i.hint, i.used, i.uses),"
        " noted AS (INSERT INTO audit (owner_id, project_id, actor, action, subject, detail)"
        "  SELECT pj.owner_id, ended.project_id, 'clock', 'invite.expire', ended.hint,"
        "   jsonb_build_object('used', ended.used, 'uses', ended.uses)"
        "  FROM ended JOIN project pj ON pj.id = ended.project_id RETURNING 1)"
        " SELECT count(*) FROM noted",
        (BATCH_SIZE,),
    )
    return int(count)


def _list_project_ids(conn: Connection, sql: str, after_project_id: int) -> list[int]:
    return [
        project_id for (project_id,) in conn.fetch_all(f"{sql} ORDER BY 1 LIMIT {_MAX_PROJECTS}", (after_project_id,))
    ]
