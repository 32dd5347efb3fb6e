"""Plain requests are answered from the bytes of the connection, everything else by hypercorn's HTTP.

hypercorn parses with h11 and plays each request through a stream, a queue and two tasks: about six tenths of what a
call cost the gateway. A tool call of an agent that is in every respect usual, from the first byte to the last, is
recognised here by its head and answered on the spot; the head, which a client repeats from call to call, is read once.
Any other byte goes to hypercorn as it came, on the same connection, so that there is one HTTP server with one
behaviour: what is answered here is answered byte for byte as it would have answered (test_plain.py). See
docs/decisions/0011-plain-requests.md.
"""

import asyncio
import contextlib
import functools
import hashlib
import re
import time
from collections.abc import Callable
from typing import Any

import h11
import hypercorn.asyncio
from hypercorn.asyncio import run as _run
from hypercorn.asyncio.tcp_server import MAX_RECV, TCPServer
from hypercorn.config import Config
from hypercorn.events import Closed, RawData
from hypercorn.protocol.h11 import H11Protocol

from bus.config.shutdown import wait_for_shutdown_signal
from bus.operations.logs import new_correlation_id
from mcp_gateway.app import DirectCall, Gateway, ParsedHeaders
from mcp_gateway.direct_call import SSE_HEADERS
from mcp_gateway.http_responses import Headers, HttpResponse

# A head of an agent is some hundred bytes; what is longer is left to hypercorn.
_MAX_HEAD_BYTES = 4096
# Far stricter than HTTP: whoever writes a head otherwise is understood by h11.
_REQUEST_HEAD = re.compile(rb"POST /mcp HTTP/1\.1\r\n((?:[A-Za-z0-9-]+: ?[!-~](?:[ -~]*[!-~])?\r\n)+)\r\n")
_CONTENT_LENGTH = re.compile(rb"[1-9][0-9]{0,8}")
# The one header that is another in each request; what is left is the same from call to call.
_REQUEST_ID_HEADER = re.compile(rb"\r\n(?i:x-request-id): *([A-Za-z0-9!#$%&'*+.^_`|~-]{1,64}) *(?=\r\n)")
# What changes how the request is to be read, or what becomes of the connection.
_UNSUPPORTED_HEADERS = frozenset({b"transfer-encoding", b"expect", b"upgrade", b"te", b"trailer", b"http2-settings"})
# Heads differ by client, tool and length of the body; past this many the oldest are not worth their memory.
_MAX_CACHED_HEADS = 8192
# A body that does not follow its head at once is left to hypercorn, which knows how to wait.
_BODY_TIMEOUT_SECONDS = 1.0
# A stream that says nothing for longer is cut off by what lies between; the SDK keeps the same time.
_PING_INTERVAL_SECONDS = 15.0
_PING_COMMENT = b": ping\r\n\r\n"
# How long a stopping server waits for a client to read what it was sent.
_CLOSE_TIMEOUT_SECONDS = 3.0


async def serve(
    gateway: Gateway, config: Config, app: Any = None, on_shutdown: Callable[[], None] = lambda: None
) -> None:
    """Serve until the process is told to stop; calls under way are answered first.

    Args:
        app: the ASGI application behind the listener, if it is more than the gateway: it hands the gateway what is
            the gateway's, its lifespan too.
        drain: is called when the process is told to stop, for what else would hold it up.
    """
    if gateway.settings.fast_path:
        # The one seam: hypercorn makes its connections by this name.
        _run.TCPServer = functools.partial(DirectCallServer, RequestHeadParser(gateway))  # type: ignore[assignment,attr-defined]
    await hypercorn.asyncio.serve(
        gateway if app is None else app,  # type: ignore[arg-type]
        config,
        mode="asgi",
        shutdown_trigger=functools.partial(_drain_on_shutdown_signal, gateway, on_shutdown),
    )


async def _drain_on_shutdown_signal(gateway: Gateway, on_shutdown: Callable[[], None]) -> None:
    """Return when the process is told to stop, after the calls that wait were told to come again."""
    await wait_for_shutdown_signal()
    gateway.service.drain()
    on_shutdown()


