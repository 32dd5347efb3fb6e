"""Transactions that lock a project's clock and append events to its ledger."""

from typing import Any

from psycopg.pq import TransactionStatus
from psycopg.types.json import Jsonb

from bus.ctx import Ctx
from bus.db import Connection


class CallerTransaction:
    """A write of a caller that takes several statements in one transaction.

    The first statement authenticates the caller and locks the project clock until the transaction ends. Events are
    buffered and appended by `finish`.

    Attributes:
        project_id, actor, is_admin: the caller's project, qualified name and rights at this moment.
    Raises:
        NotAuthenticated, OwnerSuspended: as for every call.
        BusError: `forbidden` when the project is archived.
    Locks: the project clock.
    """

    def __init__(self, conn: Connection, ctx: Ctx) -> None:
        _assert_in_transaction(conn)
        self.conn = conn
        self.ctx = ctx
        project_id, actor, is_admin = conn.fetch_one(
            "SELECT project_id, actor, is_admin FROM bus_authenticate_and_lock(%s, %s)",
            (ctx.participation_id, ctx.token_id),
        )
        self.project_id = int(project_id)
        self.actor = str(actor)
        self.is_admin = bool(is_admin)
        self._event_types: list[str] = []
        self._event_payloads: list[Jsonb] = []

    def record_event(self, event_type: str, **payload: Any) -> None:
        """Buffer an event of the caller."""
        self._event_types.append(event_type)
        self._event_payloads.append(Jsonb(payload))

    def finish(self) -> int:
        """Append the buffered events, advancing the clock once.

        Returns:
            The caller's number of unread posts, counted up to 100.
        """
        if self._event_types:
            self.conn.execute(
                "SELECT bus_append_all(%s, %s, %s, %s::text[], %s::jsonb[], %s)",
                (
                    self.project_id,
                    self.ctx.participation_id,
                    self.actor,
                    self._event_types,
                    self._event_payloads,
                    self.ctx.session,
                ),
            )
        (unread,) = self.conn.fetch_one("SELECT bus_unread(%s, %s)", (self.project_id, self.ctx.participation_id))
        return int(unread)


class SystemTransaction:
    """A write of a job to one project, with events of several actors.

    An event is recorded under the name of the participant that it concerns: the holder of an expired lease, an absent
    participant, the sender of an overdue post. Events are buffered and appended by `finish`.

    Attributes:
        is_closed: whether the project is archived or being purged, so that its ledger accepts no events.
    Locks: the project clock, until the transaction ends.
    """

    def __init__(self, conn: Connection, project_id: int) -> None:
        _assert_in_transaction(conn)
        self.conn = conn
        self.project_id = project_id
        conn.execute("SELECT bus_lock_clock(%s)", (project_id,))
        row = conn.fetch_one_or_none("SELECT closed FROM project_clock WHERE project_id = %s", (project_id,))
        self.is_closed = row is None or bool(row[0])
        self._events: list[tuple[int | None, str, str, Jsonb]] = []

    def record_event(self, participation_id: int | None, actor: str, event_type: str, **payload: Any) -> None:
        """Buffer an event of `actor`."""
        self._events.append((participation_id, actor, event_type, Jsonb(payload)))

    def finish(self, *topics: str) -> int:
        """Append the buffered events, advancing the clock once, and notify of `topics` after the commit.

        Returns:
            The number of events; 0 in a closed project.
        """
        if not self._events or self.is_closed:
            return 0
        columns = [list(column) for column in zip(*self._events, strict=True)]
        self.conn.execute(
            "SELECT bus_append_each(%s, %s::bigint[], %s::text[], %s::text[], %s::jsonb[])", (self.project_id, *columns)
        )
        self.conn.notify_on_commit(self.project_id, "ledger", *topics)
        return len(self._events)


def _assert_in_transaction(conn: Connection) -> None:
    # In autocommit mode the clock would be unlocked again after the statement that locks it. 0.4 microseconds.
    assert conn.raw.pgconn.transaction_status != TransactionStatus.IDLE, "this verb needs a transaction"
