"""PostgreSQL ends at once and recovers: every process serves again by itself, within seconds."""

import contextlib
import signal
import time
from collections.abc import Callable

import httpx2
import psutil
import psycopg
import pytest

from tests import concurrency
from tests.child_processes import find_children
from tests.cli.bus_process import BusProcess, reserve_ports, running_bus, temporary_data_folder
from tests.mcp_gateway.mcp_client import McpClient

_MAX_SECONDS = 5.0
_CYCLES = 5


def _find_postmaster_start(url: str) -> float | None:
    with contextlib.suppress(psycopg.Error), psycopg.connect(url, connect_timeout=2) as conn:
        row = conn.execute("SELECT extract(epoch FROM pg_postmaster_start_time())::float8").fetchone()
        return None if row is None else float(row[0])
    return None


def _request_job(url: str) -> None:
    with psycopg.connect(url) as conn:
        conn.execute("INSERT INTO job_request (name, asked_by) VALUES ('finish_purges', 'test')")


def _is_job_done(url: str, after: float) -> bool:
    with contextlib.suppress(psycopg.Error), psycopg.connect(url, connect_timeout=2) as conn:
        row = conn.execute(
            "SELECT FROM job_run WHERE asked_by IS NOT NULL AND outcome = 'ok' AND finished_at > to_timestamp(%s)",
            (after,),
        ).fetchone()
        return row is not None
    return False


def _is_ready(url: str) -> bool:
    with contextlib.suppress(httpx2.HTTPError):
        return httpx2.get(url, timeout=2).status_code == 200
    return False


def _can_claim(client: McpClient) -> bool:
    with contextlib.suppress(httpx2.HTTPError):
        response = client.call("claim", sequence="adr")
        return response.status == 200 and not response.result.get("isError")
    return False


def _restart_postgres(bus: BusProcess) -> dict[str, float]:
    """End PostgreSQL and return the seconds from its recovery until each process serves."""
    url, web, gateway = (bus.startup_info[key] for key in ("database_url", "web_url", "gateway_url"))
    started = _find_postmaster_start(url)
    (server,) = find_children(psutil.Process(bus.process.pid), lambda child: "postgres" in child.name())
    server.send_signal(signal.SIGQUIT)
    concurrency.wait_until(lambda: _find_postmaster_start(url) not in (None, started))
    recovered_at, wall_clock = time.monotonic(), time.time()
    _request_job(url)
    client = McpClient(gateway, bus.startup_info["agents"][0]["token"])
    checks: dict[str, Callable[[], bool]] = {
        "gateway": lambda: _can_claim(client),
        "web": lambda: _is_ready(f"{web}/readyz"),
        "worker": lambda: _is_job_done(url, wall_clock),
    }
    seconds: dict[str, float] = {}

    def run_checks() -> bool:
        for name in checks.keys() - seconds.keys():
            if checks[name]():
                seconds[name] = time.monotonic() - recovered_at
        return len(seconds) == len(checks)

    concurrency.wait_until(run_checks)
    client.close()
    return seconds


@pytest.mark.exhaustive
def test_all_processes_serve_within_seconds_of_a_recovery() -> None:
    with temporary_data_folder() as data:
        data.mkdir(mode=0o711)
        reserve_ports(data)
        with running_bus(data) as bus:
            cycles = [_restart_postgres(bus) for _ in range(_CYCLES)]
    for name in cycles[0]:
        longest = max(cycle[name] for cycle in cycles)
        print(f"{name} served again {longest:.1f} s after PostgreSQL at the latest")
        assert longest < concurrency.stretched(_MAX_SECONDS)
