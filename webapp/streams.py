"""Live boards over server-sent events: a changed board is rendered once and sent to all of its open streams.

All streams of a process share one event loop. Twice a second two statements check the versions of all boards with open
streams, and whether the sessions are still valid; nothing is sent on the result of an earlier check. A stream that
cannot be opened is passed on to the Flask page, which declines it; the script then polls instead.
Source: docs/decisions/0024-live-board.md
"""

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from contextlib import suppress
from dataclasses import dataclass, field
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qs

import psycopg
from flask import Flask, render_template

from bus.auth import sessions
from bus.config.settings import Settings, is_allowed
from bus.coordination import board
from bus.db import Connection, Database
from bus.errors import BusError
from bus.operations.logs import accept_correlation_id
from bus.operations.metrics import gauge
from bus.tenancy import participant_queries, projects
from webapp import identity
from webapp.settings import WebOptions

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

MAX_STREAMS = 1_000
"""Open streams of a process; further boards poll."""
MAX_STREAMS_PER_SESSION = 20
"""Open streams of one session."""

_POLL_SECONDS = 0.5
# Shows the browser, and proxies in between, that the stream is alive.
_KEEPALIVE_SECONDS = 10.0
_STREAM_PATH = re.compile(r"/admin/projects/(\d{1,18})/board/stream")
_MAX_TOKEN_LENGTH = 64
_KEEPALIVE_EVENT = b"event: still\ndata:\n\n"
_UNAVAILABLE_EVENT = b"event: away\ndata:\n\n"
_RESPONSE_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store"),
    # Without this nginx buffers the stream.
    (b"x-accel-buffering", b"no"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"x-content-type-options", b"nosniff"),
    (b"cross-origin-resource-policy", b"same-origin"),
]
_log = logging.getLogger(__name__)


@dataclass(eq=False)
class _Stream:
    """One open stream. A new event replaces one that is not sent yet, so a slow client skips events."""

    session_id: int
    project_id: int
    version: str
    pending: bytes = b""
    closed: bool = False
    updated: asyncio.Event = field(default_factory=asyncio.Event)

    def enqueue(self, content: bytes) -> None:
        self.pending = content
        self.updated.set()

    def close(self) -> None:
        self.closed = True
        self.updated.set()


