"""The state of a project that a subscription reports, and its changes since.

A gateway keeps the streams open and passes the states of all of them to `fetch_changes` after a change notification
or at an interval. A notification that is lost or arrives twice changes nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from bus.ctx import Ctx
from bus.db import Connection
from bus.limits import MAX_INTEGER


@dataclass(frozen=True, slots=True)
class SubscriptionState:
    """The state of a project that a subscription has reported to its caller.

    Attributes:
        last_seq: the last event.
        inbox: the number of unread posts (counted up to 100) and the id of the newest; 0 if there are none.
        is_admin: whether the caller has the tools of a project-admin.
    """

    ctx: Ctx
    last_seq: int
    inbox: tuple[int, int]
    is_admin: bool


@dataclass(frozen=True, slots=True)
class SubscriptionChange:
    """The present state of a subscription, and the types of the events since the previous state."""

    state: SubscriptionState
    event_types: frozenset[str]


def fetch_changes(conn: Connection, states: Sequence[SubscriptionState]) -> list[SubscriptionChange | None]:
    """Return the changes since each state, in one statement for any number of states.

    Returns:
        One entry for each state; None if its caller has lost its access. Event types are those of the newest 500
        events.
    """
    rows = conn.fetch_all(
        _CHANGES_SQL,
        {
            "projects": [state.ctx.project_id for state in states],
            "participations": [state.ctx.participation_id for state in states],
            "tokens": [state.ctx.token_id for state in states],
            "seqs": [state.last_seq for state in states],
        },
    )
    changes: list[SubscriptionChange | None] = [None] * len(states)
    for position, is_admin, last_seq, unread, newest_post_id, event_types in rows:
        changes[position - 1] = SubscriptionChange(
            state=SubscriptionState(
                ctx=states[position - 1].ctx, last_seq=last_seq, inbox=(unread, newest_post_id), is_admin=is_admin
            ),
            event_types=frozenset(event_types),
        )
    return changes


def begin_subscription(conn: Connection, ctx: Ctx) -> SubscriptionState | None:
    """Return the state from which a new subscription starts; None if the caller has no access."""
    unknown = SubscriptionState(ctx=ctx, last_seq=MAX_INTEGER, inbox=(0, 0), is_admin=False)
    (change,) = fetch_changes(conn, [unknown])
    return change.state if change is not None else None


_CHANGES_SQL = """
    SELECT w.n, p.is_admin, k.last_seq, inbox.unread, inbox.newest,
           ARRAY(SELECT DISTINCT e.type FROM (
                SELECT e.type FROM event e WHERE e.project_id = w.project_id AND e.seq > w.seq
                ORDER BY e.seq DESC LIMIT 500) AS e)
    FROM unnest(%(projects)s::bigint[], %(participations)s::bigint[], %(tokens)s::bigint[], %(seqs)s::bigint[])
         WITH ORDINALITY AS w (project_id, me, token_id, seq, n)
    JOIN participation p ON p.id = w.me
    JOIN project_clock k ON k.project_id = w.project_id
    CROSS JOIN LATERAL (
        SELECT count(*)::integer AS unread, coalesce(max(d.post_id), 0) AS newest FROM (
            SELECT d.post_id FROM delivery d
            WHERE d.project_id = w.project_id AND d.participation_id = w.me AND d.acked_at IS NULL
            ORDER BY d.post_id DESC LIMIT 100) AS d) AS inbox
    WHERE bus_has_access(w.me) AND (w.token_id IS NULL OR EXISTS (
        SELECT FROM token t WHERE t.id = w.token_id AND bus_token_is_live(t.revoked_at, t.expires_at)))
    ORDER BY w.n
"""
