"""The condition of the service and the reports of its processes: right, bounded, and in nobody's way."""

import threading
import time
from collections.abc import Iterator
from contextlib import closing

import pytest

from bus.billing import metering
from bus.config.redaction import Setting
from bus.coordination import posts, sequences
from bus.db import Connection, Database
from bus.operations import jobs, process_registry, status
from bus.operations.counters import SharedTally, SharedTimings, Tally
from bus.operations.heartbeat import Reporter, traffic
from bus.operations.status import Probe
from bus.tenancy import projects
from tests.concurrency import race
from tests.factories import make_agent, make_project
from tests.servers import free_port

NO_REDIS = Probe(None)


@pytest.fixture
def db(database_url: str) -> Iterator[Database]:
    with closing(Database(database_url, size=12)) as database:
        yield database


def _report(conn: Connection, name: str, kind: str = "gateway", **figures: object) -> None:
    shown = {"PORT": Setting("80", False)}
    process_registry.report(conn, name, kind, pid=7, uptime=100.0, settings=shown, figures=figures)


def _age(conn: Connection, name: str, seconds: int) -> None:
    conn.one(
        "UPDATE process SET seen_at = seen_at - make_interval(secs => %s) WHERE id = %s RETURNING 1", (seconds, name)
    )


def test_a_process_is_there_until_it_is_not_seen_for_a_minute(conn: Connection) -> None:
    _report(conn, "a", waiting=1)
    _report(conn, "b", "web")
    _report(conn, "a", waiting=3)
    first, second = process_registry.list_(conn)
    assert (first.id, first.kind, first.pid, first.figures) == ("a", "gateway", 7, {"waiting": 3})
    assert (second.id, second.settings) == ("b", {"PORT": Setting("80", False)})
    assert 99 < first.uptime_seconds < 130
    _age(conn, "a", 50)
    assert not process_registry.list_(conn)[0].is_gone
    _age(conn, "a", 11)
    assert [one.id for one in process_registry.list_(conn)] == ["b"]
    assert [(one.id, one.is_gone) for one in process_registry.list_(conn, gone=True)] == [("a", True), ("b", False)]
    # It was only slow: the next report brings it back.
    _report(conn, "a")
    process_registry.remove(conn, "b")
    assert [one.id for one in process_registry.list_(conn)] == ["a"]


def test_a_reporter_reports_at_once_and_takes_it_back(db: Database) -> None:
    served = Tally()
    reporter = Reporter(
        db, "web", {"PORT": Setting("80", True)}, counts=lambda: traffic(served), figures=lambda: {"waiting": 2}
    )
    for code, times in (("200", 5), ("404", 2), ("500", 1)):
        for _ in range(times):
            served.add("/", code)
    reporter.start()
    deadline = time.monotonic() + 20
    while not (found := _listed(db)):
        assert time.monotonic() < deadline
    (one,) = found
    assert one.id == reporter.id
    assert one.figures["memory_bytes"] > 1_000_000
    expected = {"requests": 8, "errors": 1}
    assert {name: one.figures[f"{name}_last_minute"] for name in expected} == expected
    assert {name: one.figures[f"{name}_last_5_minutes"] for name in expected} == expected
    assert one.figures["waiting"] == 2
    reporter.stop()
    assert _listed(db) == []


def _listed(db: Database) -> list[process_registry.Process]:
    with db.call() as conn:
        return process_registry.list_(conn, gone=True)


def test_a_reporter_whose_database_is_away_is_in_nobodys_way() -> None:
    with closing(Database(f"postgresql://nobody@127.0.0.1:{free_port()}/none")) as away:
        reporter = Reporter(away, "gateway", {})
        started = time.monotonic()
        reporter.start()
        reporter.stop()
        assert time.monotonic() - started < 5
    assert "reporter" not in {thread.name for thread in threading.enumerate()}


def test_an_empty_service_is_well(db: Database) -> None:
    found = status.look(db, NO_REDIS)
    assert found.postgres is not None
    assert found.postgres.is_migrated
    assert (found.has_redis, found.queue) == (False, None)
    contents = found.contents
    assert contents is not None
    assert (contents.unread, contents.waiting, contents.metering, contents.unmetered_seconds) == (0, 0, False, None)
    assert (contents.growth.written, contents.heartbeat_seconds, contents.jobs) == (0, None, ())
    assert "event" in {table.name for table in contents.tables}
    assert sum(table.size_bytes for table in contents.tables) > 100_000


def test_what_is_away_is_said_quickly() -> None:
    with closing(Database(f"postgresql://nobody@127.0.0.1:{free_port()}/none")) as away:
        started = time.monotonic()
        with closing(Probe(f"redis://127.0.0.1:{free_port()}/0")) as probe:
            found = status.look(away, probe)
        assert time.monotonic() - started < 3
    assert (found.postgres, found.has_redis, found.queue, found.contents) == (None, True, None, None)


def test_a_schema_that_is_too_old_is_named(empty_database_url: str) -> None:
    with closing(Database(empty_database_url)) as db:
        found = status.look(db, NO_REDIS)
    assert found.postgres is not None
    assert (found.postgres.migration, found.postgres.is_migrated, found.contents) == (None, False, None)


