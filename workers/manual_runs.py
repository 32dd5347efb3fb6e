"""Job runs that an operator requested; each worker polls PostgreSQL for them, so that Redis may be away."""

import logging
import threading

from bus.db import Database
from bus.errors import Unavailable
from bus.operations import jobs as job_records
from workers.job_runner import execute_job, shutdown_requested
from workers.jobs import all_jobs
from workers.settings import WorkerSettings

_log = logging.getLogger(__name__)
_POLL_INTERVAL_SECONDS = 2.0


class ManualRunPoller:
    """A thread that polls for requested runs and executes them one after the other.

    Args:
        db: a pool of the process; a run borrows two of its connections.
    """

    def __init__(self, db: Database, settings: WorkerSettings) -> None:
        self._db = db
        self._settings = settings
        self._thread = threading.Thread(target=self._poll_loop, name="requested", daemon=True)

    def start(self) -> None:
        """Start polling; it ends when the process stops."""
        self._thread.start()

    def stop(self, timeout_seconds: float) -> None:
        """Wait at most `timeout_seconds` for a run to end after its present batch."""
        shutdown_requested.set()
        self._thread.join(timeout_seconds)

    def run_pending(self) -> int:
        """Execute the requested runs that no other worker has begun, and return how many there were.

        Raises:
            Unavailable: PostgreSQL is away.
        """
        with self._db.connection() as conn:
            requested = [request.name for request in job_records.list_run_requests(conn)]
        jobs, executed = all_jobs(), 0
        for name in requested:
            # A job that only a newer worker has is left to that worker.
            if name in jobs and not shutdown_requested.is_set():
                executed += execute_job(jobs[name], self._db, self._settings, from_request=True).outcome != "resting"
        return executed

    def _poll_loop(self) -> None:
        while not shutdown_requested.wait(_POLL_INTERVAL_SECONDS):
            try:
                self.run_pending()
            except Unavailable:
                _log.warning("the database is away; requested runs are looked up again later")
            except Exception:  # noqa: BLE001 - the thread must survive for the next request
                _log.exception("looking up requested runs failed")
