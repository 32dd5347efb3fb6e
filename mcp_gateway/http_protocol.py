"""One HTTP connection of the gateway: uvicorn's protocol for httptools, with bounds and without its costs.

uvicorn bounds neither the head of a request nor an idle connection that sends empty lines, and it has gaps with
trailers and pipelined requests; the methods below close them. It also writes the head and the body of a response one
after the other, searches every header for forbidden characters and sets a timer after every response. Here a response
is one write, and the server looks through its connections once a second.
"""

import asyncio
import math
import socket
import struct
import urllib.parse
from collections.abc import Callable
from typing import Any, cast

import uvicorn
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from mcp_gateway.client_connection import is_client_gone
from mcp_gateway.delivery import DELIVERY_EXTENSION
from mcp_gateway.request_body import COMPLETE_BODY_EXTENSION

KEEP_ALIVE_SECONDS = 120
HEAD_TIMEOUT_SECONDS = 30
# The head of an agent's request has some hundred bytes.
_MAX_HEAD_BYTES = 32 * 1024
_MAX_HEADER_COUNT = 100
# At a shutdown a request may be on its way on a connection that looks idle.
_LAST_REQUEST_SECONDS = 0.5
# A client that has an answer and neither reads nor resets the connection for so long is taken to have it.
_DELIVERY_SECONDS = 10
# For the client to close its side of a connection that is closed after an answer whose delivery matters.
_LINGER_SECONDS = 5
# Of Linux's struct tcp_info: the number of segments that the peer has not acknowledged.
_TCP_INFO = struct.Struct("=24xI")


