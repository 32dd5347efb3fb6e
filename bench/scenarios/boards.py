"""`boards`: what it costs that people watch live boards while agents work, and how late a board is.

A web process serves the boards behind hypercorn as it does anywhere, each by a stream of server-sent events as the
script in the page opens it. The agents work at the pace of agents that think in between.
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
from bus.tenancy import participations
from cli.embedded import child
from webapp.app import create_app
from webapp.streams import MAX_STREAMS_PER_SESSION

_TEAM_COUNT = 10
_TEAM_SIZE = 6
_AGENT_COUNT = 50
_BOARD_COUNT = 200
# Each of which may hold so many streams and no more.
_SESSION_COUNT = _BOARD_COUNT // MAX_STREAMS_PER_SESSION
_THINK_SECONDS = (0.5, 1.5)
_PROBE_INTERVAL_SECONDS = 0.25
_EVENT_ID_PATTERN = re.compile(rb"\bid: (\d+)\.")
_POST_ID_PATTERN = re.compile(rb'"post_id\\?":(\d+)')


@dataclass
class _BoardStats:
    """What the boards of one phase met.

    Attributes:
        news: of each project, the posts that the boards have yet to show: number and the moment of its answer.
        late: seconds from the answer to a post until a board had it.
        boards, size: how many were sent, and their bytes.
    """

    pending_posts: dict[int, list[tuple[int, float]]] = field(default_factory=dict)
    delays: list[float] = field(default_factory=list)
    update_count: int = 0
    update_bytes: int = 0


@dataclass(frozen=True)
class _PhaseResult:
    """What a phase gave: cores kept busy by each party, seconds of calls, and what the boards met."""

    cores: dict[str, float]
    call_seconds: list[float]
    seconds: float
    board_stats: _BoardStats


def run(harness: Harness) -> Result:
    """Agents alone, open boards alone, and both together: what it costs, and how late news is on a board."""
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
    result.checked.append(f"{events} events contiguous; {len(phases['both'].board_stats.delays)} posts seen on boards")
    return result


def _make_session_cookie(environment: Environment, teams: list[Team]) -> str:
    owner_id = teams[0].agents[0].ctx.owner_id
    with environment.database.transaction() as conn:
        token = sessions.open_session(conn, owner_id, method="link", ttl=timedelta(hours=1))
        for team in teams:
            participations.get_or_create_owner_context(conn, owner_id, team.project_id)
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
    watch = _BoardStats({team.project_id: [] for team in teams})
    calls: list[float] = []
    targets = harness.environment.addresses
    players = MixedWorkload(
        assign_round_robin([Team(one.project_id, one.agents[1:]) for one in teams], _AGENT_COUNT)
    ).make_request_sources(targets, agent_count)
    tasks = [
        asyncio.ensure_future(_run_agent(player, targets[at % len(targets)], calls))
        for at, player in enumerate(players)
    ]
    tasks += [
        asyncio.ensure_future(_watch_board(web, cookies[at % len(cookies)], teams[at % len(teams)].project_id, watch))
        for at in range(board_count)
    ]
    if agent_count and board_count:
        tasks.append(asyncio.ensure_future(_run_probe(targets[0], teams, watch)))
    # Every board has made its first look, and every process is warm.
    await asyncio.sleep(3.0)
    calls.clear()
    watch.update_count = watch.update_bytes = 0
    watch.delays.clear()
    watched = {**harness.environment.process_groups, "web": [pid]}
    before, began = cpu.take_snapshot(watched), time.monotonic()
    await asyncio.sleep(harness.effort.board_seconds)
    seconds, used = time.monotonic() - began, cpu.elapsed_seconds(before, cpu.take_snapshot(watched))
    for task in tasks:
        # One that ended by itself has failed, and says why.
        if task.done():
            task.result()
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    cores = {party: spent / seconds for party, spent in used.items() if party != cpu.OTHERS}
    return _PhaseResult(cores, list(calls), seconds, watch)


async def _run_agent(source: RequestSource, target: Address, call_seconds: list[float]) -> None:
    reader, writer = await asyncio.open_connection(target.host, target.port)
    chance = random.Random(id(source))
    with _closing_writer(writer):
        while True:
            await asyncio.sleep(chance.uniform(*_THINK_SECONDS))
            step = source.next_request()
            if step is None:
                return
            kind, content = step
            began = time.monotonic()
            answer = await _send_and_receive(reader, writer, content)
            call_seconds.append(time.monotonic() - began)
            source.record_response(kind, answer)


async def _run_probe(target: Address, teams: list[Team], board_stats: _BoardStats) -> None:
    """Post to each project in turn, and note when the post was answered."""
    reader, writer = await asyncio.open_connection(target.host, target.port)
    with _closing_writer(writer):
        while True:
            for team in teams:
                await asyncio.sleep(_PROBE_INTERVAL_SECONDS)
                content = build_tool_call(
                    target, team.agents[0].token, "post", to_actor=team.agents[1].label, body="news"
                )
                number = extract_int(_POST_ID_PATTERN, await _send_and_receive(reader, writer, content))
                board_stats.pending_posts[team.project_id].append((number, time.monotonic()))


async def _watch_board(web: Address, cookie: str, project_id: int, board_stats: _BoardStats) -> None:
    """One open board: a stream that is read to its end."""
    reader, writer = await asyncio.open_connection(web.host, web.port)
    writer.write(
        f"GET /admin/projects/{project_id}/board/stream?mark=0 HTTP/1.1\r\nHost: {web.host}:{web.port}\r\n"
        f"Cookie: {cookie}\r\n\r\n".encode()
    )
    known, left = 0, b""
    with _closing_writer(writer):
        while True:
            more = await reader.read(65_536)
            require(more != b"", "the web closed a stream")
            left += more
            *whole, left = left.split(b"\n\n")
            for message in whole:
                found = _EVENT_ID_PATTERN.search(message)
                if found is None:
                    continue
                board_stats.update_count += 1
                board_stats.update_bytes += len(message)
                seq, now = int(found[1]), time.monotonic()
                board_stats.delays += [
                    now - at for number, at in board_stats.pending_posts[project_id] if known < number <= seq
                ]
                known = seq


async def _send_and_receive(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, content: bytes) -> bytes:
    writer.write(content)
    answer = b""
    while not is_complete_response(answer):
        more = await reader.read(65_536)
        require(more != b"", f"the server closed the connection after {answer[:80]!r}")
        answer += more
    return answer


@contextmanager
def _closing_writer(writer: asyncio.StreamWriter) -> Iterator[None]:
    try:
        yield
    finally:
        with suppress(OSError):
            writer.close()


def _report(result: Result, phases: dict[str, _PhaseResult]) -> None:
    both, idle, alone = phases["both"], phases["boards"], phases["agents"]
    late = summarize_latencies(both.board_stats.delays)
    before, beside = summarize_latencies(alone.call_seconds), summarize_latencies(both.call_seconds)
    result.figures |= {
        "late_p50": late.p50,
        "late_p99": late.p99,
        "late_max": late.max,
        "calls_p50_alone": before.p50,
        "calls_p50_beside": beside.p50,
        "cores": {name: {party: round(value, 3) for party, value in one.cores.items()} for name, one in phases.items()},
    }
    result.tables.append(
        (
            ["phase", "web", "PostgreSQL", "gateways", "calls/s", "boards/s", "KiB each"],
            [
                [
                    name,
                    *(f"{one.cores[party]:.2f}" for party in ("web", "postgres", "gateway")),
                    f"{len(one.call_seconds) / one.seconds:.0f}",
                    f"{one.board_stats.update_count / one.seconds:.0f}",
                    f"{one.board_stats.update_bytes / max(one.board_stats.update_count, 1) / 1024:.1f}",
                ]
                for name, one in phases.items()
            ],
        )
    )
    result.lines += [
        f"{_BOARD_COUNT} boards at rest keep {idle.cores['web'] + idle.cores['postgres']:.2f} of a core busy; columns of"
        " the table are cores",
        f"a post is on a board {late.p50:.0f} ms after its answer (p99 {late.p99:.0f}, at most {late.max:.0f})",
        f"calls of {_AGENT_COUNT} agents take {before.p50:.1f} ms alone and {beside.p50:.1f} beside the boards"
        f" (p99 {before.p99:.0f} and {beside.p99:.0f})",
    ]
