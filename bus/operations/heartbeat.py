"""Heartbeat of a process: a thread reports it to the process registry every few seconds."""

import logging
import os
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

import psutil

from bus.config.redaction import MaskedSetting
from bus.db import Database
from bus.operations import process_registry, status
from bus.operations.counters import Counter, read_counts
from bus.rules.enums import PROCESS_KINDS

HEARTBEAT_INTERVAL_SECONDS = 10.0
_WINDOWS = (("last_minute", 60.0), ("last_5_minutes", 300.0))
# Longest wait for the database at shutdown; a row that stays behind is pruned later.
_STOP_TIMEOUT_SECONDS = 2.0
_log = logging.getLogger(__name__)


class HeartbeatReporter:
    """Sends the heartbeat of one process to PostgreSQL; failures are only logged.

    Args:
        db: connection pool of the process; a heartbeat borrows a connection briefly.
        kind: one of PROCESS_KINDS.
        settings: settings in force, masked.
        counters: returns monotonic counts by name; their increase in the last minutes is reported.
        gauges: returns current values by name: numbers, or objects of numbers.
    """

    def __init__(
        self,
        db: Database,
        kind: str,
        settings: Mapping[str, MaskedSetting],
        *,
        counters: Callable[[], Mapping[str, int]] = dict,
        gauges: Callable[[], Mapping[str, Any]] = dict,
    ) -> None:
        assert kind in PROCESS_KINDS
        self.process_id = secrets.token_hex(8)
        self._db = db
        self._kind = kind
        self._settings = settings
        self._counters = counters
        self._gauges = gauges
        self._started_at = time.monotonic()
        self._history: deque[tuple[float, Mapping[str, int]]] = deque([(self._started_at, {})])
        self._stop_requested = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)

    def start(self) -> None:
        """Start the thread; it sends the first heartbeat at once."""
        self._thread.start()

    def stop(self) -> None:
        """Stop the thread and remove the process from the registry."""
        self._stop_requested.set()
        if self._thread.ident is not None:
            self._thread.join(_STOP_TIMEOUT_SECONDS)

    def _run(self) -> None:
        while not self._stop_requested.is_set():
            try:
                self._send_heartbeat()
            except Exception:  # noqa: BLE001
                # The database is away or not migrated; its other users report that as an error.
                _log.debug("heartbeat failed", exc_info=True)
            self._stop_requested.wait(HEARTBEAT_INTERVAL_SECONDS)
        try:
            with self._db.connection() as conn:
                process_registry.remove_process(conn, self.process_id)
        except Exception:  # noqa: BLE001
            _log.debug("process was not removed from the registry", exc_info=True)

    def _send_heartbeat(self) -> None:
        metrics = {"memory_bytes": psutil.Process().memory_info().rss, **self._recent_increases(), **self._gauges()}
        with self._db.connection() as conn:
            process_registry.record_heartbeat(
                conn,
                self.process_id,
                self._kind,
                pid=os.getpid(),
                uptime_seconds=time.monotonic() - self._started_at,
                settings=self._settings,
                metrics=metrics,
            )
        with self._db.transaction() as conn:
            status.record_sample(conn)

    def _recent_increases(self) -> dict[str, int]:
        """Return the increase of each count in each window, or since the start of the process."""
        now, counts = time.monotonic(), dict(self._counters())
        increases: dict[str, int] = {}
        for window, seconds in _WINDOWS:
            # The newest snapshot that is old enough, so that a window is rather a few seconds too long than too short.
            before = next((past for at, past in reversed(self._history) if now - at >= seconds), self._history[0][1])
            increases |= {f"{name}_{window}": count - before.get(name, 0) for name, count in counts.items()}
        self._history.append((now, counts))
        while len(self._history) > 1 and now - self._history[1][0] >= _WINDOWS[-1][1]:
            self._history.popleft()
        return increases


def request_counts(*counters: Counter) -> dict[str, int]:
    """Sum up the `requests` and `errors` of counters whose last label is the HTTP status."""
    totals = {"requests": 0, "errors": 0}
    for counter in counters:
        for labels, count in read_counts(counter).items():
            totals["requests"] += count
            totals["errors"] += count if labels[-1][:1] == "5" else 0
    return totals
