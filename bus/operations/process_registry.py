"""The processes of the service, as each reports itself every few seconds."""

import socket
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from psycopg.types.json import Jsonb

from bus import __version__
from bus.config.redaction import MaskedSetting
from bus.db import Connection, Row

# One that was not seen for this long is gone.
STALE_AFTER_SECONDS = 60.0
_MAX_PROCESSES = 500


@dataclass(frozen=True, slots=True)
class Process:
    """A process of the service, as it last reported itself.

    Attributes:
        id: random, made anew at each start.
        kind: one of KINDS; `serve` is web and gateway in one.
        age_seconds: since it was seen last.
        uptime_seconds: from its start until it was seen last.
        settings: what was in force when it started, by the name of the variable, masked.
        figures: whole numbers by name. All kinds: `memory_bytes`. web, gateway, serve: `requests_last_minute`,
            `requests_last_5_minutes`, `errors_last_minute`, `errors_last_5_minutes` (answers of 500 and above).
            gateway, serve: `waiting` and `streams`, the calls and streams that are held open; `queued`, calls that
            wait for a thread. worker: `jobs_…` and `failures_…` over the same times, and `schedule`, the seconds
            between two runs of each job, by name.
    """

    id: str
    kind: str
    host: str
    pid: int
    version: str
    started_at: datetime
    seen_at: datetime
    age_seconds: float
    uptime_seconds: float
    settings: dict[str, MaskedSetting]
    metrics: dict[str, Any]

    @property
    def is_stale(self) -> bool:
        """Whether it was not seen for so long that it has ended without a word."""
        return self.age_seconds > STALE_AFTER_SECONDS


def record_heartbeat(
    conn: Connection,
    process_id: str,
    kind: str,
    *,
    pid: int,
    uptime_seconds: float,
    settings: Mapping[str, MaskedSetting],
    metrics: Mapping[str, Any],
) -> None:
    """Say that a process is there: one small UPDATE, and an INSERT the first time.

    Args:
        process_id: random, the same for the life of the process.
        uptime: seconds since it started; its clock is not trusted with more.
        settings: written the first time only, since they never change.
    """
    known = conn.fetch_one_or_none(
        "UPDATE process SET seen_at = clock_timestamp(), figures = %s WHERE id = %s RETURNING 1",
        (Jsonb(metrics), process_id),
    )
    if known is not None:
        return
    shown = {name: {"value": one.value, "default": one.is_default} for name, one in settings.items()}
    conn.execute(
        "INSERT INTO process (id, kind, host, pid, version, started_at, settings, figures)"
        " VALUES (%s, %s, %s, %s, %s, clock_timestamp() - make_interval(secs => %s), %s, %s)"
        " ON CONFLICT (id) DO NOTHING",
        (
            process_id,
            kind,
            (socket.gethostname() or "unknown")[:255],
            pid,
            __version__,
            uptime_seconds,
            Jsonb(shown),
            Jsonb(metrics),
        ),
    )


def remove_process(conn: Connection, process_id: str) -> None:
    """The process stops in order."""
    conn.execute("DELETE FROM process WHERE id = %s", (process_id,))


def list_processes(conn: Connection, *, include_stale: bool = False) -> list[Process]:
    """Processes by kind and start, at most 500.

    Args:
        gone: also those that were seen within the last day and are gone, as after a crash.
    """
    rows = conn.fetch_all(
        "SELECT p.id, p.kind, p.host, p.pid, p.version, p.started_at, p.seen_at,"
        " extract(epoch FROM clock_timestamp() - p.seen_at)::float8,"
        " extract(epoch FROM p.seen_at - p.started_at)::float8, p.settings, p.figures FROM process p"
        " WHERE p.seen_at > clock_timestamp() - make_interval(secs => %s)"
        " ORDER BY p.kind, p.started_at, p.id LIMIT %s",
        (86_400.0 if include_stale else STALE_AFTER_SECONDS, _MAX_PROCESSES),
    )
    return [_process_from_row(row) for row in rows]


def _process_from_row(row: Row) -> Process:
    *facts, shown, figures = row
    settings = {name: MaskedSetting(one["value"], one["default"]) for name, one in shown.items()}
    return Process(*(*facts, settings, figures))
