"""Live boards over server-sent events: a changed board is rendered once and sent to all of its open streams.

All streams of a process share one event loop. Twice a second the versions of all boards with open streams are read, and
whether the sessions and share links of their viewers are still valid; nothing is sent on the result of an earlier
check. A stream that cannot be opened is passed on to the Flask page, which declines it; the script then polls instead.
Source: docs/decisions/0024-live-board.md
"""

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable, Collection, MutableMapping
from contextlib import suppress
from dataclasses import dataclass, field
from http.cookies import CookieError, SimpleCookie
from typing import Any, NamedTuple
from urllib.parse import parse_qs

import psycopg
from flask import Flask, render_template

from bus.auth import sessions
from bus.config.settings import Settings, is_allowed
from bus.coordination import board, board_rails
from bus.db import Connection, Database
from bus.errors import BusError
from bus.operations.logs import accept_correlation_id
from bus.operations.metrics import gauge
from bus.rules.member_rights import has_right
from bus.tenancy import memberships, owners, participant_queries, projects, share_links
from webapp import identity
from webapp.settings import WebOptions

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

MAX_STREAMS = 1_000
"""Open streams of a process; further boards poll."""
MAX_STREAMS_PER_SESSION = 20
"""Open streams of one session, or of one share link."""
MAX_SHARED_STREAMS = 300
"""Open streams of all share links of a process, so that owners keep their places."""

_POLL_SECONDS = 0.5
# Shows the browser, and proxies in between, that the stream is alive.
_KEEPALIVE_SECONDS = 10.0
_STREAM_PATH = re.compile(r"/admin/projects/(\d{1,18})/board/stream")
_SHARED_STREAM_PATH = re.compile(r"/shared/([\w-]{1,64})/stream", re.ASCII)
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


class _Viewer(NamedTuple):
    """Who may see a board: a session, or everyone with a share link; `id` is that of either.

    Attributes:
        owner_id: of the session; None for a share link.
    """

    is_shared: bool
    id: int
    owner_id: int | None = None


class _BoardKey(NamedTuple):
    """A board as it is rendered: viewers of share links get no links to pages, and a viewer none to add an agent."""

    project_id: int
    is_shared: bool
    may_act: bool = False


