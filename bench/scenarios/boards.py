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

from bench import cpu, environment
from bench.checks import check_ledgers, require
from bench.environment import Bed, settle
from bench.fixtures import Team, dealt, make_teams
from bench.load import Player
from bench.requests import Address, call, is_complete
from bench.scenario import Result, Stage
from bench.stats import summarise
from bench.workloads import Mixed, number_in
from bus.auth import sessions
from bus.config.settings import Settings
from bus.tenancy import humans
from cli.embedded import child
from webapp.app import create_app
from webapp.streams import MOST_OF_ONE

_TEAMS = 10
_TEAM = 6
_AGENTS = 50
_BOARDS = 200
# Each of which may hold so many streams and no more.
_SESSIONS = _BOARDS // MOST_OF_ONE
_PAUSE = (0.5, 1.5)
_PROBE_SECONDS = 0.25
_ID = re.compile(rb"\bid: (\d+)\.")
_POST_ID = re.compile(rb'"post_id\\?":(\d+)')


@dataclass
class _Watch:
    """What the boards of one phase met.

    Attributes:
        news: of each project, the posts that the boards have yet to show: number and the moment of its answer.
        late: seconds from the answer to a post until a board had it.
        boards, size: how many were sent, and their bytes.
    """

    news: dict[int, list[tuple[int, float]]] = field(default_factory=dict)
    late: list[float] = field(default_factory=list)
    boards: int = 0
    size: int = 0


@dataclass(frozen=True)
class _Phase:
    """What a phase gave: cores kept busy by each party, seconds of calls, and what the boards met."""

    cores: dict[str, float]
    calls: list[float]
    seconds: float
    watch: _Watch


def run(stage: Stage) -> Result:
    """Agents alone, open boards alone, and both together: what it costs, and how late news is on a board."""
    result = Result()
    teams = make_teams(stage.bed.database, _TEAMS, _TEAM)
    cookies = [_cookie(stage.bed, teams) for _ in range(_SESSIONS)]
    with _web(stage.bed) as (process, web):
        settle(stage.bed)
        phases = {}
        for name, agents, boards in (("agents", _AGENTS, 0), ("boards", 0, _BOARDS), ("both", _AGENTS, _BOARDS)):
            phases[name] = asyncio.run(_play(stage, teams, web, process.pid, cookies, agents, boards))
    _tell(result, phases)
    events = check_ledgers(stage.bed.database, [team.project_id for team in teams])
    result.checked.append(f"{events} events contiguous; {len(phases['both'].watch.late)} posts seen on boards")
    return result


def _cookie(bus: Bed, teams: list[Team]) -> str:
    owner_id = teams[0].agents[0].ctx.owner_id
    with bus.database.write() as conn:
        token = sessions.open_(conn, owner_id, method="link", lasts=timedelta(hours=1))
        for team in teams:
            humans.enter(conn, owner_id, team.project_id)
    app = create_app(Settings.from_env({"DATABASE_URL": bus.url}))
    app.extensions["bus.db"].close()
    return f"{app.config['BUS_COOKIE_NAME']}={token}"


@contextmanager
def _web(bus: Bed) -> Iterator[tuple["subprocess.Popen[bytes]", Address]]:
    address = Address("127.0.0.1", environment.free_port())
    process = child.spawn(
        [sys.executable, "-m", "webapp"],
        log=bus.folder / "web.log",
        death_signal=signal.SIGTERM,
        env={**environment.plain_env(), "DATABASE_URL": bus.url, "REDIS_URL": bus.queue.url, "PORT": str(address.port)},
        cwd=Path.cwd(),
    )
    try:
        environment.wait_for(process, address, bus.folder)
        yield process, address
    finally:
        child.stop(process, ((signal.SIGTERM, 10.0), (signal.SIGKILL, 5.0)))


