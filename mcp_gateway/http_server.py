"""The HTTP server of the gateway: uvicorn with the httptools parser, until a shutdown signal arrives.

See docs/decisions/0026-gateway-http-server.md.
"""

import asyncio
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from bus.config.settings import Settings
from bus.config.shutdown import wait_for_shutdown_signal

_KEEP_ALIVE_SECONDS = 120
_GRACEFUL_SHUTDOWN_SECONDS = 10
# The head of an agent's request has some hundred bytes.
_MAX_HEAD_BYTES = 32 * 1024
_MAX_HEADER_COUNT = 100
_HEAD_TIMEOUT_SECONDS = 30


class BoundedHttpProtocol(HttpToolsProtocol):
    """uvicorn's HTTP protocol with bounds on the head of a request, which uvicorn itself does not have.

    It also closes gaps that uvicorn has with trailers, pipelined requests and idle connections. A callback of the
    parser that raises makes uvicorn answer 400 and close the connection.
    """

    _is_head_complete = False
    _field_bytes = 0
    # The data since the last head, body or part of a body.
    _unfinished_bytes = 0
    _head_timer: asyncio.TimerHandle | None = None
    # The request that the application handles; `self.cycle` is the one that was received last.
    _handled_cycle: RequestResponseCycle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the timer of the first head."""
        super().connection_made(transport)
        self._start_head_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the timer, and report the disconnect to the request that is handled."""
        self._stop_head_timer()
        super().connection_lost(exc)
        if self._handled_cycle is not None and not self._handled_cycle.response_complete:
            self._handled_cycle.disconnected = True
            self._handled_cycle.message_event.set()

    def data_received(self, data: bytes) -> None:
        """Pass data to the parser, unless an incomplete field has become too large."""
        # The parser holds back an incomplete field, so its size is known only from the data.
        self._unfinished_bytes += len(data)
        super().data_received(data)
        if self.transport.is_closing():
            return
        if self._unfinished_bytes > _MAX_HEAD_BYTES:
            self.send_400_response("The request is not acceptable.")
        elif self._head_timer is None and (
            # A head that arrives in one piece, as those of agents do, needs no timer.
            not self._is_head_complete
            # The data, such as an empty line, stopped the timer of an idle connection and began no request.
            or (self.cycle is not None and self.cycle.response_complete)
        ):
            self._start_head_timer()

    def send_400_response(self, msg: str) -> None:
        """Refuse what was received, and close the connection."""
        cycle = self._handled_cycle
        if cycle is not None and cycle.response_started and not cycle.response_complete:
            # A second response inside the one that is being sent would corrupt it.
            self.transport.close()
        else:
            super().send_400_response(msg)

    def on_message_begin(self) -> None:
        """Begin a request."""
        super().on_message_begin()
        self._is_head_complete = False
        self._field_bytes = 0

    def on_url(self, url: bytes) -> None:
        """Take a part of the request target, which must be a path.

        Raises:
            ValueError: the target names a host, which could differ from the Host header, or it is too long.
        """
        if not self.url and url[:1] not in (b"/", b"*"):
            raise ValueError("the request target is not a path")
        super().on_url(url)
        self._field_bytes += len(url)
        if self._field_bytes > _MAX_HEAD_BYTES:
            raise ValueError("the request target is too long")

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header, or drop a trailer.

        Raises:
            ValueError: there are too many headers, they are too large, or a value continues on the next line.
        """
        # One call per header of every request, so uvicorn's method is written out here.
        self._field_bytes += len(name) + len(value)
        headers = self.headers
        if self._field_bytes > _MAX_HEAD_BYTES or len(headers) >= _MAX_HEADER_COUNT or b"\n" in value or b"\r" in value:
            raise ValueError("the headers are not acceptable")
        # uvicorn would add a trailer to the headers, after a proxy and perhaps the application have read them.
        if not self._is_head_complete:
            name = name.lower()
            if name == b"expect" and value.lower() == b"100-continue":
                self.expect_100_continue = True
            # The parser keeps blanks after a value, which are not part of it (RFC 9112, 5.1).
            headers.append((name, value.rstrip(b" \t")))

    def on_headers_complete(self) -> None:
        """Hand the request to the application."""
        self._is_head_complete = True
        self._unfinished_bytes = 0
        self._stop_head_timer()
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Take a part of the body."""
        self._unfinished_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """End a request."""
        self._unfinished_bytes = 0
        super().on_message_complete()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._handled_cycle = cycle
        super()._start_asgi_task(cycle, app)

    def _start_head_timer(self) -> None:
        self._head_timer = self.loop.call_later(_HEAD_TIMEOUT_SECONDS, self._close_slow_connection)

    def _stop_head_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _close_slow_connection(self) -> None:
        if self._handled_cycle is not None and not self._handled_cycle.response_complete:
            # Nothing is read while a pipelined request waits for its turn.
            self._start_head_timer()
        elif not self.transport.is_closing():
            self.transport.close()


class _Server(uvicorn.Server):
    """A server whose shutdown this module controls."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to wait_for_shutdown_signal, so that the process exits with 0."""
        yield


async def serve(app: Any, settings: Settings, on_shutdown: Callable[[], None]) -> None:
    """Serve an ASGI application until a shutdown signal arrives; requests in progress are answered first.

    Args:
        app: the ASGI application.
        settings: where to listen.
        on_shutdown: called at the signal, to end long polls and streams.
    Raises:
        SystemExit: the application did not start, or the port is taken; with status 3 as uvicorn has it.
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
        backlog=1024,
        timeout_keep_alive=_KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=_GRACEFUL_SHUTDOWN_SECONDS,
    )
    server = _Server(config)

    async def stop_at_signal() -> None:
        await wait_for_shutdown_signal()
        on_shutdown()
        server.should_exit = True

    stopping = asyncio.create_task(stop_at_signal())
    try:
        await server.serve()
    finally:
        stopping.cancel()


def configure_logging() -> None:
    """Silence what uvicorn logs about each start, stop and invalid request; failures of the application stay."""
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)
