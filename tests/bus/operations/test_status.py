"""The condition of the service and the reports of its processes: right, bounded, and in nobody's way."""

import threading
import time
from collections.abc import Iterator
from contextlib import closing

import pytest

from bus.billing import metering
from bus.config.redaction import MaskedSetting
from bus.coordination import posts, sequences
from bus.db import Connection, Database
from bus.operations import jobs, process_registry, project_purge, status
from bus.operations.counters import Counter, SharedCounter, SharedHistogram
from bus.operations.heartbeat import HeartbeatReporter, request_counts
from bus.operations.status import RedisProbe
from tests.concurrency import run_numbered_concurrently
from tests.factories import make_agent, make_project
from tests.servers import free_port

NO_REDIS = RedisProbe(None)


@pytest.fixture
def db(database_url: str) -> Iterator[Database]:
    with closing(Database(database_url, pool_size=12)) as database:
        yield database


def _report(conn: Connection, name: str, kind: str = "gateway", **figures: object) -> None:
    shown = {"PORT": MaskedSetting("80", False)}
    process_registry.record_heartbeat(conn, name, kind, pid=7, uptime_seconds=100.0, settings=shown, metrics=figures)


def _age(conn: Connection, name: str, seconds: int) -> None:
    conn.execute("UPDATE process SET seen_at = seen_at - make_interval(secs => %s) WHERE id = %s", (seconds, name))


def test_a_process_is_there_until_it_is_not_seen_for_a_minute(conn: Connection) -> None:
    _report(conn, "a", waiting=1)
    _report(conn, "b", "web")
    _report(conn, "a", waiting=3)
    first, second = process_registry.list_processes(conn)
    assert (first.id, first.kind, first.pid, first.metrics) == ("a", "gateway", 7, {"waiting": 3})
    assert (second.id, second.settings) == ("b", {"PORT": MaskedSetting("80", False)})
    assert 99 < first.uptime_seconds < 130
    _age(conn, "a", 50)
    assert not process_registry.list_processes(conn)[0].is_stale
    _age(conn, "a", 11)
    assert [one.id for one in process_registry.list_processes(conn)] == ["b"]
    assert [(one.id, one.is_stale) for one in process_registry.list_processes(conn, include_stale=True)] == [
        ("a", True),
        ("b", False),
    ]
    # It was only slow: the next report brings it back.
    _report(conn, "a")
    process_registry.remove_process(conn, "b")
    assert [one.id for one in process_registry.list_processes(conn)] == ["a"]


def test_a_reporter_reports_at_once_and_takes_it_back(db: Database) -> None:
    served = Counter()
    reporter = HeartbeatReporter(
        db,
        "web",
        {"PORT": MaskedSetting("80", True)},
        counters=lambda: request_counts(served),
        gauges=lambda: {"waiting": 2},
    )
    for code, times in (("200", 5), ("404", 2), ("500", 1)):
        for _ in range(times):
            served.increment("/", code)
    reporter.start()
    deadline = time.monotonic() + 20
    while not (found := _listed(db)):
        assert time.monotonic() < deadline
    (one,) = found
    assert one.id == reporter.process_id
    assert one.metrics["memory_bytes"] > 1_000_000
    expected = {"requests": 8, "errors": 1}
    assert {name: one.metrics[f"{name}_last_minute"] for name in expected} == expected
    assert {name: one.metrics[f"{name}_last_5_minutes"] for name in expected} == expected
    assert one.metrics["waiting"] == 2
    reporter.stop()
    assert _listed(db) == []


def _listed(db: Database) -> list[process_registry.Process]:
    with db.connection() as conn:
        return process_registry.list_processes(conn, include_stale=True)


def test_a_reporter_whose_database_is_away_is_in_nobodys_way() -> None:
    with closing(Database(f"postgresql://nobody@127.0.0.1:{free_port()}/none")) as away:
        reporter = HeartbeatReporter(away, "gateway", {})
        started = time.monotonic()
        reporter.start()
        reporter.stop()
        assert time.monotonic() - started < 5
    assert "reporter" not in {thread.name for thread in threading.enumerate()}


def test_an_empty_service_is_well(db: Database) -> None:
    found = status.get_status(db, NO_REDIS)
    assert found.database is not None
    assert found.database.is_schema_current
    assert (found.has_redis, found.queue) == (False, None)
    contents = found.details
    assert contents is not None
    assert (
        contents.unread_deliveries,
        contents.waiting_calls,
        contents.metering_enabled,
        contents.oldest_unmetered_seconds,
    ) == (0, 0, False, None)
    assert (contents.ledger_growth.events_total, contents.heartbeat_age_seconds, contents.jobs) == (0, None, ())
    assert "event" in {table.name for table in contents.tables}
    assert sum(table.size_bytes for table in contents.tables) > 100_000


def test_what_is_away_is_said_quickly() -> None:
    with closing(Database(f"postgresql://nobody@127.0.0.1:{free_port()}/none")) as away:
        started = time.monotonic()
        with closing(RedisProbe(f"redis://127.0.0.1:{free_port()}/0")) as probe:
            found = status.get_status(away, probe)
        assert time.monotonic() - started < 3
    assert (found.database, found.has_redis, found.queue, found.details) == (None, True, None, None)


def test_a_schema_that_is_too_old_is_named(empty_database_url: str) -> None:
    with closing(Database(empty_database_url)) as db:
        found = status.get_status(db, NO_REDIS)
    assert found.database is not None
    assert (found.database.schema_version, found.database.is_schema_current, found.details) == (None, False, None)


