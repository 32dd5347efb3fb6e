"""Looks at live boards, answered beside Flask: hundreds of boards ask every other second, and mostly nothing is new.

A look that finds the board as it was, or as it was made for somebody else already, needs the session, the project and
the board's mark, and nothing that Flask does. Every other look, and everything that is unusual, goes to the page, which
answers the same; a test sends both the same requests.
Source: docs/decisions/0024-live-board.md
"""

import re
import threading
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie

import psycopg
from flask import Flask

from bus import board, sessions
from bus.db import Database
from bus.errors import BusError
from bus.settings import Settings, serves
from webapp.options import WebOptions

_PATH = re.compile(r"/admin/projects/(\d{1,18})/board/")
_KEPT = 256
_LONGEST_TOKEN = 64
# What the page answers with as well (webapp/headers.py); a part is put into a page by its script, and is none itself.
_HEADERS = [
    (b"cache-control", b"private, no-cache"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"x-content-type-options", b"nosniff"),
    (b"cross-origin-resource-policy", b"same-origin"),
]


class Made:
    """Boards as they were made, by project and mark; the ones used last are kept. Of one application."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._found: OrderedDict[tuple[int, str], str] = OrderedDict()

    def get(self, project_id: int, mark: str) -> str | None:
        """The board of a project at a mark, if it is kept."""
        with self._lock:
            found = self._found.get((project_id, mark))
            if found is not None:
                self._found.move_to_end((project_id, mark))
            return found

    def put(self, project_id: int, mark: str, made: str) -> None:
        """Keep a board."""
        with self._lock:
            self._found[project_id, mark] = made
            while len(self._found) > _KEPT:
                self._found.popitem(last=False)


@dataclass(frozen=True, slots=True)
class Answer:
    """What a look is answered with."""

    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes


class Looks:
    """Answers looks at the boards of one application, as far as that needs nothing of Flask."""

    def __init__(self, app: Flask, settings: Settings) -> None:
        self._db: Database = app.extensions["bus.db"]
        self._made: Made = app.extensions["bus.boards"]
        self._options: WebOptions = app.extensions["bus.options"]
        self._cookie = app.config["BUS_COOKIE_NAME"]
        self._hosts = settings.allowed_hosts

    def is_look(self, method: str, path: str, headers: Iterable[tuple[bytes, bytes]]) -> bool:
        """Whether a request may be a look; this costs next to nothing."""
        return method == "GET" and path.endswith("/board/") and any(name == b"x-part" for name, _ in headers)

    def look(self, path: str, headers: Iterable[tuple[bytes, bytes]]) -> Answer | None:
        """The answer to a look, or None where the page has to answer: nobody is signed in, somebody vouches for who is,
        the project is not theirs, the database is away, or the board has to be made."""
        matched = _PATH.fullmatch(path)
        said = {name: value.decode("latin-1") for name, value in headers}
        token = self._token(said.get(b"cookie", ""))
        if matched is None or token is None or not serves(self._hosts, said.get(b"host", "")):
            return None
        project_id = int(matched[1])
        try:
            with self._db.call() as conn:
                session = sessions.find(conn, token, idle=self._options.session_idle)
                if session is None or session.method.startswith(sessions.VOUCHED):
                    return None
                mark = board.find_mark(conn, session.owner.id, project_id)
        except (BusError, psycopg.Error):
            return None
        if mark is None:
            return None
        headers_out = [*_HEADERS, (b"etag", f'"{mark}"'.encode())]
        if said.get(b"if-none-match") == f'"{mark}"':
            return Answer(304, headers_out, b"")
        made = self._made.get(project_id, mark)
        if made is None:
            return None
        body = made.encode()
        headers_out += [(b"content-type", b"text/html; charset=utf-8"), (b"content-length", str(len(body)).encode())]
        return Answer(200, headers_out, body)

    def _token(self, cookies: str) -> str | None:
        try:
            morsel = SimpleCookie(cookies).get(self._cookie)
        except CookieError:
            return None
        return morsel.value if morsel is not None and 0 < len(morsel.value) <= _LONGEST_TOKEN else None
