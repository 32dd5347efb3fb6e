"""Connections of the HTTP server whose requests overlap or never end: trailers, pipelining, empty lines."""

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any
from unittest.mock import Mock

import uvicorn
from uvicorn.server import ServerState

from mcp_gateway.http_protocol import HEAD_TIMEOUT_SECONDS, KEEP_ALIVE_SECONDS, BoundedHttpProtocol
from tests.mcp_gateway.conftest import Team
from tests.mcp_gateway.mcp_client import MODERN
from tests.mcp_gateway.processes import GatewayProcess
from tests.mcp_gateway.raw_http import build_body, build_head, open_raw_connection

_REQUEST = b"POST /mcp HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n"


def test_a_trailer_is_not_a_header(gateways: list[GatewayProcess], team: Team) -> None:
    body = build_body()
    head = build_head(team.alice.token, -1, MODERN, "Transfer-Encoding: chunked")
    authorization = next(line for line in head.split(b"\r\n") if line.startswith(b"Authorization"))
    chunk = b"%x\r\n%b\r\n0\r\n" % (len(body), body)
    with open_raw_connection(gateways[0]) as connection:
        # The caller is the one in the header, and a second token in a trailer is not read.
        assert connection.exchange(head + chunk + authorization + b"\r\n\r\n")[0][0] == 200
        assert connection.is_open(team.alice.token)
        anonymous_head = head.replace(authorization + b"\r\n", b"")
        assert connection.exchange(anonymous_head + chunk + authorization + b"\r\n\r\n")[0][0] == 401


def test_a_trailer_that_never_ends_is_refused(gateways: list[GatewayProcess], team: Team) -> None:
    head = build_head(team.alice.token, -1, MODERN, "Transfer-Encoding: chunked")
    with open_raw_connection(gateways[0]) as connection:
        connection.socket.sendall(head + b"1\r\n{\r\n0\r\nX-Long: ")
        received = b""
        with contextlib.suppress(ConnectionError):
            # One read of the server may contain both the end of the body and a part of the trailer.
            for _ in range(500):
                connection.socket.sendall(b"x" * 4096)
            received = connection.socket.recv(65536)
        assert received == b"" or received.startswith(b"HTTP/1.1 400 ")


Received = list[str]


def _serve_on_fake_transport(use: Callable[[BoundedHttpProtocol, Mock, Received], Any]) -> None:
    """Run a protocol whose application waits until its client disconnects, and records what it receives."""
    received: Received = []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        while not received or received[-1] != "http.disconnect":
            received.append((await receive())["type"])

    async def run() -> None:
        config = uvicorn.Config(application, http=BoundedHttpProtocol, ws="none", lifespan="off", log_config=None)
        protocol = BoundedHttpProtocol(config, ServerState(), {})
        transport = Mock(spec=asyncio.Transport)
        transport.get_extra_info.return_value = None
        transport.is_closing.return_value = False
        protocol.connection_made(transport)
        await use(protocol, transport, received)
        if "http.disconnect" not in received:
            protocol.connection_lost(None)
        async with asyncio.timeout(5):
            while protocol.tasks:
                await asyncio.sleep(0)

    asyncio.run(run())


def test_a_disconnect_reaches_the_request_in_front_of_a_pipelined_one() -> None:
    async def use(protocol: BoundedHttpProtocol, _transport: Mock, received: Received) -> None:
        protocol.data_received(_REQUEST * 2)
        await asyncio.sleep(0)
        assert received == ["http.request"]
        protocol.connection_lost(None)
        async with asyncio.timeout(5):
            while received[-1] != "http.disconnect":
                await asyncio.sleep(0)

    _serve_on_fake_transport(use)


def test_a_malformed_pipelined_request_does_not_corrupt_a_response() -> None:
    async def use(protocol: BoundedHttpProtocol, transport: Mock, _received: Received) -> None:
        protocol.data_received(_REQUEST)
        await asyncio.sleep(0)
        protocol.cycle.response_started = True
        protocol.data_received(b"not HTTP\r\n\r\n")
        transport.write.assert_not_called()
        transport.close.assert_called_once()

    _serve_on_fake_transport(use)


def test_a_pipelined_head_is_not_late_while_a_request_is_handled() -> None:
    async def use(protocol: BoundedHttpProtocol, transport: Mock, _received: Received) -> None:
        protocol.data_received(_REQUEST + _REQUEST[:20])
        await asyncio.sleep(0)
        protocol.close_if_overdue(protocol.loop.time() + 2 * KEEP_ALIVE_SECONDS)
        transport.close.assert_not_called()

    _serve_on_fake_transport(use)


def test_an_empty_line_does_not_keep_an_idle_connection_open() -> None:
    async def use(protocol: BoundedHttpProtocol, transport: Mock, _received: Received) -> None:
        protocol.data_received(_REQUEST)
        await asyncio.sleep(0)
        protocol.cycle.response_complete = True
        protocol.on_response_complete()
        protocol.data_received(b"\r\n")
        now = protocol.loop.time()
        protocol.close_if_overdue(now + KEEP_ALIVE_SECONDS - 1)
        transport.close.assert_not_called()
        protocol.close_if_overdue(now + KEEP_ALIVE_SECONDS)
        transport.close.assert_called_once()
        protocol.cycle.response_complete = False

    _serve_on_fake_transport(use)


def test_a_head_that_begins_while_a_request_is_handled_has_its_own_time() -> None:
    async def use(protocol: BoundedHttpProtocol, transport: Mock, _received: Received) -> None:
        protocol.data_received(_REQUEST + _REQUEST[:20])
        await asyncio.sleep(0)
        protocol.cycle.response_complete = True
        protocol.on_response_complete()
        now = protocol.loop.time()
        protocol.close_if_overdue(now + HEAD_TIMEOUT_SECONDS - 1)
        transport.close.assert_not_called()
        protocol.close_if_overdue(now + HEAD_TIMEOUT_SECONDS)
        transport.close.assert_called_once()
        protocol.cycle.response_complete = False

    _serve_on_fake_transport(use)


def test_a_head_that_is_cut_after_a_large_body_is_not_too_large() -> None:
    async def use(protocol: BoundedHttpProtocol, transport: Mock, _received: Received) -> None:
        large = _REQUEST.replace(b"Content-Length: 0", b"Content-Length: 40000") + b"x" * 40_000
        protocol.data_received(large + _REQUEST[:20])
        transport.write.assert_not_called()
        transport.close.assert_not_called()

    _serve_on_fake_transport(use)