def test_the_condition_counts_what_is_there(db: Database, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(status, "UNREAD_CAP", 4)
    with db.write() as conn:
        project = make_project(conn)
        alice, bob = make_agent(conn, project, "alice"), make_agent(conn, project, "bob")
        metering.switch(conn, True)
    with db.write() as conn:
        read = posts.create(conn, alice.ctx, "hello", to_actor="bob").post_id
        posts.ack(conn, bob.ctx, [read])
        for _ in range(3):
            posts.create(conn, alice.ctx, "hello", to_actor="bob")
    with db.write() as conn:
        _report(conn, "a", waiting=3, streams=1)
        _report(conn, "b", waiting=4, streams=0)
        _report(conn, "c", waiting=9, streams=9)
        _age(conn, "c", 100)
        _report(conn, "w", "worker", schedule={"often": 10.0, "never": 20.0, "rarely": 3600.0})
        for name, outcome in (("often", "ok"), ("rarely", "alarm"), ("heartbeat", "ok")):
            jobs.finish(conn, jobs.begin(conn, name), outcome, {})
        conn.one("UPDATE job_run SET started_at = started_at - interval '65 s' WHERE name = 'often' RETURNING 1")
    with closing(Probe(redis_url)) as probe:
        probe._client.rpush(jobs.QUEUE, "one", "two")
        found = status.look(db, probe)
    assert found.queue is not None
    assert found.queue.depth == 2
    contents = found.contents
    assert contents is not None
    assert (contents.unread, contents.waiting, contents.streams) == (3, 7, 1)
    assert contents.unmetered_seconds is not None
    assert 0 < contents.unmetered_seconds < 60
    assert {one.name: (one.outcome, one.every_seconds, one.is_late) for one in contents.jobs} == {
        "heartbeat": ("ok", None, False),
        # The worker has been up for longer than three of its intervals.
        "never": (None, 20.0, True),
        "often": ("ok", 10.0, True),
        "rarely": ("alarm", 3600.0, False),
    }
    with db.write() as conn:
        metering.bill(conn, project.id)
        posts.create(conn, alice.ctx, "hello", to_actor="bob")
        posts.create(conn, alice.ctx, "hello", to_actor="bob")
        metering.bill(conn, project.id)
    with db.write() as conn:
        again = status.read(conn)
    assert (again.unread, again.unmetered_seconds) == (4, 0.0)


def test_the_ledgers_growth_is_read_from_samples_and_never_falls(db: Database) -> None:
    with db.write() as conn:
        project = make_project(conn)
        ada = make_agent(conn, project)
    for seconds_ago, events in ((7200, 10), (3600, 20), (65, 30), (0, 5)):
        with db.write() as conn:
            for _ in range(events):
                sequences.claim(conn, ada.ctx, "adr")
            status.sample(conn)
            # Another one within seconds is none.
            status.sample(conn)
            conn.one(
                "UPDATE service_sample SET at = at - make_interval(secs => %s)"
                " WHERE id = (SELECT max(id) FROM service_sample) RETURNING 1",
                (seconds_ago,),
            )
    with db.write() as conn:
        assert conn.all("SELECT written FROM service_sample ORDER BY at") == [(10,), (30,), (60,), (65,)]
        growth = status.read(conn).growth
    assert growth.written == 65
    # Over the 65 seconds and the hour that lie between the samples.
    assert growth.last_minute == pytest.approx(5 * 60 / 65, rel=0.02)
    assert growth.last_hour == pytest.approx(35, rel=0.02)
    # What is deleted was written all the same.
    with db.write() as conn:
        projects.begin_purge(conn, project.id, actor="test")
    with db.write() as conn:
        while not projects.purge_step(conn, project.id):
            pass
        conn.all("UPDATE service_sample SET at = at - interval '1 minute' RETURNING 1")
    with db.write() as conn:
        sequences.claim(conn, make_agent(conn).ctx, "adr")
        assert status.read(conn).growth.written == 65


def test_of_many_who_sample_at_once_one_does(db: Database) -> None:
    with db.write() as conn:
        ada = make_agent(conn)
        sequences.claim(conn, ada.ctx, "adr")
    race(db, 10, lambda conn, _: status.sample(conn))
    with db.call() as conn:
        assert conn.all("SELECT standing, written FROM service_sample") == [(1, 1)]


def test_tallies_and_timings_lose_nothing_between_threads() -> None:
    tally, timings = SharedTally(), SharedTimings((0.1, 1.0))

    def count() -> None:
        for _ in range(2000):
            tally.add("a")
            tally.add("b", "c")
            for seconds in (0.1, 0.5, 3.0):
                timings.add(seconds, "a")

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert tally.read() == {("a",): 8000, ("b", "c"): 8000}
    ((labels, (buckets, total)),) = timings.read().items()
    # What is as long as a bound is within it.
    assert (labels, buckets) == (("a",), [8000, 8000, 8000])
    assert total == pytest.approx(8000 * 3.6)
