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
from bench.requests import Address, is_complete_response, is_successful_response

_CONNECT_SECONDS = 30.0
_RESPONSE_SECONDS = 60.0
_MAX_SHOWN_BYTES = 600


class RequestSource(Protocol):
    """What one connection plays."""

    def next_request(self) -> tuple[str, bytes] | None:
        """What kind of call comes next and its bytes; None ends this connection."""

    def record_response(self, kind: str, response: bytes) -> None:
        """The whole answer to the last call, of which is known that it is a success."""


class Workload(Protocol):
    """What all connections of a run play together. It is sent to the generator's process."""

    def make_request_sources(self, targets: list[Address], count: int) -> list[RequestSource]:
        """One player for each connection; connection i goes to `targets[i % len(targets)]`."""

    def collect_results(self) -> dict[str, Any]:
        """What the answers said, to be checked against the database."""


@dataclass(frozen=True)
class LoadSpec:
    """One run of the generator.

    Attributes:
        warmup, seconds: how long to play before the first window, and how long each window is.
        burst: 0 for closed loops; else so many rounds in which every connection sends one call at the same moment.
        watched: parties whose CPU seconds are taken at the borders of the windows.
    """

    workload: Workload
    targets: list[Address]
    connections: int
    warmup: float = 1.0
    windows: int = 3
    seconds: float = 3.0
    burst: int = 0
    process_groups: dict[str, list[int]] = field(default_factory=dict)


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
class LoadResult:
    """What a run gave: its windows, what the script collected, and what went wrong (empty when nothing did)."""

    windows: list[Window]
    workload_results: dict[str, Any]
    failures: list[str]

    @property
    def best_window(self) -> Window:
        """The window with the highest rate."""
        return max(self.windows, key=lambda window: window.rate)


def run_in_subprocess(spec: LoadSpec) -> LoadResult:
    """Play a job in a process of its own and return what it gave."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_run_child, args=(theirs, spec), daemon=True)
    process.start()
    theirs.close()
    try:
        answer = ours.recv()
    except EOFError:
        process.join()
        raise RuntimeError(f"the load generator ended with exit code {process.exitcode}") from None
    process.join()
    assert isinstance(answer, LoadResult)
    return answer


def _run_child(pipe: Any, spec: LoadSpec) -> None:
    pipe.send(run_load(spec))
    pipe.close()


def run_load(spec: LoadSpec) -> LoadResult:
    """Play a job in this process."""
    with suppress(ImportError):
        import uvloop

        return uvloop.run(_LoadRunner(spec).run())
    return asyncio.run(_LoadRunner(spec).run())


class _LoadRunner:
    def __init__(self, spec: LoadSpec) -> None:
        self.spec = spec
        self.window = Window()
        self.failures: list[str] = []
        self.stopping = False
        self._active_connections = 0
        self._all_finished = asyncio.Event()
        self._process_groups = {**spec.process_groups, "generator": cpu.own_pids()}

    async def run(self) -> LoadResult:
        job = self.spec
        loop = asyncio.get_running_loop()
        connections = []
        for index, player in enumerate(job.workload.make_request_sources(job.targets, job.connections)):
            target = job.targets[index % len(job.targets)]
            made = loop.create_connection(lambda player=player: _Connection(self, player), target.host, target.port)  # type: ignore[misc]
            _, connection = await asyncio.wait_for(made, _CONNECT_SECONDS)
            connections.append(connection)
        windows = await (self._run_bursts if job.burst else self._run_closed_loops)(connections)
        for connection in connections:
            connection.close()
        return LoadResult(windows, job.workload.collect_results(), self.failures)

    async def _run_closed_loops(self, connections: list["_Connection"]) -> list[Window]:
        for connection in connections:
            self._start_connection(connection)
        await asyncio.sleep(self.spec.warmup)
        windows = []
        for _ in range(self.spec.windows):
            windows.append(await self._measure_window(lambda: asyncio.sleep(self.spec.seconds)))
            if self.failures or not self._active_connections:
                break
        self.stopping = True
        # What is on its way is waited for: an answer that nobody read could not be checked.
        await self._wait_until_finished()
        return windows

    async def _run_bursts(self, connections: list["_Connection"]) -> list[Window]:
        async def one() -> None:
            for connection in connections:
                self._start_connection(connection)
            await self._wait_until_finished()

        self.stopping = True
        windows = []
        for _ in range(self.spec.burst):
            windows.append(await self._measure_window(one))
            await asyncio.sleep(self.spec.warmup)
        return windows

    async def _measure_window(self, work: Callable[[], Any]) -> Window:
        before = cpu.take_snapshot(self._process_groups)
        self.window = window = Window()
        started = time.perf_counter()
        await work()
        window.seconds = time.perf_counter() - started
        self.window = Window()
        window.cpu = cpu.elapsed_seconds(before, cpu.take_snapshot(self._process_groups))
        return window

    def _start_connection(self, connection: "_Connection") -> None:
        self._active_connections += 1
        self._all_finished.clear()
        connection.send_next()

    def connection_finished(self) -> None:
        """A connection has nothing more to send."""
        self._active_connections -= 1
        if not self._active_connections:
            self._all_finished.set()

    async def _wait_until_finished(self) -> None:
        if not self._active_connections:
            return
        try:
            await asyncio.wait_for(self._all_finished.wait(), _RESPONSE_SECONDS)
        except TimeoutError:
            self.failures.append(f"{self._active_connections} calls were not answered within {_RESPONSE_SECONDS:.0f} s")


class _Connection(asyncio.Protocol):
    """One kept connection in a closed loop."""

    __slots__ = ("_awaiting_response", "_kind", "_received", "_runner", "_sent_at", "_source", "_transport")

    def __init__(self, runner: _LoadRunner, source: RequestSource) -> None:
        self._runner = runner
        self._source = source
        self._received = b""
        self._awaiting_response = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are not registered as asyncio's.
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._awaiting_response:
            self._fail(f"the connection was closed in the middle of a call ({exc})")

    def close(self) -> None:
        self._transport.close()

    def send_next(self) -> None:
        """Send the player's next call, if there is one."""
        wanted = self._source.next_request()
        if wanted is None:
            self._runner.connection_finished()
            return
        self._kind, content = wanted
        self._received = b""
        self._awaiting_response = True
        self._sent_at = time.perf_counter()
        self._transport.write(content)

    def data_received(self, data: bytes) -> None:
        self._received = self._received + data if self._received else data
        if not is_complete_response(self._received):
            return
        taken = time.perf_counter() - self._sent_at
        self._awaiting_response = False
        if not is_successful_response(self._received):
            self._fail(f"{self._kind}: {self._received[:_MAX_SHOWN_BYTES].decode('utf-8', 'replace')}")
            return
        self._runner.window.latencies.setdefault(self._kind, []).append(taken)
        self._source.record_response(self._kind, self._received)
        if self._runner.stopping:
            self._runner.connection_finished()
        else:
            self.send_next()

    def _fail(self, message: str) -> None:
        self._awaiting_response = False
        if len(self._runner.failures) < 10:
            self._runner.failures.append(message)
        self._runner.connection_finished()