async def _play(
    stage: Stage, teams: list[Team], web: Address, pid: int, cookies: list[str], agents: int, boards: int
) -> _Phase:
    watch = _Watch({team.project_id: [] for team in teams})
    calls: list[float] = []
    targets = stage.bed.addresses
    players = Mixed(dealt([Team(one.project_id, one.agents[1:]) for one in teams], _AGENTS)).players(targets, agents)
    tasks = [
        asyncio.ensure_future(_agent(player, targets[at % len(targets)], calls)) for at, player in enumerate(players)
    ]
    tasks += [
        asyncio.ensure_future(_board(web, cookies[at % len(cookies)], teams[at % len(teams)].project_id, watch))
        for at in range(boards)
    ]
    if agents and boards:
        tasks.append(asyncio.ensure_future(_probe(targets[0], teams, watch)))
    # Every board has made its first look, and every process is warm.
    await asyncio.sleep(3.0)
    calls.clear()
    watch.boards = watch.size = 0
    watch.late.clear()
    watched = {**stage.bed.watched, "web": [pid]}
    before, began = cpu.snapshot(watched), time.monotonic()
    await asyncio.sleep(stage.effort.board_seconds)
    seconds, used = time.monotonic() - began, cpu.between(before, cpu.snapshot(watched))
    for task in tasks:
        # One that ended by itself has failed, and says why.
        if task.done():
            task.result()
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    cores = {party: spent / seconds for party, spent in used.items() if party != cpu.OTHERS}
    return _Phase(cores, list(calls), seconds, watch)


async def _agent(player: Player, target: Address, calls: list[float]) -> None:
    reader, writer = await asyncio.open_connection(target.host, target.port)
    chance = random.Random(id(player))
    with _closing(writer):
        while True:
            await asyncio.sleep(chance.uniform(*_PAUSE))
            step = player.next()
            if step is None:
                return
            kind, content = step
            began = time.monotonic()
            answer = await _exchange(reader, writer, content)
            calls.append(time.monotonic() - began)
            player.answered(kind, answer)


async def _probe(target: Address, teams: list[Team], watch: _Watch) -> None:
    """Post to each project in turn, and note when the post was answered."""
    reader, writer = await asyncio.open_connection(target.host, target.port)
    with _closing(writer):
        while True:
            for team in teams:
                await asyncio.sleep(_PROBE_SECONDS)
                content = call(target, team.agents[0].token, "post", to_actor=team.agents[1].label, body="news")
                number = number_in(_POST_ID, await _exchange(reader, writer, content))
                watch.news[team.project_id].append((number, time.monotonic()))


async def _board(web: Address, cookie: str, project_id: int, watch: _Watch) -> None:
    """One open board: a stream that is read to its end."""
    reader, writer = await asyncio.open_connection(web.host, web.port)
    writer.write(
        f"GET /admin/projects/{project_id}/board/stream?mark=0 HTTP/1.1\r\nHost: {web.host}:{web.port}\r\n"
        f"Cookie: {cookie}\r\n\r\n".encode()
    )
    known, left = 0, b""
    with _closing(writer):
        while True:
            more = await reader.read(65_536)
            require(more != b"", "the web closed a stream")
            left += more
            *whole, left = left.split(b"\n\n")
            for message in whole:
                found = _ID.search(message)
                if found is None:
                    continue
                watch.boards += 1
                watch.size += len(message)
                seq, now = int(found[1]), time.monotonic()
                watch.late += [now - at for number, at in watch.news[project_id] if known < number <= seq]
                known = seq


async def _exchange(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, content: bytes) -> bytes:
    writer.write(content)
    answer = b""
    while not is_complete(answer):
        more = await reader.read(65_536)
        require(more != b"", f"the server closed the connection after {answer[:80]!r}")
        answer += more
    return answer


@contextmanager
def _closing(writer: asyncio.StreamWriter) -> Iterator[None]:
    try:
        yield
    finally:
        with suppress(OSError):
            writer.close()


def _tell(result: Result, phases: dict[str, _Phase]) -> None:
    both, idle, alone = phases["both"], phases["boards"], phases["agents"]
    late = summarise(both.watch.late)
    before, beside = summarise(alone.calls), summarise(both.calls)
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
                    f"{len(one.calls) / one.seconds:.0f}",
                    f"{one.watch.boards / one.seconds:.0f}",
                    f"{one.watch.size / max(one.watch.boards, 1) / 1024:.1f}",
                ]
                for name, one in phases.items()
            ],
        )
    )
    result.lines += [
        f"{_BOARDS} boards at rest keep {idle.cores['web'] + idle.cores['postgres']:.2f} of a core busy; columns of"
        " the table are cores",
        f"a post is on a board {late.p50:.0f} ms after its answer (p99 {late.p99:.0f}, at most {late.max:.0f})",
        f"calls of {_AGENTS} agents take {before.p50:.1f} ms alone and {beside.p50:.1f} beside the boards"
        f" (p99 {before.p99:.0f} and {beside.p99:.0f})",
    ]
