"""The load generator: closed loops over raw, persistent HTTP connections, in a separate process.

Each connection sends a request, waits for the whole response, and sends the next. A workload (bench/workloads.py)
supplies prebuilt requests, so that the generator costs little compared with what it measures; its own ceiling is
measured against a trivial server (bench/client_baseline.py).
"""

import asyncio
import multiprocessing
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol, cast

from bench import cpu
from bench.requests import Address, is_complete_response, is_refusal, is_successful_response

# The kind of a call that the engine is to refuse; any other call has to succeed.
REFUSED_CALL = "refused"

_CONNECT_SECONDS = 30.0
_RESPONSE_SECONDS = 60.0
_MAX_SHOWN_BYTES = 600


class RequestSource(Protocol):
    """The requests of one connection."""

    def next_request(self) -> tuple[str, bytes] | None:
        """Return the kind of the next call and its bytes; None ends the connection."""

    def record_response(self, kind: str, response: bytes) -> None:
        """Record the whole, successful response to the last call."""


class Workload(Protocol):
    """The requests of all connections of a run. It is sent to the generator's process."""

    def make_request_sources(self, targets: list[Address], count: int) -> list[RequestSource]:
        """Create a source for each connection; connection i goes to `targets[i % len(targets)]`."""

    def collect_results(self) -> dict[str, Any]:
        """Return the results in the responses, for the checks against the database."""


@dataclass(frozen=True)
class LoadSpec:
    """One run of the generator.

    Attributes:
        warmup: seconds before the first window.
        seconds: the length of each window.
        burst: 0 for closed loops; else the number of rounds in which all connections send one call at the same moment.
        process_groups: the processes whose CPU seconds are measured in each window.
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
    """The measurements of one window.

    Attributes:
        latencies: in seconds, by kind of call.
        cpu: in seconds, by process group.
    """

    seconds: float = 0.0
    latencies: dict[str, list[float]] = field(default_factory=dict)
    cpu: dict[str, float] = field(default_factory=dict)

    @property
    def calls(self) -> int:
        """The number of calls."""
        return sum(len(latencies) for latencies in self.latencies.values())

    @property
    def rate(self) -> float:
        """Calls per second."""
        return self.calls / self.seconds if self.seconds else 0.0


@dataclass
class LoadResult:
    """The result of a run; `failures` is empty if every call succeeded."""

    windows: list[Window]
    workload_results: dict[str, Any]
    failures: list[str]

    @property
    def best_window(self) -> Window:
        """The window with the highest rate."""
        return max(self.windows, key=lambda window: window.rate)


def run_in_subprocess(spec: LoadSpec) -> LoadResult:
    """Generate load in a separate process."""
    context = multiprocessing.get_context("spawn")
    pipe, child_pipe = context.Pipe()
    process = context.Process(target=_run_child, args=(child_pipe, spec), daemon=True)
    process.start()
    child_pipe.close()
    try:
        result = pipe.recv()
    except EOFError:
        process.join()
        raise RuntimeError(f"the load generator ended with exit code {process.exitcode}") from None
    process.join()
    assert isinstance(result, LoadResult)
    return result


def _run_child(pipe: Any, spec: LoadSpec) -> None:
    pipe.send(run_load(spec))
    pipe.close()


def run_load(spec: LoadSpec) -> LoadResult:
    """Generate load in this process."""
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
        spec = self.spec
        loop = asyncio.get_running_loop()
        connections = []
        for index, source in enumerate(spec.workload.make_request_sources(spec.targets, spec.connections)):
            target = spec.targets[index % len(spec.targets)]
            connecting = loop.create_connection(partial(_Connection, self, source), target.host, target.port)
            _, connection = await asyncio.wait_for(connecting, _CONNECT_SECONDS)
            connections.append(connection)
        windows = await (self._run_bursts if spec.burst else self._run_closed_loops)(connections)
        for connection in connections:
            connection.close()
        return LoadResult(windows, spec.workload.collect_results(), self.failures)

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
        # Wait for the calls in progress: an unread response could not be checked.
        await self._wait_until_finished()
        return windows

    async def _run_bursts(self, connections: list["_Connection"]) -> list[Window]:
        async def run_burst() -> None:
            for connection in connections:
                self._start_connection(connection)
            await self._wait_until_finished()

        self.stopping = True
        windows = []
        for _ in range(self.spec.burst):
            windows.append(await self._measure_window(run_burst))
            await asyncio.sleep(self.spec.warmup)
        return windows

    async def _measure_window(self, run: Callable[[], Any]) -> Window:
        before = cpu.take_snapshot(self._process_groups)
        self.window = window = Window()
        started_at = time.perf_counter()
        await run()
        window.seconds = time.perf_counter() - started_at
        self.window = Window()
        window.cpu = cpu.elapsed_seconds(before, cpu.take_snapshot(self._process_groups))
        return window

    def _start_connection(self, connection: "_Connection") -> None:
        self._active_connections += 1
        self._all_finished.clear()
        connection.send_next()

    def connection_finished(self) -> None:
        """Record that a connection has sent its last request."""
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
    """One persistent connection in a closed loop."""

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
            self._fail(f"the connection was closed during a call ({exc})")

    def close(self) -> None:
        """Close the connection."""
        self._transport.close()

    def send_next(self) -> None:
        """Send the next call of the source, if there is one."""
        request = self._source.next_request()
        if request is None:
            self._runner.connection_finished()
            return
        self._kind, content = request
        self._received = b""
        self._awaiting_response = True
        self._sent_at = time.perf_counter()
        self._transport.write(content)

    def data_received(self, data: bytes) -> None:
        self._received = self._received + data if self._received else data
        if not is_complete_response(self._received):
            return
        latency = time.perf_counter() - self._sent_at
        self._awaiting_response = False
        is_expected = is_refusal if self._kind == REFUSED_CALL else is_successful_response
        if not is_expected(self._received):
            self._fail(f"{self._kind}: {self._received[:_MAX_SHOWN_BYTES].decode('utf-8', 'replace')}")
            return
        self._runner.window.latencies.setdefault(self._kind, []).append(latency)
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
