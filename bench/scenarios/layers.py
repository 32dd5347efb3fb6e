"""`layers`: the CPU of a claim by layer, with a gateway inside this process.

The same requests are answered four times, each time with one layer more, over connections in memory. Times are CPU of
this process, so other load of the machine hardly affects them.
"""

import asyncio
import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import uvicorn
from uvicorn.server import ServerState

from bench import cpu
from bench.checks import require, verify_ledgers
from bench.fixtures import assign_round_robin, make_teams
from bench.requests import Address, build_tool_call, is_successful_response
from bench.scenario import Harness, Result
from bus.config.settings import Settings
from bus.db.pipeline import Outcome
from bus.operations import logs
from mcp_gateway import batches
from mcp_gateway.app import Gateway
from mcp_gateway.http_protocol import BoundedHttpProtocol
from mcp_gateway.http_responses import HttpResponse, ResponseSender
from mcp_gateway.tool_runner import ToolResult

_CONNECTION_COUNT = 16
_WARMUP_CALLS = 500
_ADDRESS = Address("127.0.0.1", 8788)
_RESULT_JSON = '{"sequence":"seq-1","number":1,"formatted":"1"}'
_RESULT = ToolResult(_RESULT_JSON.encode(), _RESULT_JSON)


class _Loopback(asyncio.Transport):
    """A transport in memory that sends the next request as soon as a response was written."""

    def __init__(self, request: bytes, count_response: Callable[[bytes], bool]) -> None:
        super().__init__()
        self._request = request
        self._count_response = count_response
        self.protocol: asyncio.Protocol | None = None

    def write(self, data: Any) -> None:
        if self._count_response(data):
            asyncio.get_running_loop().call_soon(self.send_request)

    def send_request(self) -> None:
        assert self.protocol is not None
        self.protocol.data_received(self._request)

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return default

    def is_closing(self) -> bool:
        return False

    def pause_reading(self) -> None:
        return

    def resume_reading(self) -> None:
        return


def run(harness: Harness) -> Result:
    """The CPU of a claim by layer: HTTP, request and answer, batch and threads, statements; and PostgreSQL's."""
    result = Result()
    teams = make_teams(harness.environment.database, 1, _CONNECTION_COUNT)
    agents = assign_round_robin(teams, _CONNECTION_COUNT)
    requests = [
        build_tool_call(_ADDRESS, agent.token, "claim", sequence=f"seq-{number % 5}")
        for number, agent in enumerate(agents)
    ]
    gateway = Gateway(Settings.from_env({"DATABASE_URL": harness.environment.database_url}))
    postgres = {"postgres": harness.environment.process_groups["postgres"]}
    calls = harness.effort.layer_calls
    costs: dict[str, float] = {}
    with _log_to_nowhere():
        for layer, prepare in _LAYERS.items():
            with prepare(gateway) as app:
                before = cpu.take_snapshot(postgres)
                costs[layer] = asyncio.run(_measure(app, gateway, requests, calls)) / calls * 1e6
                used = cpu.elapsed_seconds(before, cpu.take_snapshot(postgres))["postgres"]
    gateway.service.engine.close()
    layers = list(costs)
    rows = []
    for number, layer in enumerate(layers):
        added = costs[layer] - (costs[layers[number - 1]] if number else 0.0)
        rows.append([layer, f"{added:.0f}", f"{costs[layer]:.0f}"])
    postgres_us = used / (calls + _WARMUP_CALLS) * 1e6
    rows.append(["PostgreSQL, all of its processes", f"{postgres_us:.0f}", f"{costs[layers[-1]] + postgres_us:.0f}"])
    result.tables.append((["layer of a claim, 16 connections of one project", "us", "sum"], rows))
    result.figures |= {"costs": {**costs, "postgres": postgres_us}}
    events = verify_ledgers(harness.environment.database, [team.project_id for team in teams])
    result.checked.append(f"{events} events contiguous")
    return result


async def _measure(app: Any, gateway: Gateway, requests: list[bytes], calls: int) -> float:
    """Answer requests over all connections; return the CPU seconds of this process after the first ones."""
    loop = asyncio.get_running_loop()
    finished = loop.create_future()
    answered = 0
    started_at = 0.0

    def count_response(data: bytes) -> bool:
        nonlocal answered, started_at
        require(is_successful_response(data), f"refused: {data[:300]!r}")
        answered += 1
        if answered == _WARMUP_CALLS:
            started_at = time.process_time()
        elif answered == _WARMUP_CALLS + calls:
            finished.set_result(time.process_time() - started_at)
        return answered <= _WARMUP_CALLS + calls - _CONNECTION_COUNT

    config = uvicorn.Config(app, http=BoundedHttpProtocol, ws="none", lifespan="off", log_config=None)
    state = ServerState()
    for request in requests:
        transport = _Loopback(request, count_response)
        protocol = BoundedHttpProtocol(config, state, {})
        transport.protocol = protocol
        protocol.connection_made(transport)
        transport.send_request()
    seconds: float = await finished
    while state.tasks:
        await asyncio.sleep(0)
    return seconds


@contextmanager
def _http_alone(_gateway: Gateway) -> Iterator[Any]:
    body = b'{"result":{"isError":false}}'
    response = HttpResponse(200, [(b"content-length", str(len(body)).encode())], body)

    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        await ResponseSender(send, "x").send_response(response)

    yield app


@contextmanager
def _request_and_answer(gateway: Gateway) -> Iterator[Any]:
    async def call_tool(*_: Any) -> ToolResult:
        return _RESULT

    with patch.object(gateway.service.tool_runner, "call_tool", call_tool):
        yield gateway


@contextmanager
def _batch_and_threads(gateway: Gateway) -> Iterator[Any]:
    def run_pipelined(_db: Any, works: list[Any], **_: Any) -> list[Outcome[ToolResult]]:
        return [Outcome(_RESULT, None) for _ in works]

    with patch.object(batches, "run_pipelined", run_pipelined):
        yield gateway


@contextmanager
def _statements(gateway: Gateway) -> Iterator[Any]:
    yield gateway


_LAYERS: dict[str, Callable[[Gateway], Any]] = {
    "HTTP: parse the request, write the response": _http_alone,
    "request and answer: head, caller, JSON, counters, log line": _request_and_answer,
    "batch and threads: queue, hand over, deliver": _batch_and_threads,
    "statements: arguments, greenlets, protocol, result": _statements,
}


@contextmanager
def _log_to_nowhere() -> Iterator[None]:
    """Format log lines as a gateway does, without writing them anywhere."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    with Path(os.devnull).open("w", encoding="utf-8") as nowhere:
        logs.configure_logging(stream=nowhere)
        try:
            yield
        finally:
            root.handlers[:] = handlers
            root.setLevel(level)
