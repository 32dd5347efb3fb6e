"""Credits are metered exactly once, although workers are killed and writers commit late.

The same writers run against two ledgers: the real one, billed by three workers and three schedulers while workers are
killed repeatedly, and a naive copy that is numbered by an identity column and billed by `id > last`. The copy must lose
events, which shows that these writers can make a meter lose some.
"""

import random
import threading
import time
from collections.abc import Callable

import pytest

from bus.billing import credits, metering
from bus.coordination import sequences
from bus.db import Connection, Database
from bus.operations import integrity_checks
from tests.concurrency import vary_timing
from tests.factories import make_agent, make_owner, make_project
from tests.redis_server import RedisServer
from tests.workers.processes import WorkerProcess, start_process, stop_processes, wait_until

_WRITERS = 8
_KILLS = 20
_JOB_INTERVALS = "meter_credits=0.2,heartbeat=5"


class _Writers:
    """Threads that write one event per transaction, commit after a random delay, and roll back one time in ten."""

    def __init__(self, db: Database, write: Callable[[Connection, random.Random], None]) -> None:
        self._db = db
        self._write = write
        self._stopping = threading.Event()
        self._committed = [0] * _WRITERS
        self._failures: list[BaseException] = []
        self._threads = [threading.Thread(target=self._run, args=(number,)) for number in range(_WRITERS)]

    def __enter__(self) -> "_Writers":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join()
        assert not self._failures, self._failures

    @property
    def committed(self) -> int:
        """The number of committed events."""
        return sum(self._committed)

    def _run(self, number: int) -> None:
        chance = random.Random(number)
        try:
            while not self._stopping.is_set():
                try:
                    with self._db.transaction() as conn:
                        self._write(conn, chance)
                        vary_timing(chance, 0.02)
                        if chance.random() < 0.1:
                            raise _RolledBack
                except _RolledBack:
                    continue
                self._committed[number] += 1
                vary_timing(chance, 0.01)
        except BaseException as failure:  # noqa: BLE001 - raised again in the main thread
            self._failures.append(failure)


class _RolledBack(Exception):
    pass


@pytest.mark.exhaustive
def test_every_event_is_billed_once_although_workers_are_killed(
    database_url: str, db: Database, queue: RedisServer
) -> None:
    url = queue.start()
    with db.transaction() as conn:
        owner = make_owner(conn)
        agents = [make_agent(conn, make_project(conn, owner=owner)) for _ in range(4)]
        metering.set_metering_enabled(conn, True)

    def write(conn: Connection, chance: random.Random) -> None:
        sequences.claim(conn, chance.choice(agents).ctx, "adr")

    def begin(role: str) -> WorkerProcess:
        return start_process(role, database_url, url, METERING="1", TRIAL_CREDITS="1000", JOB_EVERY=_JOB_INTERVALS)

    chance = random.Random(7)
    started = [begin(role) for role in ("worker", "worker", "worker", "beat", "beat", "beat")]
    try:
        with _Writers(db, write) as writers:
            wait_until(lambda: _billed(db, owner.id), *started)
            for _ in range(_KILLS):
                before = _billed(db, owner.id)
                number = chance.randrange(3)
                started[number].kill()
                started[number].log.unlink()
                started[number] = begin("worker")
                # The killed worker may have been in the middle of a run; the others continue to bill.
                wait_until(lambda before=before: _billed(db, owner.id) > before, *started)
                vary_timing(chance, 0.5)
        written = writers.committed
        wait_until(lambda: _billed(db, owner.id) >= written, *started)
    finally:
        stop_processes(started)
    with db.transaction() as conn:
        integrity_checks.begin_snapshot(conn)
        assert conn.fetch_one("SELECT count(*) FROM event WHERE type = 'claim'") == (written,)
        assert _billed(db, owner.id) == written
        account = credits.find_account(conn, owner.id)
        assert account is not None
        assert account.balance == 1000 - written
        assert integrity_checks.check_accounts(conn) == []
        for agent in agents:
            assert integrity_checks.check_project(conn, agent.ctx.project_id) == []
    assert written > 500


def _billed(db: Database, owner_id: int) -> int:
    with db.connection() as conn:
        return int(
            conn.fetch_one(
                "SELECT coalesce(-sum(amount), 0) FROM credit_entry WHERE owner_id = %s AND kind = 'usage'", (owner_id,)
            )[0]
        )


def test_a_meter_over_an_identity_column_loses_events_of_the_same_writers(db: Database) -> None:
    with db.transaction() as conn:
        conn.raw.execute("CREATE TABLE copy (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, sequence text)")
        conn.raw.execute("CREATE TABLE copy_mark (last bigint NOT NULL, billed bigint NOT NULL)")
        conn.raw.execute("INSERT INTO copy_mark VALUES (0, 0)")

    def write(conn: Connection, chance: random.Random) -> None:
        conn.raw.execute("INSERT INTO copy (sequence) VALUES (%s)", (str(chance.randrange(4)),))

    def meter() -> None:
        with db.transaction() as conn:
            # Locked first and read afterwards, like the real one; only the numbering differs.
            (last,) = conn.fetch_one("SELECT last FROM copy_mark FOR UPDATE")
            count, newest = conn.fetch_one(
                "SELECT count(*), coalesce(max(id), %s) FROM copy WHERE id > %s", (last, last)
            )
            conn.raw.execute("UPDATE copy_mark SET last = %s, billed = billed + %s", (newest, count))

    with _Writers(db, write) as writers:
        randomness, deadline = random.Random(1), time.monotonic() + 5
        while time.monotonic() < deadline:
            meter()
            vary_timing(randomness, 0.02)
    meter()
    with db.connection() as conn:
        (billed,) = conn.fetch_one("SELECT billed FROM copy_mark")
        assert conn.fetch_one("SELECT count(*) FROM copy") == (writers.committed,)
    assert billed < writers.committed, "these writers cannot show a loss"
