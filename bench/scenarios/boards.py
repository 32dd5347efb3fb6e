"""`boards`: the cost of open live boards while agents work, and the delay of a board.

A web process behind hypercorn serves each board as a stream of server-sent events, as the script of the page opens it.
The agents pause between calls as thinking agents do.
"""

import asyncio
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

from bench import cpu
from bench.checks import require, verify_ledgers
from bench.environment import Environment, checkpoint_and_pause, clean_environ, free_port, wait_until_healthy
from bench.fixtures import Team, assign_round_robin, make_teams
from bench.load import RequestSource
from bench.requests import Address, build_tool_call, is_complete_response
from bench.scenario import Harness, Result
from bench.stats import summarize_latencies
from bench.workloads import MixedWorkload, extract_int
from bus.auth import sessions
from bus.config.settings import Settings
from bus.tenancy import owner_participation
from cli.embedded import child
from webapp.app import create_app
from webapp.streams import MAX_STREAMS_PER_SESSION

_TEAM_COUNT = 10
_TEAM_SIZE = 6
_AGENT_COUNT = 50
_BOARD_COUNT = 200
# Each session may hold only MAX_STREAMS_PER_SESSION streams.
_SESSION_COUNT = _BOARD_COUNT // MAX_STREAMS_PER_SESSION
_THINK_SECONDS = (0.5, 1.5)
_PROBE_INTERVAL_SECONDS = 0.25
_EVENT_ID_PATTERN = re.compile(rb"\bid: (\d+)\.")
_POST_ID_PATTERN = re.compile(rb'"post_id\\?":(\d+)')


@dataclass
class _BoardStats:
    """The updates of the boards in one phase.

    Attributes:
        pending_posts: by project, the confirmed posts as (id, time of the confirmation).
        delays: seconds from the confirmation of a post until a board received it.
        update_count, update_bytes: the number of received updates, and their size.
    """

    pending_posts: dict[int, list[tuple[int, float]]] = field(default_factory=dict)
    delays: list[float] = field(default_factory=list)
    update_count: int = 0
    update_bytes: int = 0


@dataclass(frozen=True)
class _PhaseResult:
    """The result of a phase: busy cores by process group, latencies of calls, and the updates of the boards."""

    cores: dict[str, float]
    call_seconds: list[float]
    seconds: float
    board_stats: _BoardStats


def run(harness: Harness) -> Result:
    """Agents alone, open boards alone, and both together: their cost, and the delay of a board."""
    result = Result()
    teams = make_teams(harness.environment.database, _TEAM_COUNT, _TEAM_SIZE)
    cookies = [_make_session_cookie(harness.environment, teams) for _ in range(_SESSION_COUNT)]
    with _running_web(harness.environment) as (process, web):
        checkpoint_and_pause(harness.environment)
        phases = {}
        for name, agents, boards in (
            ("agents", _AGENT_COUNT, 0),
            ("boards", 0, _BOARD_COUNT),
            ("both", _AGENT_COUNT, _BOARD_COUNT),
        ):
            phases[name] = asyncio.run(_run_phase(harness, teams, web, process.pid, cookies, agents, boards))
    _report(result, phases)
    events = verify_ledgers(harness.environment.database, [team.project_id for team in teams])
    result.checked.append(
        f"{events} events contiguous; {len(phases['both'].board_stats.delays)} posts received by boards"
    )
    return result


def _make_session_cookie(environment: Environment, teams: list[Team]) -> str:
    owner_id = teams[0].agents[0].ctx.owner_id
    with environment.database.transaction() as conn:
        token = sessions.open_session(conn, owner_id, method="link", ttl=timedelta(hours=1))
        for team in teams:
            owner_participation.get_or_create_owner_context(conn, owner_id, team.project_id)
    app = create_app(Settings.from_env({"DATABASE_URL": environment.database_url}))
    app.extensions["bus.db"].close()
    return f"{app.config['BUS_COOKIE_NAME']}={token}"


@contextmanager
def _running_web(environment: Environment) -> Iterator[tuple["subprocess.Popen[bytes]", Address]]:
    address = Address("127.0.0.1", free_port())
    process = child.spawn(
        [sys.executable, "-m", "webapp"],
        log_path=environment.folder / "web.log",
        death_signal=signal.SIGTERM,
        env={
            **clean_environ(),
            "DATABASE_URL": environment.database_url,
            "REDIS_URL": environment.redis_server.url,
            "PORT": str(address.port),
        },
        cwd=Path.cwd(),
    )
    try:
        wait_until_healthy(process, address, environment.folder)
        yield process, address
    finally:
        child.stop(process, ((signal.SIGTERM, 10.0), (signal.SIGKILL, 5.0)))


async def _run_phase(
    harness: Harness, teams: list[Team], web: Address, pid: int, cookies: list[str], agent_count: int, board_count: int
) -> _PhaseResult:
    board_stats = _BoardStats({team.project_id: [] for team in teams})
    call_seconds: list[float] = []
    targets = harness.environment.addresses
    # The first agent of each team posts for the probe.
    working_teams = [Team(team.project_id, team.agents[1:]) for team in teams]
    workload = MixedWorkload(assign_round_robin(working_teams, _AGENT_COUNT))
    sources = workload.make_request_sources(targets, agent_count)
    tasks = [
        asyncio.ensure_future(_run_agent(source, targets[index % len(targets)], call_seconds))
        for index, source in enumerate(sources)
    ]
    tasks += [
        asyncio.ensure_future(
            _watch_board(web, cookies[index % len(cookies)], teams[index % len(teams)].project_id, board_stats)
        )
        for index in range(board_count)
    ]
    if agent_count and board_count:
        tasks.append(asyncio.ensure_future(_run_probe(targets[0], teams, board_stats)))
    # By then every board has its first update, and every process is warm.
    await asyncio.sleep(3.0)
    call_seconds.clear()
    board_stats.update_count = board_stats.update_bytes = 0
    board_stats.delays.clear()
    process_groups = {**harness.environment.process_groups, "web": [pid]}
    before, started_at = cpu.take_snapshot(process_groups), time.monotonic()
    await asyncio.sleep(harness.effort.board_seconds)
    seconds = time.monotonic() - started_at
    used = cpu.elapsed_seconds(before, cpu.take_snapshot(process_groups))
    for task in tasks:
        # A task that has ended has failed; result() raises its error.
        if task.done():
            task.result()
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    cores = {group: used_seconds / seconds for group, used_seconds in used.items() if group != cpu.OTHERS}
    return _PhaseResult(cores, list(call_seconds), seconds, board_stats)


