"""Heartbeats and the process registry that they write to."""

import threading
import time
from contextlib import closing

from bus.config.redaction import MaskedSetting
from bus.db import Connection, Database
from bus.operations import process_registry
from bus.operations.counters import make_counter
from bus.operations.heartbeat import HeartbeatReporter, request_counts
from tests.concurrency import stretched, wait_until
from tests.servers import free_port


def _send_heartbeat(conn: Connection, name: str, kind: str = "gateway", **metrics: object) -> None:
    settings = {"PORT": MaskedSetting("80", False)}
    process_registry.record_heartbeat(conn, name, kind, pid=7, uptime_seconds=100.0, settings=settings, metrics=metrics)


def _make_older(conn: Connection, name: str, seconds: int) -> None:
    conn.execute("UPDATE process SET seen_at = seen_at - make_interval(secs => %s) WHERE id = %s", (seconds, name))


def test_a_process_without_a_heartbeat_for_a_minute_is_stale(conn: Connection) -> None:
    _send_heartbeat(conn, "a", waiting=1)
    _send_heartbeat(conn, "b", "web")
    _send_heartbeat(conn, "a", waiting=3)
    first, second = process_registry.list_processes(conn)
    assert (first.id, first.kind, first.pid, first.metrics) == ("a", "gateway", 7, {"waiting": 3})
    assert (second.id, second.settings) == ("b", {"PORT": MaskedSetting("80", False)})
    assert 99 < first.uptime_seconds < 130
    _make_older(conn, "a", 50)
    assert not process_registry.list_processes(conn)[0].is_stale
    _make_older(conn, "a", 11)
    assert [process.id for process in process_registry.list_processes(conn)] == ["b"]
    assert [
        (process.id, process.is_stale) for process in process_registry.list_processes(conn, include_stale=True)
    ] == [
        ("a", True),
        ("b", False),
    ]
    # The process was only slow: its next heartbeat lists it again.
    _send_heartbeat(conn, "a")
    process_registry.remove_process(conn, "b")
    assert [process.id for process in process_registry.list_processes(conn)] == ["a"]


def test_a_process_is_registered_at_once_and_removed_at_shutdown(db: Database) -> None:
    served = make_counter("requests", "Requests.", ("route", "status"))
    reporter = HeartbeatReporter(
        db,
        "web",
        {"PORT": MaskedSetting("80", True)},
        counters=lambda: request_counts(served),
        gauges=lambda: {"waiting": 2},
    )
    for code, times in (("200", 5), ("404", 2), ("500", 1)):
        for _ in range(times):
            served.labels("/", code).inc()
    reporter.start()
    processes = wait_until(lambda: _listed(db))
    (process,) = processes
    assert process.id == reporter.process_id
    assert process.metrics["memory_bytes"] > 1_000_000
    expected = {"requests": 8, "errors": 1}
    assert {name: process.metrics[f"{name}_last_minute"] for name in expected} == expected
    assert {name: process.metrics[f"{name}_last_5_minutes"] for name in expected} == expected
    assert process.metrics["waiting"] == 2
    reporter.stop()
    assert _listed(db) == []


def _listed(db: Database) -> list[process_registry.Process]:
    with db.connection() as conn:
        return process_registry.list_processes(conn, include_stale=True)


def test_a_database_that_is_away_does_not_delay_the_shutdown() -> None:
    with closing(Database(f"postgresql://llm_bus@127.0.0.1:{free_port()}/none")) as away:
        reporter = HeartbeatReporter(away, "gateway", {})
        started = time.monotonic()
        reporter.start()
        reporter.stop()
        assert time.monotonic() - started < stretched(5)
    assert "heartbeat" not in {thread.name for thread in threading.enumerate()}
