"""Runs that an operator asked for: found in PostgreSQL by each worker, every few seconds, so that Redis may be away."""

import logging
import threading

from bus.db import Database
from bus.errors import Unavailable
from bus.operations import jobs as runs
from workers.job_runner import all_jobs, execute_job, shutdown_requested
from workers.settings import WorkerSettings

_log = logging.getLogger(__name__)
_POLL_INTERVAL_SECONDS = 2.0


class ManualRunPoller:
    """Looks for requests in a thread of its own, and runs what it finds there, one after the other.

    Args:
        db: a pool of the process; two connections of it are borrowed while a job runs.
    """

    def __init__(self, db: Database, settings: WorkerSettings) -> None:
        self._db = db
        self._settings = settings
        self._thread = threading.Thread(target=self._poll_loop, name="requested", daemon=True)

    def start(self) -> None:
        """Begin to look; it ends when the process is told to stop."""
        self._thread.start()

    def stop(self, timeout_seconds: float) -> None:
        """Wait for a run that is under way to end with its present batch, at most `patience` seconds."""
        shutdown_requested.set()
        self._thread.join(timeout_seconds)

    def run_pending(self) -> int:
        """Run what was asked for and no other worker has begun; returns how many runs that were.

        Raises:
            Unavailable: PostgreSQL is away.
        """
        with self._db.connection() as conn:
            asked = [one.name for one in runs.list_run_requests(conn)]
        known, done = all_jobs(), 0
        for name in asked:
            # What only a newer worker knows is left to it.
            if name in known and not shutdown_requested.is_set():
                done += execute_job(known[name], self._db, self._settings, from_request=True).outcome != "resting"
        return done

    def _poll_loop(self) -> None:
        while not shutdown_requested.wait(_POLL_INTERVAL_SECONDS):
            try:
                self.run_pending()
            except Unavailable:
                _log.warning("the database is away; what was asked for is looked for again")
            except Exception:  # noqa: BLE001
                # Whatever it is, the next request must find somebody.
                _log.exception("looking for what was asked for failed")
