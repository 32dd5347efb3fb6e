"""Assertions about the database, and about refused calls."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from bus.db import Connection
from bus.errors import BusError
from bus.tables import metadata


@contextmanager
def assert_refused(conn: Connection, code: str) -> Iterator[pytest.ExceptionInfo[BusError]]:
    """Expect a refusal with this code, and roll back what the call did, as each process does."""
    with pytest.raises(BusError) as caught, conn.raw.transaction():
        yield caught
    assert caught.value.code == code, caught.value.message


_CHECKSUM_SQL = " UNION ALL ".join(
    f"SELECT '{name}', count(*), md5(string_agg(t::text, '|' ORDER BY t::text)) FROM {name} t"
    for name in metadata.tables
)


def database_checksum(conn: Connection) -> dict[str, Any]:
    """Row count and checksum of each table, to detect any change."""
    return {name: rest for name, *rest in conn.fetch_all(_CHECKSUM_SQL)}


def list_events(conn: Connection, project_id: int) -> list[tuple[int, str, dict[str, Any]]]:
    """Return the project's events as (seq, type, payload), oldest first."""
    return [
        (seq, kind, payload)
        for seq, kind, payload in conn.fetch_all(
            "SELECT seq, type, payload FROM event WHERE project_id = %s ORDER BY seq", (project_id,)
        )
    ]


def list_event_types(conn: Connection, project_id: int) -> list[str]:
    """Return the types of the project's events, oldest first."""
    return [kind for _, kind, _ in list_events(conn, project_id)]


def assert_ledger_consistent(conn: Connection, project_id: int) -> int:
    """Assert that the ledger has no gap, matches its clock and never goes back in time. Returns its length."""
    rows = conn.fetch_all("SELECT seq, at FROM event WHERE project_id = %s ORDER BY seq", (project_id,))
    assert [seq for seq, _ in rows] == list(range(1, len(rows) + 1))
    times = [at for _, at in rows]
    assert times == sorted(times)
    last_seq, last_at = conn.fetch_one(
        "SELECT last_seq, last_at FROM project_clock WHERE project_id = %s", (project_id,)
    )
    assert last_seq == len(rows)
    assert not times or last_at >= times[-1]
    return len(rows)
