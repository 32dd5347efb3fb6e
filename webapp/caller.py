"""The signed-in owner as a caller of the engine."""

from flask import g

from bus.coordination import presence
from bus.ctx import Ctx
from bus.tenancy import owner_participation
from webapp.auth import current_owner
from webapp.blueprints import current_project
from webapp.context import connection, transaction


def current_caller() -> Ctx:
    """The owner's participation in the current project; created on first use, after which agents can write to it."""
    if "bus_caller" not in g:
        owner_id, project_id = current_owner().id, current_project().id
        with connection() as conn:
            caller = owner_participation.find_owner_context(conn, owner_id, project_id)
        if caller is None:
            with transaction() as conn:
                caller = owner_participation.get_or_create_owner_context(conn, owner_id, project_id)
        g.bus_caller = caller
    ctx: Ctx = g.bus_caller
    return ctx


def record_activity(*topics: str) -> None:
    """Record the owner's presence, as for a call of an agent, and publish what has changed.

    Args:
        topics: the kinds of the committed changes; see bus/coordination/change_notifications.py.
    """
    with connection() as conn:
        presence.record_seen(conn, {current_caller().participation_id: 0.0})
        conn.notify_on_commit(current_caller().project_id, "ledger", *topics)
