"""Direct calls answered from the raw bytes of a connection; hypercorn's HTTP handles everything else.

hypercorn parses with h11 and passes each request through a stream, a queue and two tasks: about six tenths of the
gateway's cost per call. A tool call in the exact form that agents send is recognised here by its head and answered
immediately; a head, which a client repeats from call to call, is parsed once. All other bytes go to hypercorn unchanged
on the same connection, so there is one HTTP server with one behaviour: answers from here equal hypercorn's byte for
byte (tests/mcp_gateway/test_raw_http.py). See docs/decisions/0011-raw-http-path.md.
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

# The head of an agent's request is a few hundred bytes; hypercorn handles longer ones.
_MAX_HEAD_BYTES = 4096
# Much stricter than HTTP; h11 parses every other head.
_REQUEST_HEAD = re.compile(rb"POST /mcp HTTP/1\.1\r\n((?:[A-Za-z0-9-]+: ?[!-~](?:[ -~]*[!-~])?\r\n)+)\r\n")
_CONTENT_LENGTH = re.compile(rb"[1-9][0-9]{0,8}")
# The only header that differs in each request; the rest of the head repeats from call to call.
_REQUEST_ID_HEADER = re.compile(rb"\r\n(?i:x-request-id): *([A-Za-z0-9!#$%&'*+.^_`|~-]{1,64}) *(?=\r\n)")
# Headers that change how the request is read or what happens to the connection.
_UNSUPPORTED_HEADERS = frozenset({b"transfer-encoding", b"expect", b"upgrade", b"te", b"trailer", b"http2-settings"})
# Heads differ by client, tool and length of the body; a full cache is cleared.
_MAX_CACHED_HEADS = 8192
# hypercorn handles a body that does not follow its head within this time.
_BODY_TIMEOUT_SECONDS = 1.0
# Proxies cut off streams that are silent for longer; the SDK uses the same interval.
_PING_INTERVAL_SECONDS = 15.0
_PING_COMMENT = b": ping\r\n\r\n"
# How long a stopping server waits for a client to read its response.
_CLOSE_TIMEOUT_SECONDS = 3.0


async def serve(
    gateway: Gateway, config: Config, app: Any = None, on_shutdown: Callable[[], None] = lambda: None
) -> None:
    """Serve until a shutdown signal arrives, and answer the calls in progress before returning.

    Args:
        gateway: the gateway that answers direct calls.
        config: the configuration of hypercorn.
        app: the ASGI application of the listener if it is more than the gateway; it forwards the gateway's requests
            and its lifespan to the gateway.
        on_shutdown: called at the shutdown signal, to end other work that would delay the shutdown.
    """
    if gateway.settings.fast_path:
        # The only hook into hypercorn: it creates its connections by this name.
        _run.TCPServer = functools.partial(DirectCallServer, RequestHeadParser(gateway))  # type: ignore[assignment,attr-defined]
    await hypercorn.asyncio.serve(
        gateway if app is None else app,  # type: ignore[arg-type]
        config,
        mode="asgi",
        shutdown_trigger=functools.partial(_drain_on_shutdown_signal, gateway, on_shutdown),
    )


async def _drain_on_shutdown_signal(gateway: Gateway, on_shutdown: Callable[[], None]) -> None:
    """Wait for a shutdown signal, then end long polls and streams."""
    await wait_for_shutdown_signal()
    gateway.service.drain()
    on_shutdown()


class RequestHeadParser:
    """Parses the heads of requests and caches the results.

    The cache key is the SHA-256 of the head, since the head contains a bearer token. A cached result holds only facts
    that no revocation changes: the call's own statement checks the token.
    """

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway
        self._max_body_bytes = gateway.settings.max_body_bytes
        self._cache: dict[bytes, tuple[int, ParsedHeaders]] = {}

    def parse(self, head: bytes) -> tuple[int, ParsedHeaders, str] | None:
        """Return the length of the body in bytes, the headers and the request id; None if hypercorn must parse it."""
        if len(head) > _MAX_HEAD_BYTES:
            return None
        # A substring search costs a tenth of the pattern search, and most heads lack the header.
        sent_id = _REQUEST_ID_HEADER.search(head) if _may_contain_request_id(head) else None
        if sent_id is not None:
            head = head[: sent_id.start()] + head[sent_id.end() :]
        key = hashlib.sha256(head).digest()
        parsed = self._cache.get(key)
        if parsed is None:
            parsed = self._parse_uncached(head)
            # Only heads with a known token are cached, so clients without a token cannot evict others.
            if (
                parsed is not None
                and self.gateway.service.caller_cache.find_cached(parsed[1].token_fingerprint) is not None
            ):
                if len(self._cache) >= _MAX_CACHED_HEADS:
                    self._cache.clear()
                self._cache[key] = parsed
        if parsed is None:
            return None
        return (*parsed, new_correlation_id() if sent_id is None else sent_id[1].decode())

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
        parsed_headers = self.gateway.parse_headers(headers)
        return None if parsed_headers is None else (int(lengths[0]), parsed_headers)


def _may_contain_request_id(head: bytes) -> bool:
    return b"equest-I" in head or b"equest-i" in head or b"EQUEST-I" in head


class DirectCallServer(TCPServer):
    """A connection of hypercorn whose direct calls are answered before hypercorn's protocol receives the data."""

    def __init__(self, head_parser: RequestHeadParser, *hypercorn_arguments: Any) -> None:
        super().__init__(*hypercorn_arguments)
        self._head_parser = head_parser
        self._last_used_at = self.loop.time()
        # Bytes that arrived during a long poll.
        self._read_ahead = b""
        # Held while a direct call is in progress, so that the connection is not closed during it.
        self._answer_lock = asyncio.Lock()

    async def _read_data(self) -> None:
        while not self.reader.at_eof():
            try:
                data = await self.reader.read(MAX_RECV)
            except OSError:
                break
            unhandled = await self._answer_direct_calls(data)
            if unhandled is not None:
                await self.protocol.handle(RawData(unhandled))
        await self.protocol.handle(Closed())
        # The task group waits for the idle task, which has no purpose once the client has closed the connection.
        await self.idle_task.stop()

    async def _answer_direct_calls(self, data: bytes) -> bytes | None:
        """Answer the direct calls at the start of the data; return the rest for hypercorn, None if there is none."""
        while data and self._is_between_requests():
            end = data.find(b"\r\n\r\n") + 4
            parsed = self._head_parser.parse(data[:end]) if end >= 4 else None
            if parsed is None:
                return data
            length, headers, request_id = parsed
            size = end + length
            # Held from the head on: neither the idle timeout nor a drain may close the connection during a request.
            async with self._answer_lock:
                if self.writer.is_closing():
                    return b""
                if len(data) < size:
                    data = await self._read_up_to(data, size)
                    if len(data) < size:
                        return data
                if not await self._try_answer(headers, data[end:size], request_id):
                    return data
                self._last_used_at = self.loop.time()
            data = data[size:] + self._read_ahead
            self._read_ahead = b""
            if not data:
                return None
        return data

    async def _read_up_to(self, data: bytes, size: int) -> bytes:
        """Read on until the data has the given size, within the body timeout."""
        pieces, length = [data], len(data)
        try:
            async with asyncio.timeout(_BODY_TIMEOUT_SECONDS):
                while length < size and (more := await self.reader.read(MAX_RECV)):
                    pieces.append(more)
                    length += len(more)
        except (TimeoutError, OSError):
            # hypercorn receives the data so far and applies its own timeouts.
            pass
        return b"".join(pieces)

    async def _try_answer(self, headers: ParsedHeaders, body: bytes, request_id: str) -> bool:
        """Answer one request; False if its body is not a direct call, and nothing was done."""
        gateway = self._head_parser.gateway
        direct_call = gateway.parse_direct_call(headers, body)
        if direct_call is None:
            return False
        # The next read detects that the client disconnected.
        with contextlib.suppress(OSError, RuntimeError):
            if direct_call.is_long_poll:
                await self._answer_long_poll(direct_call, request_id)
            else:
                response = await gateway.answer_direct_call(direct_call, request_id)
                self.writer.write(_encode_response(response, request_id, self.config))
            await self.writer.drain()
        return True

    async def _answer_long_poll(self, direct_call: DirectCall, request_id: str) -> None:
        """Answer a long poll; end it when the client disconnects, and send pings while it waits."""
        answering = asyncio.ensure_future(self._head_parser.gateway.answer_direct_call(direct_call, request_id))
        reading = asyncio.ensure_future(self.reader.read(MAX_RECV))
        has_begun = False
        try:
            pending = {answering, reading}
            while not answering.done():
                done, pending = await asyncio.wait(
                    pending, timeout=_PING_INTERVAL_SECONDS, return_when=asyncio.FIRST_COMPLETED
                )
                if reading in done and not reading.result():
                    return
                if not done:
                    head = b"" if has_begun else _encode_head(200, SSE_HEADERS, request_id, self.config)
                    self.writer.write(head + _encode_chunk(_PING_COMMENT))
                    has_begun = True
            response = answering.result()
            if has_begun:
                event = self._head_parser.gateway.encode_stream_event(direct_call, response)
                self.writer.write(_encode_chunk(event) + _LAST_CHUNK)
            else:
                self.writer.write(_encode_response(response, request_id, self.config))
        finally:
            for task in (answering, reading):
                task.cancel()
            # The bytes read belong to the next request. A cancelled read leaves its bytes in the reader's buffer.
            _, read = await asyncio.gather(answering, reading, return_exceptions=True)
            self._read_ahead = read if isinstance(read, bytes) else b""

    def _is_between_requests(self) -> bool:
        """Whether hypercorn is between two requests and has consumed all data passed to it."""
        http = self.protocol.protocol
        return (
            isinstance(http, H11Protocol)
            and isinstance(http.connection, h11.Connection)
            and http.connection.their_state is h11.IDLE
            and not http.connection.trailing_data[0]
            and not self.context.terminated.is_set()
        )

    async def _idle_timeout(self) -> None:
        """Close the connection after hypercorn's keep-alive timeout without a request, or when the server stops."""
        self._last_used_at = self.loop.time()
        while True:
            remaining = self._last_used_at + self.config.keep_alive_timeout - self.loop.time()
            if remaining > 0:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self.context.terminated.wait(), remaining)
            async with self._answer_lock:
                if (
                    self.context.terminated.is_set()
                    or self._last_used_at + self.config.keep_alive_timeout <= self.loop.time()
                ):
                    await asyncio.shield(self._initiate_server_close())
                    return

    async def _close(self) -> None:
        """Close as hypercorn does, but bound the wait for a client that does not read while the server stops."""
        if self.context.terminated.is_set():
            self.loop.call_later(_CLOSE_TIMEOUT_SECONDS, self.writer.transport.abort)
        await super()._close()


_LAST_CHUNK = b"0\r\n\r\n"


def _encode_response(response: HttpResponse, request_id: str, config: Config) -> bytes:
    """Encode a response exactly as h11 does."""
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
    """Encode the headers that hypercorn adds to every response; `second` keys the cache, since they carry the time."""
    return b"".join(b"%b: %b\r\n" % header for header in config.response_headers("h11"))
