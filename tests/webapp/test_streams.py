"""Streams of live boards as an ASGI server drives them: their limits, their end, slow readers, an outage."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import closing
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest
from psycopg import sql

from bus.auth import sessions
from bus.coordination import posts
from bus.db import Database
from tests import servers
from tests.factories import make_agent
from tests.webapp.sample_data import SampleData, project_path
from tests.webapp.web_client import WebApp
from webapp.streams import MAX_STREAMS_PER_SESSION, BoardStreams

_SECONDS = 20


class Reader:
    """Somebody who watches: what was sent so far. `hold` keeps them from reading on."""

    def __init__(self, streams: BoardStreams, scope: dict[str, Any]) -> None:
        self.got: list[bytes] = []
        self.hold = asyncio.Event()
        self.hold.set()
        self._gone = asyncio.Event()
        self.task = asyncio.ensure_future(streams.serve(scope, self._receive, self._send))

    def leave(self) -> None:
        self._gone.set()

    async def until(self, text: bytes) -> None:
        """Wait until this was sent."""
        async with asyncio.timeout(_SECONDS):
            while not any(text in one for one in self.got):
                await asyncio.sleep(0.02)

    async def _receive(self) -> dict[str, Any]:
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Any) -> None:
        self.got.append(message.get("body", b""))
        await self.hold.wait()


@pytest.fixture
def plain(make_web: Callable[..., WebApp]) -> WebApp:
    return make_web(PUBLIC_URL="http://127.0.0.1:8787")


@pytest.fixture
def scope(db: Database, sample: SampleData) -> dict[str, Any]:
    """The request of the owner who opens the board."""
    with db.transaction() as conn:
        token = sessions.open_session(conn, sample.owner.id, method="link", ttl=timedelta(hours=1))
    return {
        "type": "http",
        "method": "GET",
        "path": project_path(sample, "board/stream"),
        "query_string": b"mark=",
        "headers": [(b"host", b"127.0.0.1:8787"), (b"cookie", f"llm-bus={token}".encode())],
    }


@pytest.fixture
def watch(plain: WebApp, scope: dict[str, Any]) -> Callable[[Callable[..., Awaitable[None]]], None]:
    def run(story: Callable[..., Awaitable[None]]) -> None:
        async def told() -> None:
            streams = BoardStreams(plain.app, plain.settings)
            await story(streams, lambda: Reader(streams, scope))
            streams.close_all()

        asyncio.run(told())

    return run


Watch = Callable[[Callable[..., Awaitable[None]]], None]


def test_a_session_holds_so_many_streams_and_no_more(watch: Watch) -> None:
    async def story(streams: BoardStreams, read: Callable[[], Reader]) -> None:
        readers = [read() for _ in range(MAX_STREAMS_PER_SESSION)]
        for one in readers:
            await one.until(b"retry")
        assert await read().task is False
        readers[0].leave()
        assert await readers[0].task is True
        # Another may come in its place.
        again = read()
        await again.until(b"retry")
        # A process that is about to stop lets them all go, and takes no more.
        streams.close_all()
        async with asyncio.timeout(_SECONDS):
            assert (
                await asyncio.gather(again.task, *(one.task for one in readers[1:])) == [True] * MAX_STREAMS_PER_SESSION
            )
        assert await read().task is False

    watch(story)


def test_a_slow_reader_skips_to_the_present(watch: Watch, db: Database, sample: SampleData) -> None:
    async def story(streams: BoardStreams, read: Callable[[], Reader]) -> None:
        slow, quick = read(), read()
        await slow.until(b"Migration 42")
        slow.hold.clear()
        slow.got.clear()
        with db.transaction() as conn:
            agent = make_agent(conn, sample.full_project, "late-one", lane="core")
        for number in range(3):
            with db.transaction() as conn:
                posts.create(conn, agent.ctx, "news", to_lane="review", subject=f"Number {number}")
            await quick.until(f"Number {number}".encode())
        slow.hold.set()
        await slow.until(b"Number 2")
        boards = [one for one in slow.got if one.startswith(b"id: ")]
        # One that was on its way when it stopped to read, and the newest.
        assert len(boards) <= 2
        assert boards[-1].count(b"Number ") >= 3

    watch(story)


def test_an_outage_is_said_and_afterwards_the_board_goes_on(
    watch: Watch, database_url: str, db: Database, sample: SampleData
) -> None:
    name = sql.Identifier(urlsplit(database_url).path.removeprefix("/"))

    def allow(yes: bool) -> None:
        with closing(psycopg.connect(servers.maintenance_url(), autocommit=True)) as conn:
            conn.execute(sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS {}").format(name, sql.Literal(yes)))
            if not yes:
                conn.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s",
                    [urlsplit(database_url).path.removeprefix("/")],
                )

    async def story(streams: BoardStreams, read: Callable[[], Reader]) -> None:
        reader = read()
        await reader.until(b"Migration 42")
        allow(False)
        try:
            await reader.until(b"event: away")
            # Nobody comes in meanwhile: nothing says who they are.
            assert await read().task is False
        finally:
            allow(True)
        # Its connections were cut as well.
        db.close()
        with db.transaction() as conn:
            agent = make_agent(conn, sample.full_project, "late-one", lane="core")
            posts.create(conn, agent.ctx, "news", to_lane="review", subject="After the outage")
        await reader.until(b"After the outage")
        assert not reader.task.done()

    watch(story)