@dataclass(eq=False)
class _Stream:
    """One open stream. A new event replaces one that is not sent yet, so a slow client skips events."""

    viewer: _Viewer
    board: _BoardKey
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
        self._rendered: dict[_BoardKey, tuple[str, bytes]] = {}
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
        return path.endswith("/stream") and scope["method"] == "GET"

    def close_all(self) -> None:
        """Close every stream and accept no more, before a shutdown; clients reconnect to another process."""
        self._draining = True
        for stream in self._streams:
            stream.close()

    async def serve(self, scope: Scope, receive: Receive, send: Send) -> bool:
        """Serve a board's stream until the client disconnects.

        Returns:
            False, without having sent anything, where Flask has to answer: the viewer may not see the board, the
            database does not answer, or there are too many streams.
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
        viewer, board_key = authorized
        if sum(open_stream.viewer == viewer for open_stream in self._streams) >= MAX_STREAMS_PER_SESSION:
            return False
        if viewer.is_shared and sum(one.viewer.is_shared for one in self._streams) >= MAX_SHARED_STREAMS:
            return False
        stream = _Stream(viewer, board_key, version)
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

    def _authorize(self, path: str, headers: MutableMapping[bytes, str]) -> tuple[_Viewer, _BoardKey] | None:
        """The viewer and the board of a stream, or None if it is not allowed."""
        if not is_allowed(self._allowed_hosts, headers.get(b"host", "")):
            return None
        own, shared = _STREAM_PATH.fullmatch(path), _SHARED_STREAM_PATH.fullmatch(path)
        with suppress(BusError, psycopg.Error), self._db.connection() as conn:
            if own is not None:
                return self._authorize_owner(conn, int(own[1]), headers.get(b"cookie", ""))
            if shared is not None and (link := share_links.find_shared_board(conn, shared[1])) is not None:
                return _Viewer(True, link.link_id), _BoardKey(link.project_id, True)
        return None

    def _authorize_owner(
        self, conn: Connection, project_id: int, cookie_header: str
    ) -> tuple[_Viewer, _BoardKey] | None:
        token = _read_session_token(cookie_header, self._cookie_name)
        if token is None:
            return None
        session = sessions.find_session(conn, token, idle_timeout=self._options.session_idle_timeout)
        # A proxy asserts an identity for one request only.
        if session is None or session.method.startswith(sessions.PROXY_METHOD):
            return None
        role = memberships.find_role(conn, session.owner.id, project_id)
        if role is None:
            return None
        return _Viewer(False, session.id, session.owner.id), _BoardKey(project_id, False, has_right(role, "act"))

    async def _poll_loop(self) -> None:
        """Check for changes as long as streams are open."""
        loop = asyncio.get_running_loop()
        while self._streams:
            await asyncio.sleep(_POLL_SECONDS)
            watched = {(stream.viewer, stream.board) for stream in self._streams}
            try:
                current, versions = await loop.run_in_executor(None, self._refresh, watched)
            except Exception as error:  # noqa: BLE001 - a board that fails to render must not end the loop
                if not isinstance(error, BusError | psycopg.Error):
                    _log.exception("a board could not be rendered")
                for stream in self._streams:
                    stream.enqueue(_UNAVAILABLE_EVENT)
                continue
            for stream in self._streams:
                board_key = current.get((stream.viewer, stream.board))
                version = None if board_key is None else versions.get(board_key)
                if board_key is None or version is None:
                    # No longer allowed, or the project is deleted: when the client reconnects, the page answers so.
                    stream.close()
                elif version != stream.version or board_key != stream.board:
                    stream.board = board_key
                    stream.version = version
                    stream.enqueue(self._rendered[stream.board][1])
        self._rendered.clear()

    def _refresh(
        self, watched: Collection[tuple[_Viewer, _BoardKey]]
    ) -> tuple[dict[tuple[_Viewer, _BoardKey], _BoardKey], dict[_BoardKey, str]]:
        """The boards that viewers may still see, by their present role, with their versions; renders changed boards."""
        viewers = {viewer for viewer, _ in watched}
        with self._db.connection() as conn:
            session_ids = {viewer.id for viewer in viewers if not viewer.is_shared}
            valid_sessions = sessions.keep_alive(conn, session_ids, idle_timeout=self._options.session_idle_timeout)
            roles = memberships.list_roles(
                conn, {(viewer.owner_id, key.project_id) for viewer, key in watched if viewer.owner_id is not None}
            )
            valid_links = share_links.list_valid(conn, {viewer.id for viewer in viewers if viewer.is_shared})
            current: dict[tuple[_Viewer, _BoardKey], _BoardKey] = {}
            for viewer, key in watched:
                if viewer.owner_id is None:
                    if viewer.id in valid_links:
                        current[viewer, key] = key
                elif viewer.id in valid_sessions and (role := roles.get((viewer.owner_id, key.project_id))) is not None:
                    current[viewer, key] = key._replace(may_act=has_right(role, "act"))
            boards = set(current.values())
            by_project = board.list_versions(conn, {board_key.project_id for board_key in boards})
            versions = {key: by_project[key.project_id] for key in boards if key.project_id in by_project}
            for key, version in versions.items():
                rendered = self._rendered.get(key)
                if rendered is None or rendered[0] != version:
                    # The board is read after its version: a change in between is sent again with the next version.
                    self._rendered[key] = (version, self._render_event(conn, key, version))
        for key in self._rendered.keys() - versions.keys():
            del self._rendered[key]
        return current, versions

    def _render_event(self, conn: Connection, key: _BoardKey, version: str) -> bytes:
        snapshot = board.get_board(conn, key.project_id)
        people = frozenset(participant_queries.list_people(conn, key.project_id))
        with self._app.test_request_context():
            handle = projects.get(conn, key.project_id).owner
            identity.set_page_context(
                handle,
                people,
                owners.list_former_handles_of(conn, handle),
                has_several_owners=memberships.has_acting_members(conn, key.project_id),
            )
            content = render_template(
                "board/_live.html",
                board=snapshot,
                rails=board_rails.build_rails(snapshot),
                project={"id": key.project_id},
                is_shared=key.is_shared,
                may_act=key.may_act,
            )
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