class RequestHeadParser:
    """Reads the heads of requests, each of them once.

    A head is remembered by its SHA-256, since it holds a bearer token, and only what no revocation can change is
    kept of it: the call's own statement says whether the token is good.
    """

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway
        self._max_body_bytes = gateway.settings.max_body_bytes
        self._cache: dict[bytes, tuple[int, ParsedHeaders]] = {}

    def parse(self, head: bytes) -> tuple[int, ParsedHeaders, str] | None:
        """The length of the body in bytes, what the head says, and the id of the request; None: hypercorn reads it."""
        if len(head) > _MAX_HEAD_BYTES:
            return None
        # Looking for a word costs a tenth of looking for a pattern, and mostly it is not there.
        sent = _REQUEST_ID_HEADER.search(head) if _may_contain_request_id(head) else None
        if sent is not None:
            head = head[: sent.start()] + head[sent.end() :]
        key = hashlib.sha256(head).digest()
        known = self._cache.get(key)
        if known is None:
            known = self._parse_uncached(head)
            # Strangers leave nothing here, and cannot push anybody out.
            if (
                known is not None
                and self.gateway.service.caller_cache.find_cached(known[1].token_fingerprint) is not None
            ):
                if len(self._cache) >= _MAX_CACHED_HEADS:
                    self._cache.clear()
                self._cache[key] = known
        if known is None:
            return None
        return (*known, new_correlation_id() if sent is None else sent[1].decode())

    def _parse_uncached(self, head: bytes) -> tuple[int, ParsedHeaders] | None:
        match = _REQUEST_HEAD.fullmatch(head)
        if match is None:
            return None
        headers: Headers = []
        lengths = []
        for line in match[1].split(b"\r\n")[:-1]:
            name, _, value = line.partition(b":")
            name, value = name.lower(), value.strip(b" ")
            if name in _UNSUPPORTED_HEADERS or (name == b"connection" and value.lower() != b"keep-alive"):
                return None
            if name == b"content-length":
                lengths.append(value)
            headers.append((name, value))
        if len(lengths) != 1 or not _CONTENT_LENGTH.fullmatch(lengths[0]) or int(lengths[0]) > self._max_body_bytes:
            return None
        plain = self.gateway.parse_headers(headers)
        return None if plain is None else (int(lengths[0]), plain)


def _may_contain_request_id(head: bytes) -> bool:
    return b"equest-I" in head or b"equest-i" in head or b"EQUEST-I" in head


