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

from bus.config.redaction import Setting
from bus.db import Database
from bus.operations import process_registry, status
from bus.operations.counters import Tally

EVERY_SECONDS = 10.0
_WINDOWS = (("last_minute", 60.0), ("last_5_minutes", 300.0))
# Stopping waits no longer for a database that does not answer; the row is pruned then.
_STOP_SECONDS = 2.0
_log = logging.getLogger(__name__)


class Reporter:
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
        settings: Mapping[str, Setting],
        *,
        counts: Callable[[], Mapping[str, int]] = dict,
        figures: Callable[[], Mapping[str, Any]] = dict,
    ) -> None:
        assert kind in process_registry.KINDS
        self.id = secrets.token_hex(8)
        self._db = db
        self._kind = kind
        self._settings = settings
        self._counts = counts
        self._figures = figures
        self._started = time.monotonic()
        self._history: deque[tuple[float, Mapping[str, int]]] = deque([(self._started, {})])
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._report_for_ever, name="reporter", daemon=True)

    def start(self) -> None:
        """Begin to report; the first report is made at once."""
        self._thread.start()

    def stop(self) -> None:
        """End it and take the report back: the process stops in order."""
        self._over.set()
        if self._thread.ident is not None:
            self._thread.join(_STOP_SECONDS)

    def _report_for_ever(self) -> None:
        while not self._over.is_set():
            try:
                self._report()
            except Exception:  # noqa: BLE001
                # The database is away, or has no such table yet: whoever needs it says so, louder.
                _log.debug("this process was not reported", exc_info=True)
            self._over.wait(EVERY_SECONDS)
        try:
            with self._db.call() as conn:
                process_registry.remove(conn, self.id)
        except Exception:  # noqa: BLE001
            _log.debug("the report was not taken back", exc_info=True)

    def _report(self) -> None:
        figures = {"memory_bytes": psutil.Process().memory_info().rss, **self._recent(), **self._figures()}
        with self._db.call() as conn:
            process_registry.report(
                conn,
                self.id,
                self._kind,
                pid=os.getpid(),
                uptime=time.monotonic() - self._started,
                settings=self._settings,
                figures=figures,
            )
        with self._db.write() as conn:
            status.sample(conn)

    def _recent(self) -> dict[str, int]:
        """How much each count rose in each window, or since the start."""
        now, counts = time.monotonic(), dict(self._counts())
        found: dict[str, int] = {}
        for window, seconds in _WINDOWS:
            # The newest that is old enough: a window is some seconds longer rather than shorter.
            before = next((old for at, old in reversed(self._history) if now - at >= seconds), self._history[0][1])
            found |= {f"{name}_{window}": count - before.get(name, 0) for name, count in counts.items()}
        self._history.append((now, counts))
        while len(self._history) > 1 and now - self._history[1][0] >= _WINDOWS[-1][1]:
            self._history.popleft()
        return found


def traffic(*answered: Tally) -> dict[str, int]:
    """The `requests` and `errors` of tallies whose last label is the HTTP status."""
    found = {"requests": 0, "errors": 0}
    for tally in answered:
        for labels, count in tally.read().items():
            found["requests"] += count
            found["errors"] += count if labels[-1][:1] == "5" else 0
    return found
