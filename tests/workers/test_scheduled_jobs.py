"""Workers and a scheduler do due work without a call, and agents see the results through their tools."""

import os
import signal
import subprocess
import sys
import time
from contextlib import closing
from functools import partial
from typing import Any

import httpx2
import pytest
import redis

from bus.coordination import leases, presence
from bus.db import Database, migrate
from bus.errors import Unavailable
from bus.operations import jobs, status
from bus.operations.process_registry import list_processes
from bus.operations.status import RedisProbe, ServiceStatus
from cli.embedded import account, postgres
from tests import servers
from tests.concurrency import hold_for, stretched
from tests.mcp_gateway.conftest import Team, make_team
from tests.mcp_gateway.mcp_client import McpClient
from tests.mcp_gateway.processes import running_gateways
from tests.metrics_scrape import METRICS_TOKEN, scrape
from tests.redis_server import RedisServer
from tests.servers import free_port
from tests.workers.processes import WorkerProcess, running_workers, start_process, stop_processes, wait_until
from workers.jobs import all_jobs


@pytest.fixture
def team(db: Database) -> Team:
    return make_team(db)


def _kinds(db: Database) -> list[str]:
    with db.connection() as conn:
        return [kind for (kind,) in conn.fetch_all("SELECT type FROM event ORDER BY seq")]


def test_an_expiring_lease_wakes_a_waiting_call(
    database_url: str, db: Database, team: Team, queue: RedisServer
) -> None:
    url = queue.start()
    with (
        running_gateways(database_url, REDIS_URL=url) as (gateway,),
        running_workers(
            database_url, url, METRICS_TOKEN=METRICS_TOKEN, METRICS_PORT=str(port := free_port())
        ) as processes,
    ):
        alice, bob = McpClient(gateway.url, team.alice.token), McpClient(gateway.url, team.bob.token)
        wait_until(lambda: _ran(db, "heartbeat"), *processes)
        assert alice.call("whats_new").status == 200
        bob.call("lease", surface="src/a.py", ttl_seconds=1)
        ready = alice.call("wait_for", kind="lease", surface="src/a.py", timeout_seconds=30).structured_content
        assert ready["kind"] == "lease"
        wait_until(lambda: "lease_expire" in _kinds(db), *processes)
        events = alice.call("whats_new").structured_content["events"]
        assert [event["type"] for event in events] == ["lease", "lease_expire"]
        assert (events[1]["actor"], events[1]["payload"]["surface"]) == (team.bob.actor, "src/a.py")
        for client in (alice, bob):
            client.close()
        _assert_status_is_good(db, url, processes)
        _assert_metrics_match_runs(db, port)
    # A process that stops in order removes its heartbeat.
    with db.connection() as conn:
        assert list_processes(conn, include_stale=True) == []


def _assert_metrics_match_runs(db: Database, port: int) -> None:
    """The run counts of the worker's metrics are those that PostgreSQL holds."""
    base = f"http://127.0.0.1:{port}"
    before = scrape(base)
    with db.connection() as conn:
        rows = conn.fetch_all("SELECT name, count(*) FROM job_run WHERE outcome = 'ok' GROUP BY name")
    written: dict[str, int] = dict(rows)
    after = scrape(base)
    name = "llm_bus_job_runs_total"
    for job, count in written.items():
        # A run is counted just before it is recorded.
        assert before.value(name, job=job, outcome="ok") - 1 <= count <= after.value(name, job=job, outcome="ok") + 1
    assert after.group_by("llm_bus_job_run_seconds_count", "job").keys() == {
        (job,) for job, _ in after.group_by(name, "job", "outcome")
    }
    assert after.value("llm_bus_job_interval_seconds", job="heartbeat") == 0.5
    statuses = [httpx2.get(f"{base}/{path}").status_code for path in ("metrics", "nowhere")]
    assert statuses == [401, 404]


