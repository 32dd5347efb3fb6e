"""`idle`, `old-snapshot`, `soak`: what stands and what lasts: connected agents, an open transaction, many calls."""

import socket
import subprocess
import sys
import time
from contextlib import ExitStack

import psycopg

from bench import cpu
from bench.checks import check_claims, check_ledgers, check_posts
from bench.client import Client
from bench.environment import settle
from bench.fixtures import dealt, make_teams
from bench.load import Window
from bench.requests import Address, request
from bench.scenario import Result, Stage, row
from bench.workloads import Claims, Mixed, Reads

_TEAM = 50
_SETTLE_SECONDS = 3.0
_SLICES = 6
_MIB = 2**20


def run_idle(stage: Stage) -> Result:
    """Memory that a connected agent costs when it does nothing: its connection, and what is remembered of it."""
    result = Result()
    teams = make_teams(stage.bed.database, max(2, stage.effort.idle_agents // _TEAM), _TEAM)
    agents = [agent for team in teams for agent in team.agents]
    # Buffers and pools grow to what calls need; that is not what an idle agent costs.
    warm_up = make_teams(stage.bed.database, 1, 32)
    stage.play(Reads(dealt(warm_up, 32)), 32, warmup=0.0, windows=1, seconds=2.0)
    time.sleep(_SETTLE_SECONDS)
    before = _memory(stage)
    with ExitStack() as stack:
        for number, agent in enumerate(agents):
            address = stage.bed.addresses[number % len(stage.bed.addresses)]
            stack.enter_context(Client(address, agent.token)).call("whoami").content  # noqa: B018 - checks the answer
        time.sleep(_SETTLE_SECONDS)
        connected = _memory(stage)
        listening = _listen(stack, stage, [agent.token for agent in agents])
        time.sleep(_SETTLE_SECONDS)
        subscribed = _memory(stage)
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


def _memory(stage: Stage) -> int:
    return sum(cpu.memory(pid) for pid in stage.bed.gateway_pids)


def _listen(stack: ExitStack, stage: Stage, tokens: list[str]) -> int:
    """Open a stream for each token; how many stay open (0 where the gateway answers at once)."""
    for number, token in enumerate(tokens):
        address = stage.bed.addresses[number % len(stage.bed.addresses)]
        opened = stack.enter_context(socket.create_connection((address.host, address.port), 10))
        opened.sendall(_listen_bytes(address, token))
        if number == 0 and not _stays_open(opened):
            return 0
    return len(tokens)


def _listen_bytes(address: Address, token: str) -> bytes:
    wanted = {"notifications": {"toolsListChanged": True}}
    return request(address, token, "subscriptions/listen", wanted)


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


def run_old_snapshot(stage: Stage) -> Result:
    """Claims of one project while a transaction elsewhere stays open: dead versions of its clock row pile up."""
    result = Result()
    teams = make_teams(stage.bed.database, 1, 32)
    agents = dealt(teams, 32)
    settle(stage.bed)
    script = Claims(agents, ["adr"])
    before = stage.play(script, 32)
    seconds = stage.effort.snapshot_seconds / _SLICES
    with psycopg.connect(stage.bed.url) as elsewhere:
        elsewhere.execute("SET idle_in_transaction_session_timeout = 0")
        elsewhere.commit()
        elsewhere.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        # The snapshot is taken now, and nothing that dies from here on is cleared away.
        elsewhere.execute("SELECT count(*) FROM project_clock")
        during = stage.play(Claims(agents, ["adr-2"]), 32, warmup=0.0, windows=_SLICES, seconds=seconds)
        elsewhere.rollback()
    after = stage.play(Claims(agents, ["adr-3"]), 32)
    for variant, outcome in (("before", before), ("open", during), ("after", after)):
        result.rows.append(row("old-snapshot", variant, 32, outcome.windows))
        check_claims(stage.bed.database, outcome.collected["numbers"])
    slices = [round(window.rate) for window in during.windows]
    result.figures |= {
        "before": round(before.best.rate),
        "slices": slices,
        "last_to_first": round(slices[-1] / slices[0], 3),
        "after": round(after.best.rate),
    }
    result.lines.append(
        f"claims a second in each {seconds:.0f} s of the open transaction: {', '.join(map(str, slices))};"
        f" before it {before.best.rate:.0f}, after it {after.best.rate:.0f}"
    )
    events = check_ledgers(stage.bed.database, [team.project_id for team in teams])
    result.checked.append(f"{events} events contiguous")
    return result


def run_soak(stage: Stage) -> Result:
    """Many calls: whether a gateway grows between the first and the second half of them."""
    result = Result()
    teams = make_teams(stage.bed.database, 4, 8)
    script = Mixed(dealt(teams, 32))
    trial = stage.play(script, 32, windows=1)
    posted, acked = dict(trial.collected["posted"]), set(trial.collected["acked"])
    windows: list[Window] = []
    sizes = []
    # As long as half of the calls are expected to take.
    seconds = min(stage.effort.soak_calls / 2 / trial.best.rate, stage.effort.soak_seconds / 2)
    for half in (2, 3):
        outcome = stage.play(Mixed(dealt(teams, 32), seed=half), 32, warmup=0.0, windows=1, seconds=seconds)
        windows += outcome.windows
        posted |= outcome.collected["posted"]
        acked |= outcome.collected["acked"]
        time.sleep(_SETTLE_SECONDS)
        sizes.append(_memory(stage) / len(stage.bed.gateways) / _MIB)
    result.rows.append(row("soak", "mixed", 32, windows))
    result.figures |= {
        "calls": sum(window.calls for window in windows),
        "middle_mib": round(sizes[0], 2),
        "end_mib": round(sizes[1], 2),
        "bare_mib": round(_bare_memory() / _MIB, 2),
    }
    result.lines.append(
        f"a gateway holds {sizes[0]:.1f} MiB after the first half of {result.figures['calls']:,} calls and"
        f" {sizes[1]:.1f} after the second; a process with the same imports {result.figures['bare_mib']:.1f}"
    )
    posts = check_posts(stage.bed.database, posted, acked)
    events = check_ledgers(stage.bed.database, [team.project_id for team in teams])
    result.checked.append(f"{posts} posts there, {events} events contiguous")
    return result


def _bare_memory() -> int:
    """Bytes of a process that has imported what a gateway imports, and does nothing."""
    program = "import sys, uvloop, mcp_gateway.__main__; print(flush=True); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        return cpu.memory(process.pid)
