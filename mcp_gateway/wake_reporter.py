"""Reports of which sessions can be woken at present, because a call of theirs waits for posts or a stream is open."""

import time
from collections.abc import Callable, Iterable

from bus.coordination import sessions
from bus.coordination.sessions import SessionId, WakeReport
from bus.ctx import Ctx
from bus.db import Database

# A report holds for sessions.WAKE_TTL_SECONDS.
_RENEW_SECONDS = 20.0
_BATCH_SIZE = 1_000


class WakeReporter:
    """Writes changes of the open waits and streams of this process, and renews what is unchanged.

    Args:
        list_waiting: returns the callers of the calls that wait for posts. Called on the event loop.
        list_listening: returns the callers of the open streams.
    """

    def __init__(self, list_waiting: Callable[[], Iterable[Ctx]], list_listening: Callable[[], Iterable[Ctx]]) -> None:
        self._list_waiting = list_waiting
        self._list_listening = list_listening
        # What was reported last, and when.
        self._reported: dict[SessionId, tuple[WakeReport, float]] = {}

    def collect(self) -> list[WakeReport]:
        """Return the reports that are due. Called on the event loop."""
        waiting = {(ctx.participation_id, ctx.session) for ctx in self._list_waiting()}
        listening = {(ctx.participation_id, ctx.session) for ctx in self._list_listening()}
        renewed_at = time.monotonic() - _RENEW_SECONDS
        due = []
        for id_ in waiting | listening | self._reported.keys():
            report = WakeReport(id_, id_ in waiting, id_ in listening)
            reported, at = self._reported.get(id_, (None, 0.0))
            if report != reported or at < renewed_at:
                due.append(report)
        return due

    def write(self, db: Database, reports: list[WakeReport]) -> None:
        """Write reports. Called in a thread, by one caller at a time."""
        for start in range(0, len(reports), _BATCH_SIZE):
            batch = reports[start : start + _BATCH_SIZE]
            now = time.monotonic()
            with db.transaction() as conn:
                sessions.report_wake(conn, batch)
            for report in batch:
                if report.waiting or report.listening:
                    self._reported[report.id] = report, now
                else:
                    self._reported.pop(report.id, None)
