"""What every job that writes to a ledger needs: the project's clock locked, and events of many actors at once.

Events that nobody's call wrote carry the name of whoever they concern: the holder of a lease that ended, the one who
is gone, the sender of an overdue post.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from psycopg.types.json import Jsonb

from bus.db import Connection


@dataclass
class SystemTransaction:
    """One project at the hands of a job. Its clock is locked from here until the transaction ends.

    Attributes:
        closed: the project is archived or being purged: its ledger takes no more events.
    """

    conn: Connection
    project_id: int
    is_closed: bool = field(init=False)
    _events: list[tuple[int | None, str, str, Jsonb]] = field(init=False, default_factory=list)

    def __post_init__(self) -> None:
        self.conn.execute("SELECT bus_lock_clock(%s)", (self.project_id,))
        row = self.conn.fetch_one_or_none("SELECT closed FROM project_clock WHERE project_id = %s", (self.project_id,))
        self.is_closed = row is None or bool(row[0])

    def record_event(self, participation_id: int | None, actor: str, event_type: str, **payload: Any) -> None:
        """Note an event; `finish` writes it."""
        self._events.append((participation_id, actor, event_type, Jsonb(payload)))

    def finish(self, *topics: str) -> int:
        """Append the events, bumping the ledger once, and say what kinds of things changed; returns how many."""
        if not self._events or self.is_closed:
            return 0
        columns: Sequence[Any] = [list(column) for column in zip(*self._events, strict=True)]
        self.conn.execute(
            "SELECT bus_append_each(%s, %s::bigint[], %s::text[], %s::text[], %s::jsonb[])", (self.project_id, *columns)
        )
        self.conn.notify_on_commit(self.project_id, "ledger", *topics)
        return len(self._events)