def _assert_status_is_good(db: Database, url: str, processes: list[WorkerProcess]) -> None:
    """The service status lists every process, a recent heartbeat and no late job."""
    with closing(RedisProbe(url)) as probe:

        def get_status() -> ServiceStatus:
            return status.get_status(db, probe)

        wait_until(
            lambda: {process.kind for process in get_status().details.processes} == {"beat", "gateway", "worker"},
            *processes,
        )
        service = get_status()
    assert service.database is not None
    assert service.database.is_schema_current
    assert service.queue is not None
    assert service.details is not None
    assert service.details.heartbeat_age_seconds is not None
    assert service.details.heartbeat_age_seconds < 30
    assert {job.name for job in service.details.jobs} == set(all_jobs())
    assert [job.name for job in service.details.jobs if job.is_late] == []


def test_an_overdue_post_is_escalated_and_absent_participants_lapse(
    database_url: str, db: Database, team: Team, queue: RedisServer
) -> None:
    url = queue.start()
    with db.transaction() as conn:
        conn.execute("UPDATE project SET escalation_pause_seconds = 10, gone_window_seconds = 60")
        presence.record_seen(conn, {team.bob.ctx.participation_id: 120.0})
    with running_gateways(database_url, REDIS_URL=url) as (gateway,), running_workers(database_url, url) as processes:
        alice, bob = McpClient(gateway.url, team.alice.token), McpClient(gateway.url, team.bob.token)
        wait_until(lambda: "presence_lapse" in _kinds(db), *processes)
        post = bob.call("post", body="x", to_lane="empty-lane", ack_within_seconds=1).structured_content
        # Alice is project-admin: after the pause the post is delivered to her and wakes her waiting call.
        ready = alice.call("wait_for", kind="inbox", timeout_seconds=40).structured_content
        assert [delivered["post_id"] for delivered in ready["posts"]] == [post["post_id"]]
        assert _kinds(db).count("escalate") == 1
        alice.call("ack", post_id=post["post_id"])
        for client in (alice, bob):
            client.close()


def _ran(db: Database, name: str, after: int = 0) -> int:
    """Return the id of the job's newest good run above `after`, or 0."""
    with db.connection() as conn:
        ids = [run.id for run in jobs.list_runs(conn, name=name, limit=5) if run.outcome == "ok" and run.id > after]
    return max(ids, default=0)


@pytest.mark.slow
def test_tools_work_while_redis_is_down_and_jobs_resume_afterwards(
    database_url: str, db: Database, team: Team, queue: RedisServer
) -> None:
    url = queue.start()
    with running_gateways(database_url, REDIS_URL=url) as (gateway,), running_workers(database_url, url) as processes:
        wait_until(lambda: _ran(db, "heartbeat"), *processes)
        claimed: list[int] = []
        client = McpClient(gateway.url, team.alice.token)

        def claim() -> bool:
            started = time.monotonic()
            claimed.append(client.call("claim", sequence="adr").structured_content["number"])
            return time.monotonic() - started < stretched(3)

        for take_down in (queue.stop, queue.kill):
            take_down()
            before = _ran(db, "heartbeat")
            hold_for(claim, seconds=3)
            queue.start()
            wait_until(partial(_ran, db, "heartbeat", before), *processes)
        client.close()
        assert claimed == list(range(1, len(claimed) + 1))
        assert all(process.popen.poll() is None for process in processes)


def test_jobs_resume_when_postgres_comes_back(queue: RedisServer) -> None:
    url = queue.start()
    folder = servers.make_traversable_folder()
    port = servers.free_port()
    options: dict[str, Any] = {
        "port": port,
        "log_path": folder / "log",
        "account": account.choose_account(folder),
        "ephemeral": True,
    }
    server = postgres.launch(folder / "data", **options)
    try:
        postgres.wait_until_ready(server)
        migrate.migrate(server.url)
        with running_workers(server.url, url) as processes:
            db = Database(server.url, pool_size=2)
            first = wait_until(lambda: _ran(db, "heartbeat"), *processes)
            assert isinstance(first, int)
            printed = len(processes[0].output)
            postgres.stop(server)
            wait_until(lambda: "cannot reach its database" in processes[0].output[printed:], *processes)
            server = postgres.launch(folder / "data", **options)
            postgres.wait_until_ready(server)
            wait_until(lambda: _ran_if_available(db, first), *processes)
            db.close()
    finally:
        postgres.stop(server)