class DirectCallServer(TCPServer):
    """One connection: hypercorn's, with plain requests taken out before its protocol sees them."""

    def __init__(self, head_parser: RequestHeadParser, *hypercorn_arguments: Any) -> None:
        super().__init__(*hypercorn_arguments)
        self._head_parser = head_parser
        self._last_used_at = self.loop.time()
        # What came while a call waited.
        self._read_ahead = b""
        # Held while a plain request is under way, so that the connection is not closed under it.
        self._answer_lock = asyncio.Lock()

    async def _read_data(self) -> None:
        while not self.reader.at_eof():
            try:
                data = await self.reader.read(MAX_RECV)
            except OSError:
                break
            left = await self._answer_direct_calls(data)
            if left is not None:
                await self.protocol.handle(RawData(left))
        await self.protocol.handle(Closed())
        # The task group waits for it, and a connection that its client has closed has nothing to wait for.
        await self.idle_task.stop()

    async def _answer_direct_calls(self, data: bytes) -> bytes | None:
        """Answer the plain requests that the data begins with; what is left for hypercorn, None if nothing is."""
        while data and self._is_between_requests():
            end = data.find(b"\r\n\r\n") + 4
            found = self._head_parser.parse(data[:end]) if end >= 4 else None
            if found is None:
                return data
            length, plain, request_id = found
            size = end + length
            # Taken from the head on: neither idling nor draining may close the connection under a request.
            async with self._answer_lock:
                if self.writer.is_closing():
                    return b""
                if len(data) < size:
                    data = await self._read_up_to(data, size)
                    if len(data) < size:
                        return data
                if not await self._try_answer(plain, data[end:size], request_id):
                    return data
                self._last_used_at = self.loop.time()
            data = data[size:] + self._read_ahead
            self._read_ahead = b""
            if not data:
                return None
        return data

    async def _read_up_to(self, data: bytes, size: int) -> bytes:
        """The data and what follows it up to that size, as far as it comes at once."""
        pieces, length = [data], len(data)
        try:
            async with asyncio.timeout(_BODY_TIMEOUT_SECONDS):
                while length < size and (more := await self.reader.read(MAX_RECV)):
                    pieces.append(more)
                    length += len(more)
        except (TimeoutError, OSError):
            # hypercorn gets what there is and waits as long as it always does.
            pass
        return b"".join(pieces)

    async def _try_answer(self, headers: ParsedHeaders, content: bytes, request_id: str) -> bool:
        """Answer one request; False where nothing was done because it is not plain after all."""
        gateway = self._head_parser.gateway
        usual = gateway.parse_direct_call(headers, content)
        if usual is None:
            return False
        # A client that went away is noticed by the next read.
        with contextlib.suppress(OSError, RuntimeError):
            if usual.is_long_poll:
                await self._answer_long_poll(usual, request_id)
            else:
                self.writer.write(
                    _encode_response(await gateway.answer_direct_call(usual, request_id), request_id, self.config)
                )
            await self.writer.drain()
        return True

    async def _answer_long_poll(self, direct_call: DirectCall, request_id: str) -> None:
        """Answer a call that waits: give up when its client goes away, and keep the connection from falling silent."""
        answering = asyncio.ensure_future(self._head_parser.gateway.answer_direct_call(direct_call, request_id))
        reading = asyncio.ensure_future(self.reader.read(MAX_RECV))
        began = False
        try:
            pending = {answering, reading}
            while not answering.done():
                done, pending = await asyncio.wait(
                    pending, timeout=_PING_INTERVAL_SECONDS, return_when=asyncio.FIRST_COMPLETED
                )
                if reading in done and not reading.result():
                    return
                if not done:
                    head = b"" if began else _encode_head(200, SSE_HEADERS, request_id, self.config)
                    self.writer.write(head + _encode_chunk(_PING_COMMENT))
                    began = True
            reply = answering.result()
            if began:
                self.writer.write(
                    _encode_chunk(self._head_parser.gateway.encode_stream_event(direct_call, reply)) + _LAST_CHUNK
                )
            else:
                self.writer.write(_encode_response(reply, request_id, self.config))
        finally:
            for task in (answering, reading):
                task.cancel()
            # What was read belongs to the next request. A read that is broken off leaves everything in the buffer.
            _, read = await asyncio.gather(answering, reading, return_exceptions=True)
            self._read_ahead = read if isinstance(read, bytes) else b""

    def _is_between_requests(self) -> bool:
        """Whether hypercorn is between two requests, having read everything that it was given."""
        http = self.protocol.protocol
        return (
            isinstance(http, H11Protocol)
            and isinstance(http.connection, h11.Connection)
            and http.connection.their_state is h11.IDLE
            and not http.connection.trailing_data[0]
            and not self.context.terminated.is_set()
        )

    async def _idle_timeout(self) -> None:
        """Close the connection when it was not used for as long as hypercorn keeps it, or when the server stops."""
        self._last_used_at = self.loop.time()
        while True:
            left = self._last_used_at + self.config.keep_alive_timeout - self.loop.time()
            if left > 0:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self.context.terminated.wait(), left)
            async with self._answer_lock:
                if (
                    self.context.terminated.is_set()
                    or self._last_used_at + self.config.keep_alive_timeout <= self.loop.time()
                ):
                    await asyncio.shield(self._initiate_server_close())
                    return

    async def _close(self) -> None:
        """Close as hypercorn does, but not wait for ever for a client that does not read while the server stops."""
        if self.context.terminated.is_set():
            self.loop.call_later(_CLOSE_TIMEOUT_SECONDS, self.writer.transport.abort)
        await super()._close()


_LAST_CHUNK = b"0\r\n\r\n"


def _encode_response(response: HttpResponse, request_id: str, config: Config) -> bytes:
    """A reply as bytes, as h11 writes it."""
    head = _encode_head(response.status, response.headers, request_id, config)
    if any(name == b"content-length" for name, _ in response.headers):
        return head + response.body
    return head + _encode_chunk(response.body) + _LAST_CHUNK


def _encode_head(status: int, headers: Headers, request_id: str, config: Config) -> bytes:
    lines = [b"HTTP/1.1 %d \r\n" % status]
    lines += [b"%b: %b\r\n" % header for header in headers]
    lines.append(b"x-request-id: %b\r\n" % request_id.encode())
    lines.append(_encode_server_headers(config, int(time.time())))
    if not any(name == b"content-length" for name, _ in headers):
        lines.append(b"Transfer-Encoding: chunked\r\n")
    return b"".join((*lines, b"\r\n"))


def _encode_chunk(content: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(content), content)


@functools.lru_cache(1)
def _encode_server_headers(config: Config, second: int) -> bytes:
    """The headers that hypercorn adds to every answer, for this second."""
    return b"".join(b"%b: %b\r\n" % header for header in config.response_headers("h11"))
