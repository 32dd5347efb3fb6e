"""`push`: how soon who waits hears of it, and what it costs that many wait."""

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
    """From the commit of a post to the return of wait_for in the other process; and thousands who wait."""
    result = Result()
    teams = make_teams(harness.environment.database, 1, 2)
    checkpoint_and_pause(harness.environment)
    _add_latency_row(result, "idle", _measure_wake_ups(harness, teams[0], harness.effort.push_rounds))
    load = make_teams(harness.environment.database, 4, 8)
    job = LoadSpec(
        MixedWorkload(assign_round_robin(load, 32)),
        harness.environment.addresses,
        32,
        warmup=0.5,
        windows=1,
        seconds=harness.effort.push_seconds,
    )
    playing = threading.Thread(target=lambda: outcomes.append(run_load(job)))
    outcomes: list[object] = []
    playing.start()
    time.sleep(1.0)
    _add_latency_row(
        result, "under mixed", _measure_wake_ups(harness, teams[0], harness.effort.push_rounds, load_thread=playing)
    )
    playing.join()
    harness.environment.stop_redis()
    try:
        time.sleep(2.0)
        _add_latency_row(result, "without Redis", _measure_wake_ups(harness, teams[0], 10))
    finally:
        harness.environment.start_redis()
    time.sleep(2.0)
    crowd = make_teams(
        harness.environment.database,
        _WAITER_TEAM_COUNT,
        1 + max(1, harness.effort.push_waiters // 100 // _WAITER_TEAM_COUNT),
        lane_count=1,
    )
    # The streams first: what waiting calls gave back would be theirs for nothing.
    _measure_subscriptions(harness, result, crowd, harness.effort.push_streams)
    _measure_waiters(harness, result, crowd, harness.effort.push_waiters)
    events = verify_ledgers(harness.environment.database, [team.project_id for team in (*teams, *load)])
    result.checked.append(f"{events} events contiguous")
    return result


def _add_latency_row(result: Result, variant: str, seconds: list[float]) -> None:
    summary: LatencySummary = summarize_latencies(seconds)
    result.rows.append(Row("push", variant, 1, 0.0, [0.0], summary, {}, 0.0))
    result.figures[variant] = {"rounds": len(seconds), "p50": summary.p50, "p99": summary.p99, "max": summary.max}


def _measure_wake_ups(
    harness: Harness, team: Team, round_count: int, load_thread: threading.Thread | None = None
) -> list[float]:
    """One agent waits in one process, another posts in the other; the seconds from the post's answer to the wait's.

    The answer to the post comes after its commit, so what is measured begins a little later than the commit does;
    the moment taken is that at which the post was sent, and the whole call counts.
    """
    me, mate = team.agents
    taken = []
    with (
        Client(harness.environment.addresses[0], me.token) as writer,
        Client(harness.environment.addresses[1], mate.token) as reader,
    ):
        reader.call("whoami")
        for _ in range(round_count):
            if load_thread is not None and not load_thread.is_alive():
                break
            came: list[tuple[float, int]] = []

            def wait(came: list[tuple[float, int]] = came) -> None:
                news = reader.call("wait_for", **_WAIT_ARGUMENTS).structured_content
                came.append((time.perf_counter(), news["posts"][0]["post_id"]))

            waiting = threading.Thread(target=wait)
            waiting.start()
            time.sleep(0.02)
            sent = time.perf_counter()
            post_id = writer.call("post", body="x", to_actor=mate.label).structured_content["post_id"]
            waiting.join()
            at, told = came[0]
            require(told == post_id, f"waited for post {post_id} and was told of {told}")
            taken.append(at - sent)
            reader.call("ack", post_id=post_id)
    return taken


def _measure_waiters(harness: Harness, result: Result, teams: list[Team], waiter_count: int) -> None:
    """Many who wait in one process: memory, CPU while idle, and one broadcast."""
    address, pid = harness.environment.addresses[0], harness.environment.gateway_pids[0]
    # The first of each team posts to its lane; the others wait.
    others = [agent for team in teams for agent in team.agents[1:]]
    agents = [others[number % len(others)] for number in range(waiter_count)]
    with ExitStack() as stack:
        for agent in others:
            with Client(address, agent.token) as first:
                first.call("whoami")
        time.sleep(_SETTLE_SECONDS)
        before = cpu.private_memory(pid)
        opened = time.monotonic()
        asked = []
        for number, one in enumerate(agents, 1):
            asked.append(
                _open_request(stack, address, build_tool_call(address, one.token, "wait_for", **_WAIT_ARGUMENTS))
            )
            if number % _BATCH_SIZE == 0:
                # Who comes in thousands at one moment is sent away with 503; that is not what is measured.
                with Client(address, others[0].token) as first:
                    first.call("whoami")
        result.lines.append(f"{len(agents):,} came to wait within {time.monotonic() - opened:.1f} s")
        time.sleep(_SETTLE_SECONDS)
        waiting = cpu.private_memory(pid)
        idle = cpu.take_snapshot({"gateway": [pid]})
        time.sleep(_IDLE_SECONDS)
        spent = cpu.elapsed_seconds(idle, cpu.take_snapshot({"gateway": [pid]}))["gateway"] / _IDLE_SECONDS
        require(time.monotonic() - opened < 45, "the crowd took too long to gather")
        started = time.perf_counter()
        for team in teams:
            with Client(harness.environment.addresses[1], team.agents[0].token) as lead:
                lead.call("post", body="to all", to_lane=team.agents[0].lane)
        told = [_read_response(one) for one in asked]
        broadcast = time.perf_counter() - started
        heard = sum(b'"kind":"inbox"' in one for one in told)
    require(heard == len(agents), f"{heard} of {len(agents)} heard the broadcast")
    result.figures |= {
        "waiters": len(agents),
        "kib_each_waiting": round((waiting - before) / len(agents) / 1024, 1),
        "cpu_while_idle": round(spent, 4),
        "broadcast_seconds": round(broadcast, 2),
    }
    result.lines.append(
        f"{len(agents):,} waiting calls in one process: {(waiting - before) / len(agents) / 1024:.1f} KiB each,"
        f" {spent * 100:.1f} % of a core while idle; all answered {broadcast:.1f} s after one broadcast"
    )


def _measure_subscriptions(harness: Harness, result: Result, teams: list[Team], subscriber_count: int) -> None:
    """Many who watch in one process: memory, and one change in each project."""
    address, pid = harness.environment.addresses[0], harness.environment.gateway_pids[0]
    agents = assign_round_robin(teams, subscriber_count)
    for team in teams:
        for agent in team.agents:
            with Client(address, agent.token) as first:
                first.call("whoami")
    time.sleep(_SETTLE_SECONDS)
    before = cpu.private_memory(pid)
    with ExitStack() as stack:
        wanted = {"notifications": {"resourceSubscriptions": ["bus://inbox", "bus://tasks"]}}
        opened: list[socket.socket] = []
        for start in range(0, len(agents), _BATCH_SIZE):
            some = [
                _open_request(stack, address, build_request(address, one.token, "subscriptions/listen", wanted))
                for one in agents[start : start + _BATCH_SIZE]
            ]
            for one in some:
                _read_until(one, b"acknowledged")
            opened += some
        time.sleep(_SETTLE_SECONDS)
        watching = cpu.private_memory(pid)
        started = time.perf_counter()
        for team in teams:
            with Client(harness.environment.addresses[1], team.agents[0].token) as lead:
                lead.call("task_create", title="to all")
        for one in opened:
            _read_until(one, b"bus://tasks")
        told = time.perf_counter() - started
    result.figures |= {
        "streams": len(agents),
        "kib_each_stream": round((watching - before) / len(agents) / 1024, 1),
        "streams_told_seconds": round(told, 2),
    }
    result.lines.append(
        f"{len(agents):,} open streams in one process: {(watching - before) / len(agents) / 1024:.1f} KiB each;"
        f" all told within {told:.1f} s"
    )


def _open_request(stack: ExitStack, address: Address, content: bytes) -> socket.socket:
    opened = stack.enter_context(socket.create_connection((address.host, address.port), 60))
    opened.sendall(content)
    return opened


def _read_until(opened: socket.socket, wanted: bytes) -> None:
    received = b""
    while wanted not in received:
        more = opened.recv(65_536)
        require(bool(more), f"a stream ended before it said {wanted!r}")
        received += more


def _read_response(opened: socket.socket) -> bytes:
    received = b""
    while not is_complete_response(received):
        more = opened.recv(65_536)
        require(bool(more), "a waiting call was cut off")
        received += more
    return received
