"""`push`: the latency of notifications, and the cost of many waiting calls and subscriptions."""

import socket
import threading
import time
from contextlib import ExitStack
from typing import Any

from bench import cpu
from bench.checks import require, verify_ledgers
from bench.client import Client
from bench.environment import checkpoint_and_pause
from bench.fixtures import Team, assign_round_robin, make_teams
from bench.load import LoadSpec, run_load
from bench.requests import Address, build_request, build_tool_call, is_complete_response
from bench.scenario import Harness, Result, Row
from bench.stats import LatencySummary, summarize_latencies
from bench.workloads import MixedWorkload

_MIB = 2**20
_SETTLE_SECONDS = 3.0
_IDLE_SECONDS = 4.0
_WAITER_TEAM_COUNT = 4
_WAIT_ARGUMENTS: dict[str, Any] = {"kind": "inbox", "timeout_seconds": 50}
_BATCH_SIZE = 200


def run(harness: Harness) -> Result:
    """The time from a post to the return of wait_for in the other process, and thousands of waiting calls."""
    result = Result()
    teams = make_teams(harness.environment.database, 1, 2)
    checkpoint_and_pause(harness.environment)
    _add_latency_row(result, "idle", _measure_wake_ups(harness, teams[0], harness.effort.push_rounds))
    load_teams = make_teams(harness.environment.database, 4, 8)
    spec = LoadSpec(
        MixedWorkload(assign_round_robin(load_teams, 32)),
        harness.environment.addresses,
        32,
        warmup=0.5,
        windows=1,
        seconds=harness.effort.push_seconds,
    )
    load_thread = threading.Thread(target=run_load, args=(spec,))
    load_thread.start()
    time.sleep(1.0)
    _add_latency_row(
        result, "under mixed", _measure_wake_ups(harness, teams[0], harness.effort.push_rounds, load_thread=load_thread)
    )
    load_thread.join()
    harness.environment.stop_redis()
    try:
        time.sleep(2.0)
        _add_latency_row(result, "without Redis", _measure_wake_ups(harness, teams[0], 10))
    finally:
        harness.environment.start_redis()
    time.sleep(2.0)
    waiting_teams = make_teams(
        harness.environment.database,
        _WAITER_TEAM_COUNT,
        1 + max(1, harness.effort.push_waiters // 100 // _WAITER_TEAM_COUNT),
        lane_count=1,
    )
    # Measure the streams first: they would reuse memory that waiting calls have released.
    _measure_subscriptions(harness, result, waiting_teams, harness.effort.push_streams)
    _measure_waiters(harness, result, waiting_teams, harness.effort.push_waiters)
    events = verify_ledgers(harness.environment.database, [team.project_id for team in (*teams, *load_teams)])
    result.checked.append(f"{events} events contiguous")
    return result


def _add_latency_row(result: Result, variant: str, seconds: list[float]) -> None:
    summary: LatencySummary = summarize_latencies(seconds)
    result.rows.append(Row("push", variant, 1, 0.0, [0.0], summary, {}, 0.0))
    result.figures[variant] = {"rounds": len(seconds), "p50": summary.p50, "p99": summary.p99, "max": summary.max}


def _measure_wake_ups(
    harness: Harness, team: Team, round_count: int, load_thread: threading.Thread | None = None
) -> list[float]:
    """Measure the seconds from sending a post in one process to the return of wait_for in the other.

    The commit is later than the sending, so the result includes the whole call of post.
    """
    sender, recipient = team.agents
    latencies = []
    with (
        Client(harness.environment.addresses[0], sender.token) as sending_client,
        Client(harness.environment.addresses[1], recipient.token) as waiting_client,
    ):
        waiting_client.call("whoami")
        for _ in range(round_count):
            if load_thread is not None and not load_thread.is_alive():
                break
            arrivals: list[tuple[float, int]] = []

            def wait(arrivals: list[tuple[float, int]] = arrivals) -> None:
                content = waiting_client.call("wait_for", **_WAIT_ARGUMENTS).structured_content
                arrivals.append((time.perf_counter(), content["posts"][0]["post_id"]))

            wait_thread = threading.Thread(target=wait)
            wait_thread.start()
            time.sleep(0.02)
            sent_at = time.perf_counter()
            response = sending_client.call("post", body="x", to_actor=recipient.label)
            post_id = response.structured_content["post_id"]
            wait_thread.join()
            arrived_at, arrived_post_id = arrivals[0]
            require(arrived_post_id == post_id, f"wait_for returned post {arrived_post_id} instead of {post_id}")
            latencies.append(arrived_at - sent_at)
            waiting_client.call("ack", post_id=post_id)
    return latencies


def _measure_waiters(harness: Harness, result: Result, teams: list[Team], waiter_count: int) -> None:
    """Measure many waiting calls in one process: memory, CPU while idle, and one broadcast."""
    address, pid = harness.environment.addresses[0], harness.environment.gateway_pids[0]
    # The first agent of each team posts to its lane; the others wait.
    others = [agent for team in teams for agent in team.agents[1:]]
    agents = [others[number % len(others)] for number in range(waiter_count)]
    with ExitStack() as stack:
        for agent in others:
            with Client(address, agent.token) as client:
                client.call("whoami")
        time.sleep(_SETTLE_SECONDS)
        before = cpu.private_memory(pid)
        started_at = time.monotonic()
        connections = []
        for number, agent in enumerate(agents, 1):
            request = build_tool_call(address, agent.token, "wait_for", **_WAIT_ARGUMENTS)
            connections.append(_open_request(stack, address, request))
            if number % _BATCH_SIZE == 0:
                # Thousands of simultaneous calls would be refused with 503, so wait for each batch.
                with Client(address, others[0].token) as client:
                    client.call("whoami")
        result.lines.append(f"{len(agents):,} waiting calls opened in {time.monotonic() - started_at:.1f} s")
        time.sleep(_SETTLE_SECONDS)
        during = cpu.private_memory(pid)
        idle = cpu.take_snapshot({"gateway": [pid]})
        time.sleep(_IDLE_SECONDS)
        busy_cores = cpu.elapsed_seconds(idle, cpu.take_snapshot({"gateway": [pid]}))["gateway"] / _IDLE_SECONDS
        require(time.monotonic() - started_at < 45, "opening the waiting calls took too long")
        broadcast_at = time.perf_counter()
        for team in teams:
            with Client(harness.environment.addresses[1], team.agents[0].token) as client:
                client.call("post", body="to all", to_lane=team.agents[0].lane)
        responses = [_read_response(connection) for connection in connections]
        broadcast_seconds = time.perf_counter() - broadcast_at
        received_count = sum(b'"kind":"inbox"' in response for response in responses)
    require(received_count == len(agents), f"{received_count} of {len(agents)} received the broadcast")
    kib_each = (during - before) / len(agents) / 1024
    result.figures |= {
        "waiters": len(agents),
        "kib_each_waiting": round(kib_each, 1),
        "cpu_while_idle": round(busy_cores, 4),
        "broadcast_seconds": round(broadcast_seconds, 2),
    }
    result.lines.append(
        f"{len(agents):,} waiting calls in one process: {kib_each:.1f} KiB each,"
        f" {busy_cores * 100:.1f}% of a core while idle; all returned {broadcast_seconds:.1f} s after one broadcast"
    )


def _measure_subscriptions(harness: Harness, result: Result, teams: list[Team], subscriber_count: int) -> None:
    """Measure many subscriptions in one process: memory, and one change in each project."""
    address, pid = harness.environment.addresses[0], harness.environment.gateway_pids[0]
    agents = assign_round_robin(teams, subscriber_count)
    for team in teams:
        for agent in team.agents:
            with Client(address, agent.token) as client:
                client.call("whoami")
    time.sleep(_SETTLE_SECONDS)
    before = cpu.private_memory(pid)
    with ExitStack() as stack:
        params = {"notifications": {"resourceSubscriptions": ["bus://inbox", "bus://tasks"]}}
        connections: list[socket.socket] = []
        for start in range(0, len(agents), _BATCH_SIZE):
            batch = [
                _open_request(stack, address, build_request(address, agent.token, "subscriptions/listen", params))
                for agent in agents[start : start + _BATCH_SIZE]
            ]
            for connection in batch:
                _read_until(connection, b"acknowledged")
            connections += batch
        time.sleep(_SETTLE_SECONDS)
        during = cpu.private_memory(pid)
        changed_at = time.perf_counter()
        for team in teams:
            with Client(harness.environment.addresses[1], team.agents[0].token) as client:
                client.call("task_create", title="to all")
        for connection in connections:
            _read_until(connection, b"bus://tasks")
        notified_seconds = time.perf_counter() - changed_at
    kib_each = (during - before) / len(agents) / 1024
    result.figures |= {
        "streams": len(agents),
        "kib_each_stream": round(kib_each, 1),
        "streams_notified_seconds": round(notified_seconds, 2),
    }
    result.lines.append(
        f"{len(agents):,} open streams in one process: {kib_each:.1f} KiB each;"
        f" all notified in {notified_seconds:.1f} s"
    )


def _open_request(stack: ExitStack, address: Address, content: bytes) -> socket.socket:
    connection = stack.enter_context(socket.create_connection((address.host, address.port), 60))
    connection.sendall(content)
    return connection


def _read_until(connection: socket.socket, expected: bytes) -> None:
    received = b""
    while expected not in received:
        chunk = connection.recv(65_536)
        require(bool(chunk), f"a stream ended before it sent {expected!r}")
        received += chunk


def _read_response(connection: socket.socket) -> bytes:
    received = b""
    while not is_complete_response(received):
        chunk = connection.recv(65_536)
        require(bool(chunk), "the server closed a waiting call")
        received += chunk
    return received
