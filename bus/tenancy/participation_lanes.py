"""Entering and leaving the lane of a participation: the one registered last, else the granted one."""

from bus.db import Connection


def join_current_lane(conn: Connection, project_id: int, participation_id: int) -> None:
    """Deliver the posts of the participation's lane: the one registered last, else the granted one.

    A participation without a live token is in no lane; call this when it gets one.
    """
    conn.execute(
        "SELECT bus_join_lane(p.project_id, p.id, coalesce(pr.lane, p.lane)) FROM participation p"
        " LEFT JOIN presence pr ON pr.project_id = p.project_id AND pr.participation_id = p.id"
        " WHERE p.id = %s AND p.project_id = %s AND coalesce(pr.lane, p.lane) IS NOT NULL",
        (participation_id, project_id),
    )


def leave_current_lane(conn: Connection, project_id: int, participation_id: int) -> None:
    """Withdraw the unread posts of the participation's lane and clear its registration."""
    conn.execute(
        "SELECT bus_leave_lane(p.project_id, p.id, coalesce(pr.lane, p.lane)) FROM participation p"
        " LEFT JOIN presence pr ON pr.project_id = p.project_id AND pr.participation_id = p.id"
        " WHERE p.id = %s AND p.project_id = %s AND coalesce(pr.lane, p.lane) IS NOT NULL",
        (participation_id, project_id),
    )
    conn.execute(
        "UPDATE presence SET lane = NULL, status = '', registered_at = NULL"
        " WHERE project_id = %s AND participation_id = %s",
        (project_id, participation_id),
    )