def _ran_if_available(db: Database, after: int) -> int:
    try:
        return _ran(db, "heartbeat", after)
    except Unavailable:
        return 0


def test_a_worker_stops_soon_after_sigterm_and_loses_no_work(
    database_url: str, db: Database, team: Team, queue: RedisServer
) -> None:
    url = queue.start()
    with running_workers(database_url, url) as processes:
        wait_until(lambda: _ran(db, "heartbeat"), *processes)
        with db.transaction() as conn:
            leases.acquire(conn, team.bob.ctx, "a.py")
        # The job waits for this project's clock for longer than a deploy waits for the job.
        with db.transaction() as conn:
            conn.execute("SELECT bus_lock_clock(%s)", (team.project_id,))
            # The lease ends while the clock is held, so that no job expires it before.
            with db.transaction() as other_conn:
                other_conn.execute("UPDATE lease SET expires_at = clock_timestamp()")
            before = _started(db, "expire_leases")
            wait_until(lambda: _started(db, "expire_leases") > before, *processes)
            worker = processes[0]
            started = time.monotonic()
            worker.popen.send_signal(signal.SIGTERM)
            assert worker.popen.wait(120) == 0, worker.output
            assert time.monotonic() - started < stretched(15)
        assert "lease_expire" not in _kinds(db)
        processes.append(start_process("worker", database_url, url))
        wait_until(lambda: "lease_expire" in _kinds(db), *processes)
    assert _kinds(db).count("lease_expire") == 1


def _started(db: Database, name: str) -> int:
    with db.connection() as conn:
        return max((run.id for run in jobs.list_runs(conn, name=name, limit=5)), default=0)


def test_the_watchdog_ends_a_stalled_worker(database_url: str, queue: RedisServer) -> None:
    """The worker's consumer hangs: messages wait in Redis and none is taken."""
    url = queue.start()
    code = (
        "import os, sys, threading\n"
        "from workers.watchdog import Watchdog\n"
        f"Watchdog({url!r}, 'waiting', lambda: False, stall_seconds=0.6).start()\n"
        "import signal; signal.signal(signal.SIGTERM, lambda *_: sys.exit(3))\n"
        "threading.Event().wait()\n"
    )
    hung = subprocess.Popen([sys.executable, "-c", code], env=os.environ.copy())
    try:
        with pytest.raises(subprocess.TimeoutExpired):
            hung.wait(2)  # no message waits, so the worker is not stalled
        with redis.Redis.from_url(url) as client:
            client.lpush("waiting", "x")
        assert hung.wait(20) == 3
    finally:
        hung.kill()
        hung.wait()


def test_several_workers_and_schedulers_do_all_work_once(
    database_url: str, db: Database, team: Team, queue: RedisServer
) -> None:
    url = queue.start()
    with db.transaction() as conn:
        for number in range(20):
            leases.acquire(conn, team.bob.ctx, f"src/{number}.py")
        conn.execute("UPDATE lease SET expires_at = clock_timestamp() + interval '3 seconds'")
    started = [start_process(role, database_url, url) for role in ("worker", "worker", "beat", "beat", "beat")]
    try:
        wait_until(lambda: _kinds(db).count("lease_expire") >= 20, *started)
        after = _ran(db, "expire_leases")
        wait_until(lambda: _ran(db, "expire_leases", after), *started)
        assert _kinds(db).count("lease_expire") == 20
    finally:
        stop_processes(started)
