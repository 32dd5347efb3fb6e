"""Reports of waits: each change once, and a wait that begins after a wake at once."""

import time

from bus.coordination import long_poll, posts, presence
from bus.ctx import Ctx
from bus.db import Database
from mcp_gateway.wake_reporter import WakeReporter
from tests.mcp_gateway.conftest import Team


class _Flushes:
    """A reporter over the waits of one caller."""

    def __init__(self, db: Database, team: Team, waits: list[tuple[Ctx, float]]) -> None:
        self._db, self._team = db, team
        self._reporter = WakeReporter(lambda: waits, list)

    def flush(self) -> int:
        """Write what is due, and return how many reports that were."""
        reports = self._reporter.collect()
        self._reporter.write(self._db, reports)
        return len(reports)

    def find_wake(self) -> str | None:
        """Return how bob can be woken."""
        with self._db.connection() as conn:
            active = presence.list_active(conn, self._team.alice.ctx).active
        return next((participant.wake for participant in active if participant.actor == self._team.bob.actor), None)


def test_a_wait_that_begins_after_a_wake_is_reported_with_the_next_flush(gateway_db: Database, team: Team) -> None:
    session = team.bob.ctx.with_session("one")
    waits = [(session, time.monotonic())]
    flushes = _Flushes(gateway_db, team, waits)
    assert (flushes.flush(), flushes.find_wake()) == (1, "waiting")
    assert flushes.flush() == 0
    with gateway_db.transaction() as conn:
        posts.create(conn, team.alice.ctx, "job", to_actor="bob")
        assert long_poll.poll(conn, long_poll.begin_wait(conn, session, "inbox")) is not None
    # The post has ended what was reported, and the same wait is not reported again.
    assert (flushes.flush(), flushes.find_wake()) == (0, None)
    waits[0] = (session, time.monotonic())
    assert (flushes.flush(), flushes.find_wake()) == (1, "waiting")
    waits.clear()
    assert (flushes.flush(), flushes.find_wake()) == (1, None)
    assert flushes.flush() == 0


def test_calls_without_a_session_are_reported_once_while_they_follow_each_other(
    gateway_db: Database, team: Team
) -> None:
    waits = [(team.bob.ctx, time.monotonic())]
    flushes = _Flushes(gateway_db, team, waits)
    assert (flushes.flush(), flushes.find_wake()) == (1, "waiting")
    waits[0] = (team.bob.ctx, time.monotonic())
    assert (flushes.flush(), flushes.find_wake()) == (0, "waiting")
