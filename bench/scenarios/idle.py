"""`idle`, `old-snapshot`: idle connections, and a long transaction."""

import socket
import time
from contextlib import ExitStack

import psycopg

from bench.checks import verify_claims, verify_ledgers
from bench.client import Client
from bench.environment import checkpoint_and_pause
from bench.fixtures import assign_round_robin, make_teams
from bench.requests import Address, build_request
from bench.scenario import Harness, Result, make_row
from bench.workloads import ClaimWorkload, ReadWorkload

_TEAM_SIZE = 50
_SETTLE_SECONDS = 3.0
_WINDOW_COUNT = 6
_MIB = 2**20


def run_idle(harness: Harness) -> Result:
    """Memory of an idle, connected agent: its connection and its cached state."""
    result = Result()
    teams = make_teams(harness.environment.database, max(2, harness.effort.idle_agents // _TEAM_SIZE), _TEAM_SIZE)
    agents = [agent for team in teams for agent in team.agents]
    # Let buffers and pools grow before the measurement, since calls and not idle agents need them.
    warm_up_teams = make_teams(harness.environment.database, 1, 32)
    harness.run_workload(ReadWorkload(assign_round_robin(warm_up_teams, 32)), 32, warmup=0.0, windows=1, seconds=2.0)
    time.sleep(_SETTLE_SECONDS)
    before = harness.environment.gateway_memory
    with ExitStack() as stack:
        for number, agent in enumerate(agents):
            address = harness.environment.addresses[number % len(harness.environment.addresses)]
            stack.enter_context(Client(address, agent.token)).call("whoami").structured_content  # noqa: B018 - checks the response
        time.sleep(_SETTLE_SECONDS)
        connected = harness.environment.gateway_memory
        subscription_count = _open_subscriptions(stack, harness, [agent.token for agent in agents])
        time.sleep(_SETTLE_SECONDS)
        subscribed = harness.environment.gateway_memory
    each = (connected - before) / len(agents)
    result.figures |= {"agents": len(agents), "bytes_each": round(each), "before_mib": round(before / _MIB, 1)}
    result.lines.append(f"{len(agents)} agents with one kept connection each: {each / 1024:.1f} KiB each")
    if subscription_count:
        additional = (subscribed - connected) / subscription_count
        result.figures["bytes_each_listening"] = round(additional)
        result.lines.append(f"with an open subscriptions/listen each: {additional / 1024:.1f} KiB more each")
    else:
        result.lines.append("subscriptions/listen returns at once, so no stream stays open")
    return result


def _open_subscriptions(stack: ExitStack, harness: Harness, tokens: list[str]) -> int:
    """Open a stream for each token. Returns the number of open streams, 0 if the gateway answers at once."""
    for number, token in enumerate(tokens):
        address = harness.environment.addresses[number % len(harness.environment.addresses)]
        connection = stack.enter_context(socket.create_connection((address.host, address.port), 10))
        connection.sendall(_build_listen_request(address, token))
        if number == 0 and not _stays_open(connection):
            return 0
    return len(tokens)


def _build_listen_request(address: Address, token: str) -> bytes:
    params = {"notifications": {"toolsListChanged": True}}
    return build_request(address, token, "subscriptions/listen", params)


def _stays_open(connection: socket.socket) -> bool:
    connection.settimeout(1.0)
    received = b""
    try:
        while True:
            chunk = connection.recv(65_536)
            received += chunk
            if not chunk or b'"error"' in received or received.endswith(b"\r\n0\r\n\r\n"):
                return False
    except TimeoutError:
        return received.startswith(b"HTTP/1.1 200")


def run_old_snapshot(harness: Harness) -> Result:
    """Claims of one project while another transaction stays open: dead versions of its clock row accumulate."""
    result = Result()
    teams = make_teams(harness.environment.database, 1, 32)
    agents = assign_round_robin(teams, 32)
    checkpoint_and_pause(harness.environment)
    before = harness.run_workload(ClaimWorkload(agents, ["adr"]), 32)
    seconds = harness.effort.snapshot_seconds / _WINDOW_COUNT
    with psycopg.connect(harness.environment.database_url) as other_conn:
        other_conn.execute("SET idle_in_transaction_session_timeout = 0")
        other_conn.commit()
        other_conn.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        # This takes the snapshot; vacuum keeps every row version that dies from now on.
        other_conn.execute("SELECT count(*) FROM project_clock")
        during = harness.run_workload(
            ClaimWorkload(agents, ["adr-2"]), 32, warmup=0.0, windows=_WINDOW_COUNT, seconds=seconds
        )
        other_conn.rollback()
    after = harness.run_workload(ClaimWorkload(agents, ["adr-3"]), 32)
    for variant, load_result in (("before", before), ("open", during), ("after", after)):
        result.rows.append(make_row("old-snapshot", variant, 32, load_result.windows))
        verify_claims(harness.environment.database, load_result.workload_results["numbers"])
    window_rates = [round(window.rate) for window in during.windows]
    result.figures |= {
        "before": round(before.best_window.rate),
        "slices": window_rates,
        "last_to_first": round(window_rates[-1] / window_rates[0], 3),
        "after": round(after.best_window.rate),
    }
    result.lines.append(
        f"claims per second in each {seconds:.0f} s of the open transaction: {', '.join(map(str, window_rates))};"
        f" before it {before.best_window.rate:.0f}, after it {after.best_window.rate:.0f}"
    )
    events = verify_ledgers(harness.environment.database, [team.project_id for team in teams])
    result.checked.append(f"{events} events contiguous")
    return result
