"""A process reports itself: from a thread of its own, every few seconds, and never in the way of its work."""

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
from bus.operations.counters import Counter
from bus.rules.enums import PROCESS_KINDS

HEARTBEAT_INTERVAL_SECONDS = 10.0
_WINDOWS = (("last_minute", 60.0), ("last_5_minutes", 300.0))
# Stopping waits no longer for a database that does not answer; the row is pruned then.
_STOP_TIMEOUT_SECONDS = 2.0
_log = logging.getLogger(__name__)


class HeartbeatReporter:
    """Reports one process to PostgreSQL. While that is away nothing is reported, and nothing else happens.

    Args:
        db: a pool of the process; a connection of it is borrowed for a moment.
        kind: one of `processes.KINDS`.
        settings: what is in force, masked.
        counts: what only rises, by name; told as how much it rose in the last minutes.
        figures: what is the case at the moment, by name; numbers, or objects of numbers.
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
        self._thread = threading.Thread(target=self._run, name="reporter", daemon=True)

    def start(self) -> None:
        """Begin to report; the first report is made at once."""
        self._thread.start()

    def stop(self) -> None:
        """End it and take the report back: the process stops in order."""
        self._stop_requested.set()
        if self._thread.ident is not None:
            self._thread.join(_STOP_TIMEOUT_SECONDS)

    def _run(self) -> None:
        while not self._stop_requested.is_set():
            try:
                self._send_heartbeat()
            except Exception:  # noqa: BLE001
                # The database is away, or has no such table yet: whoever needs it says so, louder.
                _log.debug("this process was not reported", exc_info=True)
            self._stop_requested.wait(HEARTBEAT_INTERVAL_SECONDS)
        try:
            with self._db.connection() as conn:
                process_registry.remove_process(conn, self.process_id)
        except Exception:  # noqa: BLE001
            _log.debug("the report was not taken back", exc_info=True)

    def _send_heartbeat(self) -> None:
        figures = {"memory_bytes": psutil.Process().memory_info().rss, **self._recent_increases(), **self._gauges()}
        with self._db.connection() as conn:
            process_registry.record_heartbeat(
                conn,
                self.process_id,
                self._kind,
                pid=os.getpid(),
                uptime_seconds=time.monotonic() - self._started_at,
                settings=self._settings,
                metrics=figures,
            )
        with self._db.transaction() as conn:
            status.record_sample(conn)

    def _recent_increases(self) -> dict[str, int]:
        """How much each count rose in each window, or since the start."""
        now, counts = time.monotonic(), dict(self._counters())
        found: dict[str, int] = {}
        for window, seconds in _WINDOWS:
            # The newest that is old enough: a window is some seconds longer rather than shorter.
            before = next((old for at, old in reversed(self._history) if now - at >= seconds), self._history[0][1])
            found |= {f"{name}_{window}": count - before.get(name, 0) for name, count in counts.items()}
        self._history.append((now, counts))
        while len(self._history) > 1 and now - self._history[1][0] >= _WINDOWS[-1][1]:
            self._history.popleft()
        return found


def request_counts(*counters: Counter) -> dict[str, int]:
    """The `requests` and `errors` of tallies whose last label is the HTTP status."""
    found = {"requests": 0, "errors": 0}
    for tally in counters:
        for labels, count in tally.snapshot().items():
            found["requests"] += count
            found["errors"] += count if labels[-1][:1] == "5" else 0
    return found