class BoardStreams:
    """The open streams of one process."""

    def __init__(self, app: Flask, settings: Settings) -> None:
        self._app = app
        self._db: Database = app.extensions["bus.db"]
        self._options: WebOptions = app.extensions["bus.options"]
        self._cookie_name = app.config["BUS_COOKIE_NAME"]
        self._allowed_hosts = settings.allowed_hosts
        self._streams: set[_Stream] = set()
        self._rendered: dict[int, tuple[str, bytes]] = {}
        self._poll_task: asyncio.Task[None] | None = None
        self._draining = False
        app.extensions["bus.metrics"].add_source(
            lambda: [gauge("web_open_boards", "Boards with an open stream.", len(self._streams))]
        )

    def __len__(self) -> int:
        """The number of open streams."""
        return len(self._streams)

    def is_stream_request(self, scope: Scope) -> bool:
        """Whether a request is for a board's stream; a cheap check that runs on every request."""
        path: str = scope["path"]
        return path.endswith("/board/stream") and scope["method"] == "GET"

    def close_all(self) -> None:
        """Close every stream and accept no more, before a shutdown; clients reconnect to another process."""
        self._draining = True
        for stream in self._streams:
            stream.close()

    async def serve(self, scope: Scope, receive: Receive, send: Send) -> bool:
        """Serve a board's stream until the client disconnects.

        Returns:
            False, without having sent anything, where Flask has to answer: the viewer is not signed in, the project is
            not theirs, the database does not answer, or there are too many streams.
        """
        if self._draining or len(self._streams) >= MAX_STREAMS:
            return False
        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        query = parse_qs(scope["query_string"].decode("latin-1"))
        version = headers.get(b"last-event-id") or query.get("mark", [""])[0]
        loop = asyncio.get_running_loop()
        authorized = await loop.run_in_executor(None, self._authorize, scope["path"], headers)
        if authorized is None:
            return False
        session_id, project_id = authorized
        if sum(open_stream.session_id == session_id for open_stream in self._streams) >= MAX_STREAMS_PER_SESSION:
            return False
        stream = _Stream(session_id, project_id, version)
        self._streams.add(stream)
        disconnect = asyncio.ensure_future(_close_on_disconnect(receive, stream))
        if self._poll_task is None or self._poll_task.done():
            self._poll_task = asyncio.ensure_future(self._poll_loop())
        try:
            request_id = accept_correlation_id(headers.get(b"x-request-id")).encode()
            response_headers = [*_RESPONSE_HEADERS, (b"x-request-id", request_id)]
            await send({"type": "http.response.start", "status": 200, "headers": response_headers})
            # The first event is immediate, so that the client learns at once whether a proxy buffers.
            content = b"retry: 500\n" + _KEEPALIVE_EVENT
            while not stream.closed:
                await send({"type": "http.response.body", "body": content, "more_body": True})
                with suppress(TimeoutError):
                    await asyncio.wait_for(stream.updated.wait(), _KEEPALIVE_SECONDS)
                stream.updated.clear()
                content, stream.pending = stream.pending or _KEEPALIVE_EVENT, b""
            await send({"type": "http.response.body", "body": b""})
        finally:
            self._streams.discard(stream)
            disconnect.cancel()
        return True

    def _authorize(self, path: str, headers: MutableMapping[bytes, str]) -> tuple[int, int] | None:
        """The ids of the session and of the project of a stream, or None if it is not allowed."""
        match = _STREAM_PATH.fullmatch(path)
        token = _read_session_token(headers.get(b"cookie", ""), self._cookie_name)
        if match is None or token is None or not is_allowed(self._allowed_hosts, headers.get(b"host", "")):
            return None
        project_id = int(match[1])
        try:
            with self._db.connection() as conn:
                session = sessions.find_session(conn, token, idle_timeout=self._options.session_idle_timeout)
                # A proxy asserts an identity for one request only.
                if session is None or session.method.startswith(sessions.PROXY_METHOD):
                    return None
                if not projects.is_owned_by(conn, session.owner.id, project_id):
                    return None
        except (BusError, psycopg.Error):
            return None
        return session.id, project_id

    async def _poll_loop(self) -> None:
        """Check for changes as long as streams are open."""
        loop = asyncio.get_running_loop()
        while self._streams:
            await asyncio.sleep(_POLL_SECONDS)
            watched = {(stream.session_id, stream.project_id) for stream in self._streams}
            try:
                valid_sessions, versions = await loop.run_in_executor(None, self._refresh, watched)
            except Exception as error:  # noqa: BLE001 - a board that fails to render must not end the loop
                if not isinstance(error, BusError | psycopg.Error):
                    _log.exception("a board could not be rendered")
                for stream in self._streams:
                    stream.enqueue(_UNAVAILABLE_EVENT)
                continue
            for stream in self._streams:
                version = versions.get(stream.project_id)
                if version is None or stream.session_id not in valid_sessions:
                    # Signed out, or the project is deleted: when the client reconnects, the page answers so.
                    stream.close()
                elif version != stream.version:
                    stream.version = version
                    stream.enqueue(self._rendered[stream.project_id][1])
        self._rendered.clear()

    def _refresh(self, watched: Iterable[tuple[int, int]]) -> tuple[set[int], dict[int, str]]:
        """The valid sessions and the versions of the boards; renders the boards that have changed."""
        watched = list(watched)
        with self._db.connection() as conn:
            valid_sessions = sessions.keep_alive(
                conn, {session_id for session_id, _ in watched}, idle_timeout=self._options.session_idle_timeout
            )
            versions = board.list_versions(conn, {project_id for _, project_id in watched})
            for project_id, version in versions.items():
                rendered = self._rendered.get(project_id)
                if rendered is None or rendered[0] != version:
                    # The board is read after its version: a change in between is sent again with the next version.
                    event = self._render_event(conn, project_id, version)
                    self._rendered[project_id] = (version, event)
        for project_id in self._rendered.keys() - versions.keys():
            del self._rendered[project_id]
        return valid_sessions, versions

    def _render_event(self, conn: Connection, project_id: int, version: str) -> bytes:
        snapshot = board.get_board(conn, project_id)
        people = frozenset(participant_queries.list_people(conn, project_id))
        with self._app.test_request_context():
            identity.set_page_context(projects.get(conn, project_id).owner, people)
            content = render_template("board/_live.html", board=snapshot, project={"id": project_id})
        lines = "".join(f"data: {line}\n" for line in content.splitlines())
        return f"id: {version}\n{lines}\n".encode()


def _read_session_token(cookie_header: str, cookie_name: str) -> str | None:
    try:
        morsel = SimpleCookie(cookie_header).get(cookie_name)
    except CookieError:
        return None
    return morsel.value if morsel is not None and 0 < len(morsel.value) <= _MAX_TOKEN_LENGTH else None


async def _close_on_disconnect(receive: Receive, stream: _Stream) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    stream.close()