async def _run_agent(source: RequestSource, target: Address, call_seconds: list[float]) -> None:
    reader, writer = await asyncio.open_connection(target.host, target.port)
    randomness = random.Random(id(source))
    with _closing_writer(writer):
        while True:
            await asyncio.sleep(randomness.uniform(*_THINK_SECONDS))
            request = source.next_request()
            if request is None:
                return
            kind, content = request
            started_at = time.monotonic()
            response = await _send_and_receive(reader, writer, content)
            call_seconds.append(time.monotonic() - started_at)
            source.record_response(kind, response)


async def _run_probe(target: Address, teams: list[Team], board_stats: _BoardStats) -> None:
    """Post to each project in turn, and record when each post was confirmed."""
    reader, writer = await asyncio.open_connection(target.host, target.port)
    with _closing_writer(writer):
        while True:
            for team in teams:
                await asyncio.sleep(_PROBE_INTERVAL_SECONDS)
                content = build_tool_call(
                    target, team.agents[0].token, "post", to_actor=team.agents[1].label, body="news"
                )
                post_id = extract_int(_POST_ID_PATTERN, await _send_and_receive(reader, writer, content))
                board_stats.pending_posts[team.project_id].append((post_id, time.monotonic()))


async def _watch_board(web: Address, cookie: str, project_id: int, board_stats: _BoardStats) -> None:
    """Read the stream of one open board."""
    reader, writer = await asyncio.open_connection(web.host, web.port)
    writer.write(
        f"GET /admin/projects/{project_id}/board/stream?mark=0 HTTP/1.1\r\nHost: {web.host}:{web.port}\r\n"
        f"Cookie: {cookie}\r\n\r\n".encode()
    )
    last_seq, buffer = 0, b""
    with _closing_writer(writer):
        while True:
            chunk = await reader.read(65_536)
            require(chunk != b"", "the web process closed a stream")
            *messages, buffer = (buffer + chunk).split(b"\n\n")
            for message in messages:
                match = _EVENT_ID_PATTERN.search(message)
                if match is None:
                    continue
                board_stats.update_count += 1
                board_stats.update_bytes += len(message)
                seq, now = int(match[1]), time.monotonic()
                board_stats.delays += [
                    now - confirmed_at
                    for post_id, confirmed_at in board_stats.pending_posts[project_id]
                    if last_seq < post_id <= seq
                ]
                last_seq = seq


async def _send_and_receive(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, content: bytes) -> bytes:
    writer.write(content)
    response = b""
    while not is_complete_response(response):
        chunk = await reader.read(65_536)
        require(chunk != b"", f"the server closed the connection after {response[:80]!r}")
        response += chunk
    return response


@contextmanager
def _closing_writer(writer: asyncio.StreamWriter) -> Iterator[None]:
    try:
        yield
    finally:
        with suppress(OSError):
            writer.close()


def _report(result: Result, phases: dict[str, _PhaseResult]) -> None:
    both, boards_only, agents_only = phases["both"], phases["boards"], phases["agents"]
    delay = summarize_latencies(both.board_stats.delays)
    alone, beside = summarize_latencies(agents_only.call_seconds), summarize_latencies(both.call_seconds)
    result.figures |= {
        "late_p50": delay.p50,
        "late_p99": delay.p99,
        "late_max": delay.max,
        "calls_p50_alone": alone.p50,
        "calls_p50_beside": beside.p50,
        "cores": {
            name: {group: round(cores, 3) for group, cores in phase.cores.items()} for name, phase in phases.items()
        },
    }
    result.tables.append(
        (
            ["phase", "web", "PostgreSQL", "gateways", "calls/s", "boards/s", "KiB each"],
            [
                [
                    name,
                    *(f"{phase.cores[group]:.2f}" for group in ("web", "postgres", "gateway")),
                    f"{len(phase.call_seconds) / phase.seconds:.0f}",
                    f"{phase.board_stats.update_count / phase.seconds:.0f}",
                    f"{phase.board_stats.update_bytes / max(phase.board_stats.update_count, 1) / 1024:.1f}",
                ]
                for name, phase in phases.items()
            ],
        )
    )
    idle_cores = boards_only.cores["web"] + boards_only.cores["postgres"]
    result.lines += [
        f"{_BOARD_COUNT} idle boards keep {idle_cores:.2f} of a core busy; the table is in cores",
        f"a board shows a post {delay.p50:.0f} ms after its confirmation (p99 {delay.p99:.0f},"
        f" at most {delay.max:.0f})",
        f"calls of {_AGENT_COUNT} agents take {alone.p50:.1f} ms alone and {beside.p50:.1f} beside the boards"
        f" (p99 {alone.p99:.0f} and {beside.p99:.0f})",
    ]
