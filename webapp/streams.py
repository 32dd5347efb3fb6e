"""Live boards by server-sent events: a board is made once when it has changed, and sent to all who watch it.

All streams of a process stand on one loop. Twice a second two statements ask for every board that is watched whether it
has moved and for every session whether it still holds; nobody is sent anything on the word of an older answer. A stream
that cannot be opened here is left to the page, which says no to it; the script asks now and then instead.
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
from bus.db import Database
from bus.errors import BusError
from bus.operations.logs import accept_correlation_id
from bus.operations.metrics import gauge
from bus.tenancy import projects
from webapp.options import WebOptions

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

MAX_STREAMS = 1_000
"""How many streams a process holds; further boards ask now and then."""
MAX_STREAMS_PER_SESSION = 20
"""How many of them one session may hold."""

_POLL_SECONDS = 0.5
# Sent so that whoever watches, and every proxy between, knows that the stream lives.
_KEEPALIVE_SECONDS = 10.0
_STREAM_PATH = re.compile(r"/admin/projects/(\d{1,18})/board/stream")
_MAX_TOKEN_LENGTH = 64
_KEEPALIVE_EVENT = b"event: still\ndata:\n\n"
_UNAVAILABLE_EVENT = b"event: away\ndata:\n\n"
_RESPONSE_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store"),
    # nginx keeps back what it is not told to let through.
    (b"x-accel-buffering", b"no"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"x-content-type-options", b"nosniff"),
    (b"cross-origin-resource-policy", b"same-origin"),
]
_log = logging.getLogger(__name__)


@dataclass(eq=False)
class _Stream:
    """One open board. What is to be sent next replaces what has not been sent yet: a slow reader skips."""

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
    """The open boards of one process, on the loop that serves it."""

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
        app.extensions["bus.metrics"].add(
            lambda: [gauge("web_open_boards", "Boards that are kept up to date by a stream.", len(self._streams))]
        )

    def __len__(self) -> int:
        """How many are open."""
        return len(self._streams)

    def is_stream_request(self, scope: Scope) -> bool:
        """Whether a request asks for a board's stream; this costs next to nothing."""
        path: str = scope["path"]
        return path.endswith("/board/stream") and scope["method"] == "GET"

    def close_all(self) -> None:
        """End every stream, since the process is about to stop; its reader opens the next one elsewhere."""
        self._draining = True
        for stream in self._streams:
            stream.close()

    async def serve(self, scope: Scope, receive: Receive, send: Send) -> bool:
        """Serve a board's stream until its reader goes, or says nothing and returns False where the page has to say no:
        nobody is signed in, the project is not theirs, the database is away, or there are too many.
        """
        if self._draining or len(self._streams) >= MAX_STREAMS:
            return False
        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        query = parse_qs(scope["query_string"].decode("latin-1"))
        known = headers.get(b"last-event-id") or query.get("mark", [""])[0]
        loop = asyncio.get_running_loop()
        found = await loop.run_in_executor(None, self._authorize, scope["path"], headers)
        if found is None or sum(one.session_id == found[0] for one in self._streams) >= MAX_STREAMS_PER_SESSION:
            return False
        stream = _Stream(*found, known)
        self._streams.add(stream)
        gone = asyncio.ensure_future(_close_on_disconnect(receive, stream))
        if self._poll_task is None or self._poll_task.done():
            self._poll_task = asyncio.ensure_future(self._poll_loop())
        try:
            said = [*_RESPONSE_HEADERS, (b"x-request-id", accept_correlation_id(headers.get(b"x-request-id")).encode())]
            await send({"type": "http.response.start", "status": 200, "headers": said})
            # At once, so that the reader knows that nothing keeps it back.
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
            gone.cancel()
        return True

    def _authorize(self, path: str, headers: MutableMapping[bytes, str]) -> tuple[int, int] | None:
        """The session and the project of a stream that may be opened."""
        matched = _STREAM_PATH.fullmatch(path)
        token = _read_session_token(headers.get(b"cookie", ""), self._cookie_name)
        if matched is None or token is None or not is_allowed(self._allowed_hosts, headers.get(b"host", "")):
            return None
        project_id = int(matched[1])
        try:
            with self._db.connection() as conn:
                session = sessions.find_session(conn, token, idle_timeout=self._options.session_idle_timeout)
                # Who is there by the word of a proxy is there for one request.
                if session is None or session.method.startswith(sessions.PROXY_METHOD):
                    return None
                if not projects.is_owned_by(conn, session.owner.id, project_id):
                    return None
        except (BusError, psycopg.Error):
            return None
        return session.id, project_id

    async def _poll_loop(self) -> None:
        """Look for news as long as anybody watches."""
        loop = asyncio.get_running_loop()
        while self._streams:
            await asyncio.sleep(_POLL_SECONDS)
            watched = {(one.session_id, one.project_id) for one in self._streams}
            try:
                alive, marks = await loop.run_in_executor(None, self._refresh, watched)
            except Exception as error:  # noqa: BLE001 - one board that cannot be made must not silence the others for good
                if not isinstance(error, BusError | psycopg.Error):
                    _log.exception("a board could not be made")
                for stream in self._streams:
                    stream.enqueue(_UNAVAILABLE_EVENT)
                continue
            for stream in self._streams:
                mark = marks.get(stream.project_id)
                if mark is None or stream.session_id not in alive:
                    # Signed out, or the project is gone: opened again, the page says so.
                    stream.close()
                elif mark != stream.version:
                    stream.version = mark
                    stream.enqueue(self._rendered[stream.project_id][1])
        self._rendered.clear()

    def _refresh(self, watched: Iterable[tuple[int, int]]) -> tuple[set[int], dict[int, str]]:
        """Which sessions still hold, and the marks of the projects; boards that have moved are made."""
        with self._db.connection() as conn:
            alive = sessions.keep_alive(
                conn, {one for one, _ in watched}, idle_timeout=self._options.session_idle_timeout
            )
            marks = board.list_versions(conn, {one for _, one in watched})
            for project_id, mark in marks.items():
                made = self._rendered.get(project_id)
                if made is None or made[0] != mark:
                    # The mark of before is kept: what was read beyond it is sent again with the next.
                    self._rendered[project_id] = (
                        mark,
                        self._render_event(board.get_board(conn, project_id), project_id, mark),
                    )
        for gone in self._rendered.keys() - marks.keys():
            del self._rendered[gone]
        return alive, marks

    def _render_event(self, snapshot: board.Board, project_id: int, version: str) -> bytes:
        with self._app.test_request_context():
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
