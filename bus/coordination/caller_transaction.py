"""A verb that is several statements in one transaction: the caller is known, the clock locked, events come last."""

from typing import Any

from psycopg.types.json import Jsonb

from bus.ctx import Ctx
from bus.db import Connection


class Verb:
    """One verb at work. From its first statement on, the project clock is locked until the transaction ends.

    Attributes:
        project_id, actor, is_admin: the caller as it stands at this moment.
    Raises:
        NotAuthenticated, OwnerSuspended, BusError: as any call of a caller that may not write.
    """

    def __init__(self, conn: Connection, ctx: Ctx) -> None:
        self.conn = conn
        self.ctx = ctx
        row = conn.one("SELECT * FROM bus_enter_locked(%s, %s)", (ctx.participation_id, ctx.token_id))
        self.project_id = int(row[0])
        self.actor = str(row[1])
        self.is_admin = bool(row[2])
        self._types: list[str] = []
        self._payloads: list[Jsonb] = []

    def event(self, kind: str, **payload: Any) -> None:
        """Note an event; `finish` writes it."""
        self._types.append(kind)
        self._payloads.append(Jsonb(payload))

    def finish(self) -> int:
        """Append the events, bumping the ledger once; returns how many posts wait for the caller."""
        if self._types:
            self.conn.maybe(
                "SELECT bus_append_all(%s, %s, %s, %s::text[], %s::jsonb[])",
                (self.project_id, self.ctx.participation_id, self.actor, self._types, self._payloads),
            )
        (unread,) = self.conn.one("SELECT bus_unread(%s, %s)", (self.project_id, self.ctx.participation_id))
        return int(unread)
