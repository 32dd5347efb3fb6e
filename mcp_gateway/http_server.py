"""The HTTP server of the gateway: uvicorn with the httptools parser, until a shutdown signal arrives.

See docs/decisions/0026-gateway-http-server.md.
"""

import asyncio
import logging
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn

from bus.config.settings import Settings
from bus.config.shutdown import drain_at_signal
from mcp_gateway.http_protocol import BoundedHttpProtocol
from mcp_gateway.process_group import ParentConnection

_GRACEFUL_SHUTDOWN_SECONDS = 10
_CONNECTION_CHECK_SECONDS = 1.0


class _Server(uvicorn.Server):
    """A server whose shutdown this module controls."""

    on_start: Callable[[], None] = staticmethod(lambda: None)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, and report it."""
        await super().startup(sockets)
        if self.started:
            self.on_start()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to wait_for_shutdown_signal, so that the process exits with 0."""
        yield


async def serve(
    app: Any,
    settings: Settings,
    begin_drain: Callable[[], None],
    on_shutdown: Callable[[], None],
    listener: socket.socket | None = None,
    parent: ParentConnection | None = None,
) -> None:
    """Serve an ASGI application until a shutdown signal arrives; requests in progress are answered first.

    Args:
        app: the ASGI application.
        settings: where to listen.
        begin_drain: called at the signal, if `DRAIN_SECONDS` is set.
        on_shutdown: called at the signal, or after the drain, to end long polls and streams.
        listener: a listening socket to accept from, in place of the one that the settings name.
        parent: the parent of a group of processes; its end stops the process without a drain.
    Raises:
        SystemExit: the application did not start, with status 3 as uvicorn has it.
    """
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        http=BoundedHttpProtocol,
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        # The gateway uses neither the client's address nor the scheme.
        proxy_headers=False,
        backlog=1024,
        timeout_graceful_shutdown=_GRACEFUL_SHUTDOWN_SECONDS,
    )
    server = _Server(config)
    if parent is not None:
        server.on_start = parent.report_ready

    async def stop_at_signal() -> None:
        waits = {asyncio.ensure_future(drain_at_signal(begin_drain, settings.drain_seconds))}
        if parent is not None:
            waits.add(asyncio.ensure_future(parent.wait_until_closed()))
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()
        on_shutdown()
        server.should_exit = True

    background = [asyncio.create_task(stop_at_signal()), asyncio.create_task(_close_overdue_connections(server))]
    try:
        await server.serve(None if listener is None else [listener])
    finally:
        for task in background:
            task.cancel()


async def _close_overdue_connections(server: uvicorn.Server) -> None:
    """Close connections that are idle or send a head too slowly; one timer for all costs less than one for each."""
    loop = asyncio.get_running_loop()
    while True:
        await asyncio.sleep(_CONNECTION_CHECK_SECONDS)
        now = loop.time()
        for connection in list(server.server_state.connections):
            assert isinstance(connection, BoundedHttpProtocol)
            connection.close_if_overdue(now)


def configure_logging() -> None:
    """Silence what uvicorn logs about each start, stop and invalid request; failures of the application stay."""
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)
