"""Process registry: the running processes of the service; each sends a heartbeat every few seconds."""

import dataclasses
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from psycopg.types.json import Jsonb

from bus import __version__
from bus.config.redaction import MaskedSetting
from bus.db import Connection

# A process without a heartbeat for this long has ended.
STALE_AFTER_SECONDS = 60.0
_STALE_LISTED_SECONDS = 86_400.0
_MAX_PROCESSES = 500
_MAX_HOST_LENGTH = 255


@dataclass(frozen=True, slots=True)
class Process:
    """A process of the service, as of its last heartbeat.

    Attributes:
        id: random, new at each start.
        kind: one of PROCESS_KINDS (bus/rules/enums.py); `serve` is web and gateway in one process.
        seen_at: time of the last heartbeat.
        age_seconds: since the last heartbeat.
        uptime_seconds: from the start to the last heartbeat.
        settings: settings in force, by variable, masked.
        metrics: whole numbers by name. All kinds: `memory_bytes`. web, gateway, serve: `requests_last_minute`,
            `requests_last_5_minutes`, `errors_last_minute`, `errors_last_5_minutes` (responses of 500 and above).
            gateway, serve: `waiting` and `streams`, open long polls and streams; `queued`, calls that wait for a
            thread. worker: `jobs_…` and `failures_…` over the same periods, and `schedule`, the seconds between two
            runs of each job, by name.
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
        """Whether the last heartbeat is so old that the process must have ended without signing off."""
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
    """Record a heartbeat: one small UPDATE, and an INSERT the first time.

    Args:
        process_id: random, constant for the life of the process.
        uptime_seconds: since the start; the database's clock gives the start time.
        settings: stored the first time only, since they never change.
        metrics: see `Process.metrics`.
    """
    updated = conn.execute(
        "UPDATE process SET seen_at = clock_timestamp(), figures = %s WHERE id = %s",
        (Jsonb(metrics), process_id),
    )
    if updated:
        return
    settings_json = {
        name: {"value": setting.value, "default": setting.is_default} for name, setting in settings.items()
    }
    conn.execute(
        "INSERT INTO process (id, kind, host, pid, version, started_at, settings, figures)"
        " VALUES (%s, %s, %s, %s, %s, clock_timestamp() - make_interval(secs => %s), %s, %s)"
        " ON CONFLICT (id) DO NOTHING",
        (
            process_id,
            kind,
            (socket.gethostname() or "unknown")[:_MAX_HOST_LENGTH],
            pid,
            __version__,
            uptime_seconds,
            Jsonb(settings_json),
            Jsonb(metrics),
        ),
    )


def remove_process(conn: Connection, process_id: str) -> None:
    """Remove a process that shuts down in order."""
    conn.execute("DELETE FROM process WHERE id = %s", (process_id,))


def list_processes(conn: Connection, *, include_stale: bool = False) -> list[Process]:
    """Return processes by kind and start, at most 500.

    Args:
        include_stale: include processes that ended within the last day without signing off, as after a crash.
    """
    processes = conn.fetch_all_as(
        Process,
        "SELECT p.id, p.kind, p.host, p.pid, p.version, p.started_at, p.seen_at,"
        " extract(epoch FROM clock_timestamp() - p.seen_at)::float8 AS age_seconds,"
        " extract(epoch FROM p.seen_at - p.started_at)::float8 AS uptime_seconds,"
        " p.settings, p.figures AS metrics FROM process p"
        " WHERE p.seen_at > clock_timestamp() - make_interval(secs => %s)"
        " ORDER BY p.kind, p.started_at, p.id LIMIT %s",
        (_STALE_LISTED_SECONDS if include_stale else STALE_AFTER_SECONDS, _MAX_PROCESSES),
    )
    return [dataclasses.replace(process, settings=_settings_from_json(process.settings)) for process in processes]


def has_mail_server(conn: Connection) -> bool:
    """Whether a running worker has a mail server, so that e-mails are sent."""
    (is_found,) = conn.fetch_one(
        "SELECT EXISTS (SELECT FROM process WHERE kind = 'worker' AND settings->'SMTP_URL'->>'value' <> ''"
        " AND seen_at > clock_timestamp() - make_interval(secs => %s))",
        (STALE_AFTER_SECONDS,),
    )
    return bool(is_found)


def _settings_from_json(settings_json: Mapping[str, Any]) -> dict[str, MaskedSetting]:
    return {
        name: MaskedSetting(value=setting["value"], is_default=setting["default"])
        for name, setting in settings_json.items()
    }
