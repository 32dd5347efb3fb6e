"""A verb that is several statements in one transaction: the caller is known, the clock locked, events come last."""

from typing import Any

from psycopg.types.json import Jsonb

from bus.ctx import Ctx
from bus.db import Connection


class CallerTransaction:
    """One verb at work. From its first statement on, the project clock is locked until the transaction ends.

    Attributes:
        project_id, actor, is_admin: the caller as it stands at this moment.
    Raises:
        NotAuthenticated, OwnerSuspended, BusError: as any call of a caller that may not write.
    """

    def __init__(self, conn: Connection, ctx: Ctx) -> None:
        self.conn = conn
        self.ctx = ctx
        row = conn.fetch_one("SELECT * FROM bus_authenticate_and_lock(%s, %s)", (ctx.participation_id, ctx.token_id))
        self.project_id = int(row[0])
        self.actor = str(row[1])
        self.is_admin = bool(row[2])
        self._event_types: list[str] = []
        self._event_payloads: list[Jsonb] = []

    def record_event(self, event_type: str, **payload: Any) -> None:
        """Note an event; `finish` writes it."""
        self._event_types.append(event_type)
        self._event_payloads.append(Jsonb(payload))

    def finish(self) -> int:
        """Append the events, bumping the ledger once; returns how many posts wait for the caller."""
        if self._event_types:
            self.conn.execute(
                "SELECT bus_append_all(%s, %s, %s, %s::text[], %s::jsonb[])",
                (self.project_id, self.ctx.participation_id, self.actor, self._event_types, self._event_payloads),
            )
        (unread,) = self.conn.fetch_one("SELECT bus_unread(%s, %s)", (self.project_id, self.ctx.participation_id))
        return int(unread)
