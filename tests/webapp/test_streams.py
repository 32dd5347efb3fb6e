"""Board streams driven like an ASGI server does: limits, shutdown, slow clients, outages."""

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
from bus.tenancy import memberships
from tests import servers
from tests.concurrency import wait_until_async
from tests.factories import make_agent, make_member
from tests.webapp.sample_data import SampleData, project_path
from tests.webapp.web_client import WebApp
from webapp.streams import MAX_STREAMS_PER_SESSION, BoardStreams

_SECONDS = 20


class Reader:
    """A client and what it has received; clear `hold` to stop it from reading."""

    def __init__(self, streams: BoardStreams, scope: dict[str, Any]) -> None:
        self.got: list[bytes] = []
        self.hold = asyncio.Event()
        self.hold.set()
        self._gone = asyncio.Event()
        self.task = asyncio.ensure_future(streams.serve(scope, self._receive, self._send))

    def leave(self) -> None:
        self._gone.set()

    async def until(self, text: bytes) -> None:
        """Wait until this text has been received."""
        await wait_until_async(lambda: any(text in part for part in self.got), _SECONDS)

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
    """The owner's request for the stream of a board."""
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
        async def run_story() -> None:
            streams = BoardStreams(plain.app, plain.settings)
            await story(streams, lambda: Reader(streams, scope))
            streams.close_all()

        asyncio.run(run_story())

    return run


Watch = Callable[[Callable[..., Awaitable[None]]], None]


def test_the_streams_of_a_session_are_limited(watch: Watch) -> None:
    async def story(streams: BoardStreams, read: Callable[[], Reader]) -> None:
        readers = [read() for _ in range(MAX_STREAMS_PER_SESSION)]
        for one in readers:
            await one.until(b"retry")
        assert await read().task is False
        readers[0].leave()
        assert await readers[0].task is True
        # Its place is free again.
        again = read()
        await again.until(b"retry")
        # Before a shutdown all streams are closed and no more are accepted.
        streams.close_all()
        async with asyncio.timeout(_SECONDS):
            assert (
                await asyncio.gather(again.task, *(one.task for one in readers[1:])) == [True] * MAX_STREAMS_PER_SESSION
            )
        assert await read().task is False

    watch(story)


def test_the_stream_of_a_person_ends_with_their_role(
    watch: Watch, scope: dict[str, Any], db: Database, sample: SampleData
) -> None:
    with db.transaction() as conn:
        member = make_member(conn, sample.full_project, "viewer", "mia")
        token = sessions.open_session(conn, member.id, method="link", ttl=timedelta(hours=1))
    scope["headers"][1] = (b"cookie", f"llm-bus={token}".encode())

    async def story(_: BoardStreams, read: Callable[[], Reader]) -> None:
        reader = read()
        await reader.until(b"api-agent")
        with db.transaction() as conn:
            memberships.remove(conn, sample.full_project.id, member.id, acting_owner_id=sample.owner.id, actor="ada")
        async with asyncio.timeout(_SECONDS):
            assert await reader.task is True
        # And is not opened again.
        assert await read().task is False

    watch(story)


def test_an_open_board_follows_a_change_of_role(
    watch: Watch, scope: dict[str, Any], db: Database, sample: SampleData
) -> None:
    project = sample.empty_project
    with db.transaction() as conn:
        member = make_member(conn, project, "member", "mia")
        token = sessions.open_session(conn, member.id, method="link", ttl=timedelta(hours=1))
    scope["headers"][1] = (b"cookie", f"llm-bus={token}".encode())
    scope["path"] = project_path(sample, "board/stream").replace(f"/{sample.full_project.id}/", f"/{project.id}/")

    async def story(_: BoardStreams, read: Callable[[], Reader]) -> None:
        reader = read()
        await reader.until(b"Add agent")
        reader.got.clear()
        with db.transaction() as conn:
            memberships.set_role(
                conn, project.id, member.id, "viewer", acting_owner_id=sample.owner.id, actor=sample.owner.handle
            )
        await reader.until(b"No participants yet.")
        assert not any(b"Add agent" in part for part in reader.got)
        reader.leave()
        await reader.task

    watch(story)


def test_a_slow_client_skips_to_the_newest_board(watch: Watch, db: Database, sample: SampleData) -> None:
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
        # The one being sent when it stopped reading, and the newest.
        assert len(boards) <= 2
        assert boards[-1].count(b"Number ") >= 3

    watch(story)


def test_streams_report_an_outage_and_recover(
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
            # New streams are declined: sessions cannot be checked.
            assert await read().task is False
        finally:
            allow(True)
        # The connections of the test were terminated as well.
        db.close()
        with db.transaction() as conn:
            agent = make_agent(conn, sample.full_project, "late-one", lane="core")
            posts.create(conn, agent.ctx, "news", to_lane="review", subject="After the outage")
        await reader.until(b"After the outage")
        assert not reader.task.done()

    watch(story)