def test_the_condition_counts_what_is_there(db: Database, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(status, "UNREAD_CAP", 4)
    with db.transaction() as conn:
        project = make_project(conn)
        alice, bob = make_agent(conn, project, "alice"), make_agent(conn, project, "bob")
        metering.set_metering_enabled(conn, True)
    with db.transaction() as conn:
        read = posts.create(conn, alice.ctx, "hello", to_actor="bob").post_id
        posts.ack(conn, bob.ctx, [read])
        for _ in range(3):
            posts.create(conn, alice.ctx, "hello", to_actor="bob")
    with db.transaction() as conn:
        _report(conn, "a", waiting=3, streams=1)
        _report(conn, "b", waiting=4, streams=0)
        _report(conn, "c", waiting=9, streams=9)
        _age(conn, "c", 100)
        _report(conn, "w", "worker", schedule={"often": 10.0, "never": 20.0, "rarely": 3600.0})
        for name, outcome in (("often", "ok"), ("rarely", "alarm"), ("heartbeat", "ok")):
            jobs.finish_run(conn, jobs.begin_run(conn, name), outcome, {})
        conn.execute("UPDATE job_run SET started_at = started_at - interval '65 s' WHERE name = 'often'")
    with closing(RedisProbe(redis_url)) as probe:
        probe._client.rpush(jobs.QUEUE_NAME, "one", "two")
        found = status.get_status(db, probe)
    assert found.queue is not None
    assert found.queue.depth == 2
    contents = found.details
    assert contents is not None
    assert (contents.unread_deliveries, contents.waiting_calls, contents.open_streams) == (3, 7, 1)
    assert contents.oldest_unmetered_seconds is not None
    assert 0 < contents.oldest_unmetered_seconds < 60
    assert {one.name: (one.last_outcome, one.interval_seconds, one.is_late) for one in contents.jobs} == {
        "heartbeat": ("ok", None, False),
        # The worker has been up for longer than three of its intervals.
        "never": (None, 20.0, True),
        "often": ("ok", 10.0, True),
        "rarely": ("alarm", 3600.0, False),
    }
    with db.transaction() as conn:
        metering.bill_batch(conn, project.id)
        posts.create(conn, alice.ctx, "hello", to_actor="bob")
        posts.create(conn, alice.ctx, "hello", to_actor="bob")
        metering.bill_batch(conn, project.id)
    with db.transaction() as conn:
        again = status.get_details(conn)
    assert (again.unread_deliveries, again.oldest_unmetered_seconds) == (4, 0.0)


def test_the_ledgers_growth_is_read_from_samples_and_never_falls(db: Database) -> None:
    with db.transaction() as conn:
        project = make_project(conn)
        ada = make_agent(conn, project)
    for seconds_ago, events in ((7200, 10), (3600, 20), (65, 30), (0, 5)):
        with db.transaction() as conn:
            for _ in range(events):
                sequences.claim(conn, ada.ctx, "adr")
            status.record_sample(conn)
            # Another one within seconds is none.
            status.record_sample(conn)
            conn.execute(
                "UPDATE service_sample SET at = at - make_interval(secs => %s)"
                " WHERE id = (SELECT max(id) FROM service_sample)",
                (seconds_ago,),
            )
    with db.transaction() as conn:
        assert conn.fetch_all("SELECT written FROM service_sample ORDER BY at") == [(10,), (30,), (60,), (65,)]
        growth = status.get_details(conn).ledger_growth
    assert growth.events_total == 65
    # Over the 65 seconds and the hour that lie between the samples.
    assert growth.events_last_minute == pytest.approx(5 * 60 / 65, rel=0.02)
    assert growth.events_last_hour == pytest.approx(35, rel=0.02)
    # What is deleted was written all the same.
    with db.transaction() as conn:
        project_purge.begin_purge(conn, project.id, actor="test")
    with db.transaction() as conn:
        while not project_purge.purge_step(conn, project.id):
            pass
        conn.fetch_all("UPDATE service_sample SET at = at - interval '1 minute' RETURNING 1")
    with db.transaction() as conn:
        sequences.claim(conn, make_agent(conn).ctx, "adr")
        assert status.get_details(conn).ledger_growth.events_total == 65


def test_of_many_who_sample_at_once_one_does(db: Database) -> None:
    with db.transaction() as conn:
        ada = make_agent(conn)
        sequences.claim(conn, ada.ctx, "adr")
    run_numbered_concurrently(db, 10, lambda conn, _: status.record_sample(conn))
    with db.connection() as conn:
        assert conn.fetch_all("SELECT standing, written FROM service_sample") == [(1, 1)]


def test_tallies_and_timings_lose_nothing_between_threads() -> None:
    tally, timings = SharedCounter(), SharedHistogram((0.1, 1.0))

    def count() -> None:
        for _ in range(2000):
            tally.increment("a")
            tally.increment("b", "c")
            for seconds in (0.1, 0.5, 3.0):
                timings.observe(seconds, "a")

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert tally.snapshot() == {("a",): 8000, ("b", "c"): 8000}
    ((labels, (buckets, total)),) = timings.snapshot().items()
    # What is as long as a bound is within it.
    assert (labels, buckets) == (("a",), [8000, 8000, 8000])
    assert total == pytest.approx(8000 * 3.6)
