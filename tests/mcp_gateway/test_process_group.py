"""Several gateway processes behind one socket: a killed one, a restart in turn, a start that fails."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import h11
import psutil
import pytest

from mcp_gateway.process_group import _READY, ProcessGroup, _Child
from tests.child_processes import find_serving_children, is_running
from tests.concurrency import wait_until
from tests.factories import Agent
from tests.mcp_gateway.conftest import Team
from tests.mcp_gateway.processes import GatewayProcess, running_gateways
from tests.mcp_gateway.raw_http import build_tool_call, open_raw_connection
from tests.metrics_scrape import METRICS_TOKEN, scrape
from tests.servers import application_url

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="a group of processes needs POSIX signals")


@pytest.fixture(scope="module")
def group(shared_database_url: str) -> Iterator[GatewayProcess]:
    """Two gateway processes behind one port; `popen` is their parent."""
    with _running_group(shared_database_url) as process:
        yield process


@contextmanager
def _running_group(database_url: str) -> Iterator[GatewayProcess]:
    with running_gateways(database_url, WEB_CONCURRENCY="2", METRICS_TOKEN=METRICS_TOKEN) as (process,):
        wait_until(lambda: len(_serving(process)) == 2)
        yield process


def _serving(process: GatewayProcess) -> list[psutil.Process]:
    return find_serving_children(process.popen.pid)


@contextmanager
def _claiming(process: GatewayProcess, agent: Agent) -> Iterator[list[int]]:
    """Claim without pause, each time on a new connection, until the block ends; yield the numbers so far.

    A connection that is refused, or a call that is not answered with 200, ends the block with an error. A connection
    that was accepted by a process that is killed is not answered at all; its call is made again.
    """
    numbers: list[int] = []
    has_ended = threading.Event()

    def claim() -> None:
        while not has_ended.is_set():
            with open_raw_connection(process) as connection:
                try:
                    responses = connection.exchange(build_tool_call(agent.token, tool="claim", sequence="adr"))
                except (ConnectionError, h11.RemoteProtocolError):
                    continue
            if responses:
                status, _, body = responses[0]
                assert status == 200, body
                numbers.append(json.loads(body)["result"]["structuredContent"]["number"])

    with ThreadPoolExecutor(4) as pool:
        clients = [pool.submit(claim) for _ in range(4)]
        try:
            yield numbers
        finally:
            has_ended.set()
        for client in clients:
            client.result()


def test_a_killed_process_is_replaced_and_no_connection_refused(group: GatewayProcess, team: Team) -> None:
    killed = _serving(group)[0]
    with _claiming(group, team.alice) as numbers:
        wait_until(lambda: len(numbers) > 20)
        killed.kill()
        wait_until(lambda: len(_serving(group)) == 2 and killed.pid not in {child.pid for child in _serving(group)})
        count = len(numbers)
        wait_until(lambda: len(numbers) > count + 20)
    assert len(set(numbers)) == len(numbers)


@pytest.mark.parametrize("serves", [True, False])
def test_a_child_that_ends_before_it_serves_ends_the_group_unless_another_serves(
    monkeypatch: pytest.MonkeyPatch, serves: bool
) -> None:
    """The parent may not have read yet that the other serves."""
    programs = iter(("raise SystemExit(3)", "import time; time.sleep(600)"))
    reports: list[socket.socket] = []

    def start_child(group: ProcessGroup, place: int) -> _Child:
        connection, report = socket.socketpair()
        connection.setblocking(False)
        reports.append(report)
        return _Child(place, subprocess.Popen([sys.executable, "-c", next(programs, "")]), connection)

    monkeypatch.setattr(ProcessGroup, "_start_child", start_child)
    group = ProcessGroup(2, "127.0.0.1", 0, 0, {})
    assert group._replace_ended_children() is None
    ended, other = group._children
    try:
        ended.popen.wait()
        if serves:
            reports[1].send(_READY)
        assert group._replace_ended_children() == (None if serves else 3)
        assert ended not in group._children
        assert len(group._children) == (2 if serves else 1)
    finally:
        group._stop_children([*group._children])
        for connection in (*reports, group._listener):
            connection.close()
    assert not psutil.pid_exists(other.popen.pid)


def test_a_hangup_replaces_the_processes_in_turn_without_a_failed_call(group: GatewayProcess, team: Team) -> None:
    before = {child.pid for child in _serving(group)}
    with _claiming(group, team.alice) as numbers:
        wait_until(lambda: len(numbers) > 20)
        group.popen.send_signal(signal.SIGHUP)
        wait_until(lambda: not before & {child.pid for child in _serving(group)})
        count = len(numbers)
        wait_until(lambda: len(numbers) > count + 20)
    assert sorted(numbers) == list(range(1, len(numbers) + 1))


def test_the_processes_end_when_their_parent_is_killed(shared_database_url: str) -> None:
    with _running_group(shared_database_url) as group:
        children = _serving(group)
        group.popen.kill()
        wait_until(lambda: not any(is_running(child) for child in children))


def test_a_stop_ends_all_processes(shared_database_url: str) -> None:
    with _running_group(shared_database_url) as group:
        children = _serving(group)
        group.stop()
        assert not any(is_running(child) for child in children)


def test_a_scrape_answers_for_all_processes(group: GatewayProcess, team: Team) -> None:
    base_url = group.url.removesuffix("/mcp")

    def count_calls() -> dict[tuple[str, ...], float]:
        return scrape(base_url).group_by("llm_bus_tool_calls_total", "process", "tool", "outcome")

    def call_both() -> bool:
        with open_raw_connection(group) as connection:
            connection.exchange(build_tool_call(team.alice.token, tool="whoami"))
        return {process for process, tool, _ in count_calls() if tool == "whoami"} == {"0", "1"}

    # Which process accepts a connection is up to the kernel.
    wait_until(call_both)
    killed = _serving(group)[0]
    killed.kill()
    wait_until(lambda: killed not in _serving(group) and len(_serving(group)) == 2)
    # The new process takes the place, and begins to count again.
    wait_until(lambda: len(scrape(base_url).group_by("llm_bus_build_info", "process")) == 2)
    assert len(scrape(base_url).group_by("process_cpu_seconds_total", "process")) == 2


@pytest.mark.parametrize(
    ("module", "env"),
    [
        ("mcp_gateway", {"WEB_CONCURRENCY": "2"}),
        ("webapp", {}),
        pytest.param("mcp_gateway", {}, marks=pytest.mark.exhaustive),
        pytest.param("cli serve", {}, marks=pytest.mark.exhaustive),
    ],
    ids=["gateways", "web", "gateway", "serve"],
)
def test_a_port_in_use_ends_the_start_with_a_sentence(
    shared_database_url: str, module: str, env: dict[str, str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        whole_env = {
            **os.environ,
            "DATABASE_URL": application_url(shared_database_url),
            "HOST": "127.0.0.1",
            **env,
            "PORT": str(taken.getsockname()[1]),
        }
        result = subprocess.run(
            [sys.executable, "-m", *module.split()], env=whole_env, capture_output=True, text=True, timeout=150
        )
    assert result.returncode == 1
    assert "cannot listen on 127.0.0.1:" in result.stderr
    assert "Traceback" not in result.stderr
