"""Service status: what it counts, and how it reports unavailable backends."""

import time
from collections.abc import Iterator
from contextlib import closing

import pytest

from bus.billing import metering
from bus.config.redaction import MaskedSetting
from bus.coordination import posts, sequences
from bus.db import Connection, Database
from bus.operations import jobs, process_registry, project_purge, status
from bus.operations.status import RedisProbe
from tests.concurrency import run_numbered_concurrently, stretched
from tests.factories import make_agent, make_project
from tests.servers import free_port

NO_REDIS = RedisProbe(None)


@pytest.fixture
def db(database_url: str) -> Iterator[Database]:
    with closing(Database(database_url, pool_size=12)) as database:
        yield database


def _send_heartbeat(conn: Connection, name: str, kind: str = "gateway", **metrics: object) -> None:
    settings = {"PORT": MaskedSetting("80", False)}
    process_registry.record_heartbeat(conn, name, kind, pid=7, uptime_seconds=100.0, settings=settings, metrics=metrics)


def _make_older(conn: Connection, name: str, seconds: int) -> None:
    conn.execute("UPDATE process SET seen_at = seen_at - make_interval(secs => %s) WHERE id = %s", (seconds, name))


def test_an_empty_service_has_a_status(db: Database) -> None:
    current = status.get_status(db, NO_REDIS)
    assert current.database is not None
    assert current.database.is_schema_current
    assert (current.has_redis, current.queue) == (False, None)
    details = current.details
    assert details is not None
    assert (
        details.unread_deliveries,
        details.waiting_calls,
        details.metering_enabled,
        details.oldest_unmetered_seconds,
    ) == (0, 0, False, None)
    assert (details.ledger_growth.events_total, details.heartbeat_age_seconds, details.jobs) == (0, None, ())
    assert "event" in {table.name for table in details.tables}
    assert sum(table.size_bytes for table in details.tables) > 100_000


def test_unavailable_backends_are_reported_quickly() -> None:
    with closing(Database(f"postgresql://llm_bus@127.0.0.1:{free_port()}/none")) as away:
        started = time.monotonic()
        with closing(RedisProbe(f"redis://127.0.0.1:{free_port()}/0")) as probe:
            current = status.get_status(away, probe)
        assert time.monotonic() - started < stretched(3)
    assert (current.database, current.has_redis, current.queue, current.details) == (
        None,
        True,
        None,
        None,
    )


def test_an_outdated_schema_is_reported(empty_database_url: str) -> None:
    with closing(Database(empty_database_url)) as db:
        current = status.get_status(db, NO_REDIS)
    assert current.database is not None
    assert (
        current.database.schema_version,
        current.database.is_schema_current,
        current.details,
    ) == (None, False, None)


def test_the_status_counts_processes_calls_jobs_and_unread_deliveries(
    db: Database, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(status, "MAX_UNREAD_COUNT", 4)
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
        _send_heartbeat(conn, "a", waiting=3, streams=1)
        _send_heartbeat(conn, "b", waiting=4, streams=0)
        _send_heartbeat(conn, "c", waiting=9, streams=9)
        _make_older(conn, "c", 100)
        _send_heartbeat(conn, "w", "worker", schedule={"often": 10.0, "never": 20.0, "rarely": 3600.0})
        for name, outcome in (("often", "ok"), ("rarely", "alarm"), ("heartbeat", "ok")):
            jobs.finish_run(conn, jobs.begin_run(conn, name), outcome, {})
        conn.execute("UPDATE job_run SET started_at = started_at - interval '65 s' WHERE name = 'often'")
    with closing(RedisProbe(redis_url)) as probe:
        probe._client.rpush(jobs.QUEUE_NAME, "one", "two")
        current = status.get_status(db, probe)
    assert current.queue is not None
    assert current.queue.depth == 2
    details = current.details
    assert details is not None
    assert (details.unread_deliveries, details.waiting_calls, details.open_streams) == (3, 7, 1)
    assert details.oldest_unmetered_seconds is not None
    assert 0 < details.oldest_unmetered_seconds < 60
    assert {job.name: (job.last_outcome, job.interval_seconds, job.is_late) for job in details.jobs} == {
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


def test_ledger_growth_comes_from_samples_and_never_decreases(db: Database) -> None:
    with db.transaction() as conn:
        project = make_project(conn)
        ada = make_agent(conn, project)
    for seconds_ago, events in ((7200, 10), (3600, 20), (65, 30), (0, 5)):
        with db.transaction() as conn:
            for _ in range(events):
                sequences.claim(conn, ada.ctx, "adr")
            status.record_sample(conn)
            # A second sample within seconds is not recorded.
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
    # The samples are 65 seconds and one hour apart.
    assert growth.events_last_minute == pytest.approx(5 * 60 / 65, rel=0.02)
    assert growth.events_last_hour == pytest.approx(35, rel=0.02)
    # Purged events were written all the same.
    with db.transaction() as conn:
        project_purge.begin_purge(conn, project.id, actor="test")
    with db.transaction() as conn:
        while not project_purge.purge_step(conn, project.id):
            pass
        conn.fetch_all("UPDATE service_sample SET at = at - interval '1 minute' RETURNING 1")
    with db.transaction() as conn:
        sequences.claim(conn, make_agent(conn).ctx, "adr")
        assert status.get_details(conn).ledger_growth.events_total == 65


def test_growth_within_a_minute_is_not_extrapolated_to_an_hour(db: Database) -> None:
    with db.transaction() as conn:
        ada = make_agent(conn)
    for seconds_ago, events in ((20, 10), (0, 20)):
        with db.transaction() as conn:
            for _ in range(events):
                sequences.claim(conn, ada.ctx, "adr")
            status.record_sample(conn)
            growth = status.get_details(conn).ledger_growth
            conn.execute("UPDATE service_sample SET at = at - make_interval(secs => %s)", (seconds_ago,))
        if seconds_ago:
            assert (growth.events_last_minute, growth.events_last_hour) == (None, None)
    assert (growth.events_total, growth.events_last_minute, growth.events_last_hour) == (30, 20, 20)


def test_concurrent_samplers_record_one_sample(db: Database) -> None:
    with db.transaction() as conn:
        ada = make_agent(conn)
        sequences.claim(conn, ada.ctx, "adr")
    run_numbered_concurrently(db, 10, lambda conn, _: status.record_sample(conn))
    with db.connection() as conn:
        assert conn.fetch_all("SELECT standing, written FROM service_sample") == [(1, 1)]
