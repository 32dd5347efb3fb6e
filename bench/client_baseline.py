"""How many calls the generator itself can make: against a server that does nothing but answer.

A rate that comes near this ceiling says something about the generator and not about the gateway.
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
        # A request of the generator is one small write, so it arrives whole on the loopback interface.
        self._transport.write(_RESPONSE)


async def _serve(pipe: Any) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(_FixedResponseProtocol, "127.0.0.1", 0)
    pipe.send(server.sockets[0].getsockname()[1])
    # Ends with the parent: the other end of the pipe closes.
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
    """A server in a process of its own that answers every write with the same bytes."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_run_server_process, args=(theirs,), daemon=True)
    process.start()
    theirs.close()
    try:
        yield Address("127.0.0.1", ours.recv())
    finally:
        ours.send(None)
        ours.close()
        process.join(10)


class _RepeatedClaimWorkload:
    """Every connection sends the same claim again and again; numbers are not looked at."""

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
    """Calls a second and CPU microseconds of the generator for each call, over 32 connections."""
    with running_fixed_response_server() as address:
        outcome = run_in_subprocess(
            LoadSpec(_RepeatedClaimWorkload(), [address], 32, warmup=0.3, windows=3, seconds=seconds)
        )
    best = outcome.best_window
    return {
        "calls_per_second": round(best.rate),
        "generator_us_per_call": round(best.cpu["generator"] / best.calls * 1e6, 1),
        "p50_ms": summarize_latencies(best.latencies["claim"]).p50,
    }
