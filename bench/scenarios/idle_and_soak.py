"""`idle`, `old-snapshot`, `soak`: what stands and what lasts: connected agents, an open transaction, many calls."""

import socket
import subprocess
import sys
import time
from contextlib import ExitStack

import psycopg

from bench import cpu
from bench.checks import verify_claims, verify_ledgers, verify_posts
from bench.client import Client
from bench.environment import checkpoint_and_pause
from bench.fixtures import assign_round_robin, make_teams
from bench.load import Window
from bench.requests import Address, build_request
from bench.scenario import Harness, Result, make_row
from bench.workloads import ClaimWorkload, MixedWorkload, ReadWorkload

_TEAM_SIZE = 50
_SETTLE_SECONDS = 3.0
_WINDOW_COUNT = 6
_MIB = 2**20


def run_idle(harness: Harness) -> Result:
    """Memory that a connected agent costs when it does nothing: its connection, and what is remembered of it."""
    result = Result()
    teams = make_teams(harness.environment.database, max(2, harness.effort.idle_agents // _TEAM_SIZE), _TEAM_SIZE)
    agents = [agent for team in teams for agent in team.agents]
    # Buffers and pools grow to what calls need; that is not what an idle agent costs.
    warm_up = make_teams(harness.environment.database, 1, 32)
    harness.run_workload(ReadWorkload(assign_round_robin(warm_up, 32)), 32, warmup=0.0, windows=1, seconds=2.0)
    time.sleep(_SETTLE_SECONDS)
    before = _gateway_memory(harness)
    with ExitStack() as stack:
        for number, agent in enumerate(agents):
            address = harness.environment.addresses[number % len(harness.environment.addresses)]
            stack.enter_context(Client(address, agent.token)).call("whoami").structured_content  # noqa: B018 - checks the answer
        time.sleep(_SETTLE_SECONDS)
        connected = _gateway_memory(harness)
        listening = _open_subscriptions(stack, harness, [agent.token for agent in agents])
        time.sleep(_SETTLE_SECONDS)
        subscribed = _gateway_memory(harness)
    each = (connected - before) / len(agents)
    result.figures |= {"agents": len(agents), "bytes_each": round(each), "before_mib": round(before / _MIB, 1)}
    result.lines.append(f"{len(agents)} agents with one kept connection each: {each / 1024:.1f} KiB each")
    if listening:
        more = (subscribed - connected) / listening
        result.figures["bytes_each_listening"] = round(more)
        result.lines.append(f"with an open subscriptions/listen besides: {more / 1024:.1f} KiB more each")
    else:
        result.lines.append("subscriptions/listen is answered at once, so no stream stays open")
    return result


def _gateway_memory(harness: Harness) -> int:
    return sum(cpu.private_memory(pid) for pid in harness.environment.gateway_pids)


def _open_subscriptions(stack: ExitStack, harness: Harness, tokens: list[str]) -> int:
    """Open a stream for each token; how many stay open (0 where the gateway answers at once)."""
    for number, token in enumerate(tokens):
        address = harness.environment.addresses[number % len(harness.environment.addresses)]
        opened = stack.enter_context(socket.create_connection((address.host, address.port), 10))
        opened.sendall(_build_listen_request(address, token))
        if number == 0 and not _stays_open(opened):
            return 0
    return len(tokens)


def _build_listen_request(address: Address, token: str) -> bytes:
    wanted = {"notifications": {"toolsListChanged": True}}
    return build_request(address, token, "subscriptions/listen", wanted)


def _stays_open(opened: socket.socket) -> bool:
    opened.settimeout(1.0)
    received = b""
    try:
        while True:
            more = opened.recv(65_536)
            received += more
            if not more or b'"error"' in received or received.endswith(b"\r\n0\r\n\r\n"):
                return False
    except TimeoutError:
        return received.startswith(b"HTTP/1.1 200")


def run_old_snapshot(harness: Harness) -> Result:
    """Claims of one project while a transaction elsewhere stays open: dead versions of its clock row pile up."""
    result = Result()
    teams = make_teams(harness.environment.database, 1, 32)
    agents = assign_round_robin(teams, 32)
    checkpoint_and_pause(harness.environment)
    script = ClaimWorkload(agents, ["adr"])
    before = harness.run_workload(script, 32)
    seconds = harness.effort.snapshot_seconds / _WINDOW_COUNT
    with psycopg.connect(harness.environment.database_url) as elsewhere:
        elsewhere.execute("SET idle_in_transaction_session_timeout = 0")
        elsewhere.commit()
        elsewhere.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        # The snapshot is taken now, and nothing that dies from here on is cleared away.
        elsewhere.execute("SELECT count(*) FROM project_clock")
        during = harness.run_workload(
            ClaimWorkload(agents, ["adr-2"]), 32, warmup=0.0, windows=_WINDOW_COUNT, seconds=seconds
        )
        elsewhere.rollback()
    after = harness.run_workload(ClaimWorkload(agents, ["adr-3"]), 32)
    for variant, outcome in (("before", before), ("open", during), ("after", after)):
        result.rows.append(make_row("old-snapshot", variant, 32, outcome.windows))
        verify_claims(harness.environment.database, outcome.workload_results["numbers"])
    slices = [round(window.rate) for window in during.windows]
    result.figures |= {
        "before": round(before.best_window.rate),
        "slices": slices,
        "last_to_first": round(slices[-1] / slices[0], 3),
        "after": round(after.best_window.rate),
    }
    result.lines.append(
        f"claims a second in each {seconds:.0f} s of the open transaction: {', '.join(map(str, slices))};"
        f" before it {before.best_window.rate:.0f}, after it {after.best_window.rate:.0f}"
    )
    events = verify_ledgers(harness.environment.database, [team.project_id for team in teams])
    result.checked.append(f"{events} events contiguous")
    return result


def run_soak(harness: Harness) -> Result:
    """Many calls: whether a gateway grows between the first and the second half of them."""
    result = Result()
    teams = make_teams(harness.environment.database, 4, 8)
    script = MixedWorkload(assign_round_robin(teams, 32))
    trial = harness.run_workload(script, 32, windows=1)
    posted, acked = dict(trial.workload_results["posted"]), set(trial.workload_results["acked"])
    windows: list[Window] = []
    sizes = []
    # As long as half of the calls are expected to take.
    seconds = min(harness.effort.soak_calls / 2 / trial.best_window.rate, harness.effort.soak_seconds / 2)
    for half in (2, 3):
        outcome = harness.run_workload(
            MixedWorkload(assign_round_robin(teams, 32), seed=half), 32, warmup=0.0, windows=1, seconds=seconds
        )
        windows += outcome.windows
        posted |= outcome.workload_results["posted"]
        acked |= outcome.workload_results["acked"]
        time.sleep(_SETTLE_SECONDS)
        sizes.append(_gateway_memory(harness) / len(harness.environment.gateways) / _MIB)
    result.rows.append(make_row("soak", "mixed", 32, windows))
    result.figures |= {
        "calls": sum(window.calls for window in windows),
        "middle_mib": round(sizes[0], 2),
        "end_mib": round(sizes[1], 2),
        "bare_mib": round(_measure_baseline_memory() / _MIB, 2),
    }
    result.lines.append(
        f"a gateway holds {sizes[0]:.1f} MiB after the first half of {result.figures['calls']:,} calls and"
        f" {sizes[1]:.1f} after the second; a process with the same imports {result.figures['bare_mib']:.1f}"
    )
    posts = verify_posts(harness.environment.database, posted, acked)
    events = verify_ledgers(harness.environment.database, [team.project_id for team in teams])
    result.checked.append(f"{posts} posts there, {events} events contiguous")
    return result


def _measure_baseline_memory() -> int:
    """Bytes of a process that has imported what a gateway imports, and does nothing."""
    program = "import sys, uvloop, mcp_gateway.__main__; print(flush=True); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        return cpu.private_memory(process.pid)
