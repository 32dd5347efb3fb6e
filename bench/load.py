"""The load generator: closed loops over raw, kept HTTP connections, in a process of its own.

Each connection sends a request, waits for the whole answer, and sends the next. What is sent is decided by a script
(bench/workloads.py) that hands out prebuilt bytes, so that the generator costs little beside what it measures; its own
ceiling is measured against a trivial server (bench/client_baseline.py).
"""

import asyncio
import multiprocessing
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Protocol, cast

from bench import cpu
from bench.requests import Address, is_complete, is_good

_CONNECT_SECONDS = 30.0
_ANSWER_SECONDS = 60.0
_SHOWN = 600


class Player(Protocol):
    """What one connection plays."""

    def next(self) -> tuple[str, bytes] | None:
        """What kind of call comes next and its bytes; None ends this connection."""

    def answered(self, kind: str, answer: bytes) -> None:
        """The whole answer to the last call, of which is known that it is a success."""


class Script(Protocol):
    """What all connections of a run play together. It is sent to the generator's process."""

    def players(self, targets: list[Address], count: int) -> list[Player]:
        """One player for each connection; connection i goes to `targets[i % len(targets)]`."""

    def collected(self) -> dict[str, Any]:
        """What the answers said, to be checked against the database."""


@dataclass(frozen=True)
class Job:
    """One run of the generator.

    Attributes:
        warmup, seconds: how long to play before the first window, and how long each window is.
        burst: 0 for closed loops; else so many rounds in which every connection sends one call at the same moment.
        watched: parties whose CPU seconds are taken at the borders of the windows.
    """

    script: Script
    targets: list[Address]
    connections: int
    warmup: float = 1.0
    windows: int = 3
    seconds: float = 3.0
    burst: int = 0
    watched: dict[str, list[int]] = field(default_factory=dict)


@dataclass
class Window:
    """What happened in one window; latencies in seconds, by kind of call. `cpu` is in seconds, by party."""

    seconds: float = 0.0
    latencies: dict[str, list[float]] = field(default_factory=dict)
    cpu: dict[str, float] = field(default_factory=dict)

    @property
    def calls(self) -> int:
        return sum(len(some) for some in self.latencies.values())

    @property
    def rate(self) -> float:
        """Calls a second."""
        return self.calls / self.seconds if self.seconds else 0.0


@dataclass
class Outcome:
    """What a run gave: its windows, what the script collected, and what went wrong (empty when nothing did)."""

    windows: list[Window]
    collected: dict[str, Any]
    failures: list[str]

    @property
    def best(self) -> Window:
        """The window with the highest rate."""
        return max(self.windows, key=lambda window: window.rate)


def run(job: Job) -> Outcome:
    """Play a job in a process of its own and return what it gave."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_child, args=(theirs, job), daemon=True)
    process.start()
    theirs.close()
    try:
        answer = ours.recv()
    except EOFError:
        process.join()
        raise RuntimeError(f"the load generator ended with exit code {process.exitcode}") from None
    process.join()
    assert isinstance(answer, Outcome)
    return answer


def _child(pipe: Any, job: Job) -> None:
    pipe.send(play(job))
    pipe.close()


def play(job: Job) -> Outcome:
    """Play a job in this process."""
    with suppress(ImportError):
        import uvloop

        return uvloop.run(_Run(job).play())
    return asyncio.run(_Run(job).play())


class _Run:
    def __init__(self, job: Job) -> None:
        self.job = job
        self.window = Window()
        self.failures: list[str] = []
        self.stopping = False
        self._playing = 0
        self._all_done = asyncio.Event()
        self._watched = {**job.watched, "generator": cpu.own()}

    async def play(self) -> Outcome:
        job = self.job
        loop = asyncio.get_running_loop()
        connections = []
        for index, player in enumerate(job.script.players(job.targets, job.connections)):
            target = job.targets[index % len(job.targets)]
            made = loop.create_connection(lambda player=player: _Connection(self, player), target.host, target.port)  # type: ignore[misc]
            _, connection = await asyncio.wait_for(made, _CONNECT_SECONDS)
            connections.append(connection)
        windows = await (self._bursts if job.burst else self._loops)(connections)
        for connection in connections:
            connection.close()
        return Outcome(windows, job.script.collected(), self.failures)

    async def _loops(self, connections: list["_Connection"]) -> list[Window]:
        for connection in connections:
            self._begin(connection)
        await asyncio.sleep(self.job.warmup)
        windows = []
        for _ in range(self.job.windows):
            windows.append(await self._measured(lambda: asyncio.sleep(self.job.seconds)))
            if self.failures or not self._playing:
                break
        self.stopping = True
        # What is on its way is waited for: an answer that nobody read could not be checked.
        await self._quiet()
        return windows

    async def _bursts(self, connections: list["_Connection"]) -> list[Window]:
        async def one() -> None:
            for connection in connections:
                self._begin(connection)
            await self._quiet()

        self.stopping = True
        windows = []
        for _ in range(self.job.burst):
            windows.append(await self._measured(one))
            await asyncio.sleep(self.job.warmup)
        return windows

    async def _measured(self, work: Callable[[], Any]) -> Window:
        before = cpu.snapshot(self._watched)
        self.window = window = Window()
        started = time.perf_counter()
        await work()
        window.seconds = time.perf_counter() - started
        self.window = Window()
        window.cpu = cpu.between(before, cpu.snapshot(self._watched))
        return window

    def _begin(self, connection: "_Connection") -> None:
        self._playing += 1
        self._all_done.clear()
        connection.send_next()

    def ended(self) -> None:
        """A connection has nothing more to send."""
        self._playing -= 1
        if not self._playing:
            self._all_done.set()

    async def _quiet(self) -> None:
        if not self._playing:
            return
        try:
            await asyncio.wait_for(self._all_done.wait(), _ANSWER_SECONDS)
        except TimeoutError:
            self.failures.append(f"{self._playing} calls were not answered within {_ANSWER_SECONDS:.0f} s")


class _Connection(asyncio.Protocol):
    """One kept connection in a closed loop."""

    __slots__ = ("_kind", "_player", "_received", "_run", "_sent_at", "_transport", "_waiting")

    def __init__(self, run_: _Run, player: Player) -> None:
        self._run = run_
        self._player = player
        self._received = b""
        self._waiting = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are not registered as asyncio's.
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._waiting:
            self._fail(f"the connection was closed in the middle of a call ({exc})")

    def close(self) -> None:
        self._transport.close()

    def send_next(self) -> None:
        """Send the player's next call, if there is one."""
        wanted = self._player.next()
        if wanted is None:
            self._run.ended()
            return
        self._kind, content = wanted
        self._received = b""
        self._waiting = True
        self._sent_at = time.perf_counter()
        self._transport.write(content)

    def data_received(self, data: bytes) -> None:
        self._received = self._received + data if self._received else data
        if not is_complete(self._received):
            return
        taken = time.perf_counter() - self._sent_at
        self._waiting = False
        if not is_good(self._received):
            self._fail(f"{self._kind}: {self._received[:_SHOWN].decode('utf-8', 'replace')}")
            return
        self._run.window.latencies.setdefault(self._kind, []).append(taken)
        self._player.answered(self._kind, self._received)
        if self._run.stopping:
            self._run.ended()
        else:
            self.send_next()

    def _fail(self, what: str) -> None:
        self._waiting = False
        if len(self._run.failures) < 10:
            self._run.failures.append(what)
        self._run.ended()
