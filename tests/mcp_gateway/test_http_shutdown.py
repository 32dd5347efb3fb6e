"""The end of a connection at a shutdown: a request that is on its way is answered, and nothing after it."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest
import uvicorn
from uvicorn.server import ServerState

from mcp_gateway import http_protocol
from mcp_gateway.http_protocol import BoundedHttpProtocol

_REQUEST = b"GET / HTTP/1.1\r\nHost: bus\r\n\r\n"
_ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
_LAST_ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok"

Scenario = Callable[["_Connection"], Awaitable[None]]


@dataclass
class _Connection:
    """A client's end of a connection, and the server's."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    protocol: BoundedHttpProtocol

    async def exchange(self, request: bytes, answer: bytes) -> None:
        self.writer.write(request)
        assert await self.reader.readexactly(len(answer)) == answer


async def _app(_scope: Any, _receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


@asynccontextmanager
async def _connect() -> AsyncIterator[_Connection]:
    config = uvicorn.Config(_app, http=BoundedHttpProtocol, log_config=None, proxy_headers=False)
    config.load()
    protocols: list[BoundedHttpProtocol] = []

    def make_protocol() -> BoundedHttpProtocol:
        protocols.append(BoundedHttpProtocol(config, ServerState(), {}))
        return protocols[-1]

    server = await asyncio.get_running_loop().create_server(make_protocol, "127.0.0.1", 0)
    async with asyncio.timeout(30):
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        while not protocols:
            await asyncio.sleep(0)
        try:
            yield _Connection(reader, writer, protocols[0])
        finally:
            writer.close()
            server.close()


async def _end_a_used_connection(connection: _Connection) -> None:
    await connection.exchange(_REQUEST, _ANSWER)
    connection.protocol.shutdown()
    await connection.exchange(_REQUEST, _LAST_ANSWER)


async def _end_a_new_connection(connection: _Connection) -> None:
    connection.protocol.shutdown()
    await connection.exchange(_REQUEST, _LAST_ANSWER)


async def _end_amid_a_head(connection: _Connection) -> None:
    await connection.exchange(_REQUEST + _REQUEST[:10], _ANSWER)
    connection.protocol.shutdown()
    await connection.exchange(_REQUEST[10:], _LAST_ANSWER)


@pytest.mark.parametrize("scenario", [_end_a_used_connection, _end_a_new_connection, _end_amid_a_head])
def test_a_request_on_its_way_is_the_last_one(scenario: Scenario, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_protocol, "_LAST_REQUEST_SECONDS", 1000.0)

    async def run() -> None:
        async with _connect() as connection:
            await scenario(connection)
            assert await connection.reader.read() == b""

    asyncio.run(run())


def test_an_idle_connection_is_closed_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_protocol, "_LAST_REQUEST_SECONDS", 0.01)

    async def run() -> None:
        async with _connect() as connection:
            await connection.exchange(_REQUEST, _ANSWER)
            connection.protocol.shutdown()
            assert await connection.reader.read() == b""

    asyncio.run(run())
