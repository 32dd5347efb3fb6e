"""The ceiling of the load generator: its call rate against a server that returns a fixed response.

A measured rate near this ceiling is limited by the generator, not by the gateway.
"""

import asyncio
import multiprocessing
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, cast

from bench.load import LoadSpec, RequestSource, run_in_subprocess
from bench.requests import Address, build_tool_call
from bench.stats import summarize_latencies

_CLAIM_TEXT = rb"{\"sequence\":\"adr\",\"number\":1,\"formatted\":\"1\",\"note\":null}"
_RESPONSE_BODY = (
    b'{"jsonrpc":"2.0","id":1,"result":{"content":[{"type":"text","text":"%s"}],'
    b'"structuredContent":{"sequence":"adr","number":1,"formatted":"1","note":null},"isError":false}}' % _CLAIM_TEXT
)
_RESPONSE = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s" % (
    len(_RESPONSE_BODY),
    _RESPONSE_BODY,
)


class _FixedResponseProtocol(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are not registered as asyncio's.
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        # A request of the generator is one small write, which arrives whole on the loopback interface.
        self._transport.write(_RESPONSE)


async def _serve(pipe: Any) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(_FixedResponseProtocol, "127.0.0.1", 0)
    pipe.send(server.sockets[0].getsockname()[1])
    # Ends when the parent closes its end of the pipe.
    await loop.run_in_executor(None, _wait_until_closed, pipe)
    server.close()


def _wait_until_closed(pipe: Any) -> None:
    with suppress(EOFError, OSError):
        pipe.recv()


def _run_server_process(pipe: Any) -> None:
    try:
        import uvloop
    except ImportError:
        asyncio.run(_serve(pipe))
    else:
        uvloop.run(_serve(pipe))


@contextmanager
def running_fixed_response_server() -> Iterator[Address]:
    """Run a server in a separate process that answers each write with the same bytes, and yield its address."""
    context = multiprocessing.get_context("spawn")
    pipe, child_pipe = context.Pipe()
    process = context.Process(target=_run_server_process, args=(child_pipe,), daemon=True)
    process.start()
    child_pipe.close()
    try:
        yield Address("127.0.0.1", pipe.recv())
    finally:
        pipe.send(None)
        pipe.close()
        process.join(10)


class _RepeatedClaimWorkload:
    """Each connection repeats the same claim; the numbers are ignored."""

    def make_request_sources(self, targets: list[Address], count: int) -> list[RequestSource]:
        token = "lbus_" + "0" * 49
        return [
            _RepeatedRequestSource(build_tool_call(targets[0], token, "claim", sequence="adr")) for _ in range(count)
        ]

    def collect_results(self) -> dict[str, Any]:
        return {}


class _RepeatedRequestSource:
    def __init__(self, content: bytes) -> None:
        self._request = ("claim", content)

    def next_request(self) -> tuple[str, bytes]:
        return self._request

    def record_response(self, kind: str, response: bytes) -> None:
        return


def measure_client_baseline(seconds: float) -> dict[str, float]:
    """Measure calls per second and the generator's CPU microseconds per call, over 32 connections."""
    with running_fixed_response_server() as address:
        load_result = run_in_subprocess(
            LoadSpec(_RepeatedClaimWorkload(), [address], 32, warmup=0.3, windows=3, seconds=seconds)
        )
    best = load_result.best_window
    return {
        "calls_per_second": round(best.rate),
        "generator_us_per_call": round(best.cpu["generator"] / best.calls * 1e6, 1),
        "p50_ms": summarize_latencies(best.latencies["claim"]).p50,
    }
