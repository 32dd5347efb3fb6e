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
        list_waiting: returns the callers of the calls that wait for posts, and since when, as a time of the monotonic
            clock. Called on the event loop.
        list_listening: returns the callers of the open streams.
    """

    def __init__(
        self, list_waiting: Callable[[], Iterable[tuple[Ctx, float]]], list_listening: Callable[[], Iterable[Ctx]]
    ) -> None:
        self._list_waiting = list_waiting
        self._list_listening = list_listening
        # What was reported last, and when it was collected.
        self._reported: dict[SessionId, tuple[WakeReport, float]] = {}
        self._collected_at = 0.0

    def collect(self) -> list[WakeReport]:
        """Return the reports that are due. Called on the event loop."""
        self._collected_at = time.monotonic()
        # The newest wait of each.
        waiting = {(ctx.participation_id, ctx.session): at for ctx, at in sorted(self._list_waiting(), key=_began_at)}
        listening = {(ctx.participation_id, ctx.session) for ctx in self._list_listening()}
        renewed_at = self._collected_at - _RENEW_SECONDS
        due = []
        for id_ in waiting.keys() | listening | self._reported.keys():
            report = WakeReport(id_, id_ in waiting, id_ in listening)
            reported, at = self._reported.get(id_, (None, 0.0))
            # The post that ended an earlier wait of a session has also ended what was reported (bus_offer_posts).
            has_begun_again = id_[1] is not None and waiting.get(id_, 0.0) > at
            if report != reported or at < renewed_at or has_begun_again:
                due.append(report)
        return due

    def write(self, db: Database, reports: list[WakeReport]) -> None:
        """Write reports. Called in a thread, by one caller at a time."""
        for start in range(0, len(reports), _BATCH_SIZE):
            batch = reports[start : start + _BATCH_SIZE]
            with db.transaction() as conn:
                sessions.report_wake(conn, batch)
            for report in batch:
                if report.waiting or report.listening:
                    self._reported[report.id] = report, self._collected_at
                else:
                    self._reported.pop(report.id, None)


def _began_at(wait: tuple[Ctx, float]) -> float:
    return wait[1]