class BoundedHttpProtocol(HttpToolsProtocol):
    """One connection. A callback of the parser that raises makes uvicorn answer 400 and close the connection."""

    def __init__(
        self,
        config: uvicorn.Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._is_head_complete = False
        self._field_bytes = 0
        # The data since the last head, body or part of a body.
        self._unfinished_bytes = 0
        # When the connection is closed, by the clock of the loop, unless a request is handled then.
        self._deadline = math.inf
        self._is_draining = False
        # The request that the application handles; `self.cycle` is the one that was received last.
        self._handled_cycle: _Cycle | None = None
        # Callbacks for answers that were written, and when.
        self._deliveries: list[tuple[float, Callable[[bool], None]]] = []
        self._has_peer_closed = False
        self._is_lingering = False

    def close_if_overdue(self, now: float) -> None:
        """Close the connection if it was idle, or began to send a head, too long ago.

        Args:
            now: the time of the loop's clock.
        """
        if self._deliveries and now - self._deliveries[0][0] >= _DELIVERY_SECONDS:
            self._settle_deliveries(True)
        # Nothing is read while a pipelined request waits for its turn.
        if now >= self._deadline and not self._is_handling_request() and not self.transport.is_closing():
            self.transport.close()

    def shutdown(self) -> None:
        """Answer what is in progress, and a request that arrives within half a second; then close.

        The answer says `Connection: close`, so that the client sends its next request on a new connection.
        """
        self._is_draining = True
        if self._is_handling_request():
            self.cycle.keep_alive = False
        else:
            self.loop.call_later(_LAST_REQUEST_SECONDS, self._close_if_idle)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Expect the first head."""
        super().connection_made(transport)
        self._deadline = self.loop.time() + HEAD_TIMEOUT_SECONDS

    def eof_received(self) -> None:
        """Note that the client closes the connection; the transport then closes it, too."""
        self._has_peer_closed = True

    def connection_lost(self, exc: Exception | None) -> None:
        """Report the disconnect to the request that is handled, and which answers were lost with the connection."""
        if self._deliveries:
            self._settle_deliveries(exc is None and not self._was_reset())
        super().connection_lost(exc)
        if self._handled_cycle is not None and not self._handled_cycle.response_complete:
            self._handled_cycle.disconnected = True
            self._handled_cycle.message_event.set()

    def data_received(self, data: bytes) -> None:
        """Pass data to the parser, unless an incomplete field has become too large."""
        if self._is_lingering:
            return
        # The parser holds back an incomplete field, so its size is known only from the data.
        self._unfinished_bytes += len(data)
        super().data_received(data)
        if self._unfinished_bytes > _MAX_HEAD_BYTES and not self.transport.is_closing():
            self.send_400_response("The request is not acceptable.")

    def expect_delivery(self, callback: Callable[[bool], None]) -> None:
        """Call back with whether the client got the answer that is written now.

        It has it if it sends another request, closes the connection after it acknowledged all data, or keeps the
        connection open for some time. It has not if it resets the connection, which its system does when it closes the
        connection with unread data.
        """
        self._deliveries.append((self.loop.time(), callback))

    def linger(self) -> None:
        """Close the sending side, and wait a little for the client to close the other or to reset the connection."""
        self._is_lingering = True
        self.transport.write_eof()
        self._deadline = self.loop.time() + _LINGER_SECONDS

    @property
    def has_pending_deliveries(self) -> bool:
        """Whether an answer was written of which it is not known that the client got it."""
        return bool(self._deliveries)

    def _settle_deliveries(self, is_delivered: bool) -> None:
        deliveries, self._deliveries = self._deliveries, []
        for _, callback in deliveries:
            callback(is_delivered)

    def _was_reset(self) -> bool:
        """Whether the client closed the connection before it had received everything; called while it is lost."""
        connection = self.transport.get_extra_info("socket")
        if connection is None or not hasattr(socket, "TCP_INFO") or connection.family == socket.AF_UNIX:
            return False
        try:
            # A reset that arrived after the end of the client's data is no error of a read.
            if connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                return True
            (unacknowledged,) = _TCP_INFO.unpack(
                connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO.size)
            )
        except OSError:
            return False
        return self._has_peer_closed and unacknowledged > 0

    def send_400_response(self, msg: str) -> None:
        """Refuse what was received, and close the connection."""
        cycle = self._handled_cycle
        if cycle is not None and cycle.response_started and not cycle.response_complete:
            # A second response inside the one that is being sent would corrupt it.
            self.transport.close()
        else:
            super().send_400_response(msg)

    def on_message_begin(self) -> None:
        """Begin a request; the client has the answers to those before it."""
        if self._deliveries:
            self._settle_deliveries(True)
        self.url = b""
        self.headers = []
        self.expect_100_continue = False
        self._is_head_complete = False
        self._field_bytes = 0
        if not self._is_handling_request():
            self._deadline = self.loop.time() + HEAD_TIMEOUT_SECONDS

    def on_url(self, url: bytes) -> None:
        """Take a part of the request target, which must be a path.

        Raises:
            ValueError: the target names a host, which could differ from the Host header, or it is too long.
        """
        if not self.url and url[:1] != b"/":
            raise ValueError("the request target is not a path")
        self.url += url
        self._field_bytes += len(url)
        if self._field_bytes > _MAX_HEAD_BYTES:
            raise ValueError("the request target is too long")

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header, or drop a trailer.

        Raises:
            ValueError: there are too many headers, they are too large, or a value continues on the next line.
        """
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
        """Hand the request to the application, or let it wait for the one before it."""
        self._is_head_complete = True
        self._unfinished_bytes = 0
        http_version = self.parser.get_http_version()
        raw_path, _, query = self.url.partition(b"#")[0].partition(b"?")
        path = raw_path.decode("ascii")
        scope = {
            "type": "http",
            "asgi": {"version": self.asgi_version, "spec_version": "2.3"},
            "http_version": http_version,
            "server": self.server,
            "client": self.client,
            "scheme": self.scheme,
            "root_path": "",
            "method": self.parser.get_method().decode("ascii"),
            "path": urllib.parse.unquote(path) if "%" in path else path,
            "raw_path": raw_path,
            "query_string": query,
            "headers": self.headers,
            "state": self.app_state.copy(),
        }
        cycle = _Cycle(
            scope=cast(Any, scope),
            transport=self.transport,
            flow=self.flow,
            logger=self.logger,
            access_logger=self.access_logger,
            access_log=False,
            default_headers=self.server_state.default_headers,
            message_event=asyncio.Event(),
            expect_100_continue=self.expect_100_continue,
            keep_alive=http_version != "1.0" and self.parser.should_keep_alive() and not self._is_draining,
            on_response=self.on_response_complete,
        )
        cycle.connection = self
        self.cycle = cycle
        if self._is_handling_request():
            self.flow.pause_reading()
            self.pipeline.appendleft((cycle, self.app))
        else:
            self._start_asgi_task(cycle, self.app)

    def on_body(self, body: bytes) -> None:
        """Take a part of the body."""
        self._unfinished_bytes = 0
        cycle = self.cycle
        if not cycle.response_complete:
            cycle.body += body
            if len(cycle.body) > HIGH_WATER_LIMIT:
                self.flow.pause_reading()
            cycle.message_event.set()

    def on_message_complete(self) -> None:
        """End a request."""
        self._unfinished_bytes = 0
        if not self.cycle.response_complete:
            self.cycle.more_body = False
            self.cycle.message_event.set()

    def on_response_complete(self) -> None:
        """Handle the next pipelined request, or wait for another one."""
        self.server_state.total_requests += 1
        if self.transport.is_closing() or self._is_lingering:
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
        else:
            # The head of the next request may have begun.
            seconds = KEEP_ALIVE_SECONDS if self._is_head_complete else HEAD_TIMEOUT_SECONDS
            self._deadline = self.loop.time() + seconds

    def _close_if_idle(self) -> None:
        if not self._is_handling_request() and not self.transport.is_closing():
            self.transport.close()

    def _is_handling_request(self) -> bool:
        return self._handled_cycle is not None and not self._handled_cycle.response_complete

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._handled_cycle = cast(_Cycle, cycle)
        super()._start_asgi_task(cycle, app)


class _Cycle(RequestResponseCycle):
    """One request and its response, which is sent without a check of what the application itself sends.

    Attributes:
        connection: the connection of the request.
    """

    connection: BoundedHttpProtocol
    _start: dict[str, Any] | None = None
    _delivery_callback: Callable[[bool], None] | None = None

    async def run_asgi(self, app: Any) -> None:
        """Run the application; it gets the body at once if the body arrived together with the head."""
        is_client_gone.set(lambda: self.disconnected)
        extensions: dict[str, Any] = {DELIVERY_EXTENSION: self._set_delivery_callback}
        if not self.more_body:
            extensions[COMPLETE_BODY_EXTENSION] = {"body": bytes(self.body)}
        self.scope["extensions"] = extensions
        await super().run_asgi(app)

    async def send(self, message: Any) -> None:
        """Send a part of the response. The head is sent with the first part of the body, as ASGI demands."""
        if self.flow.write_paused and not self.disconnected:
            await self.flow.drain()
        if self.disconnected:
            self._report_undelivered()
            return
        if message["type"] == "http.response.start":
            self._start = message
            return
        body = message.get("body", b"")
        is_last = not message.get("more_body", False)
        parts = [] if self._start is None else self._encode_head(self._start)
        if self.scope["method"] == "HEAD":
            pass
        elif not self.chunked_encoding:
            parts.append(body)
        else:
            if body:
                parts += (b"%x\r\n" % len(body), body, b"\r\n")
            if is_last:
                parts.append(b"0\r\n\r\n")
        if self._delivery_callback is not None:
            if self.transport.is_closing():
                self._report_undelivered()
            else:
                self.connection.expect_delivery(self._delivery_callback)
                self._delivery_callback = None
        self.transport.write(b"".join(parts))
        if is_last:
            self.response_complete = True
            self.message_event.set()
            if not self.keep_alive:
                # A client that is still sending a body would otherwise be reset before it has read the response.
                is_unfinished = self.more_body or self.connection.has_pending_deliveries
                if is_unfinished and not self.transport.is_closing():
                    self.connection.linger()
                else:
                    self.transport.close()
            self.on_response()

    def _set_delivery_callback(self, callback: Callable[[bool], None]) -> None:
        """Call back with whether the next part of the body reaches the client."""
        self._delivery_callback = callback

    def _report_undelivered(self) -> None:
        callback, self._delivery_callback = self._delivery_callback, None
        if callback is not None:
            callback(False)

    def _encode_head(self, start: dict[str, Any]) -> list[bytes]:
        self._start = None
        self.response_started = True
        self.waiting_for_100_continue = False
        status = start["status"]
        parts = [STATUS_LINE[status]]
        has_length = status in (204, 304)
        for name, value in (*self.default_headers, *start["headers"]):
            if name == b"content-length":
                has_length = True
            elif name == b"connection" and value == b"close":
                self.keep_alive = False
                continue
            parts += (name, b": ", value, b"\r\n")
        if not self.keep_alive:
            parts.append(b"connection: close\r\n")
        self.chunked_encoding = not has_length
        parts.append(b"\r\n" if has_length else b"transfer-encoding: chunked\r\n\r\n")
        return parts
