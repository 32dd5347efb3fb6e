"""Boards of share links: what they show, to whom, and when they end."""

import asyncio
import re
from collections.abc import Callable
from typing import Any

import pytest

from bus.coordination import posts
from bus.db import Database
from bus.tenancy import owners, projects, share_links
from tests.factories import make_agent
from tests.webapp.sample_data import SampleData, project_path
from tests.webapp.test_streams import Reader
from tests.webapp.web_client import Browser, WebApp, normalize_page
from webapp.streams import MAX_SHARED_STREAMS, BoardStreams


@pytest.fixture
def link(db: Database, sample: SampleData) -> share_links.CreatedShareLink:
    with db.transaction() as conn:
        return share_links.create(conn, sample.full_project.id, ttl_hours=1, actor=sample.owner.handle)


def test_a_shared_board_shows_one_board_and_nothing_else(
    stranger: Browser, ada: Browser, sample: SampleData, link: share_links.CreatedShareLink
) -> None:
    path = f"/shared/{link.token}/"
    for browser in (stranger, ada):
        page = browser.get(path)
        assert page.status_code == 200
        board = page.text.partition('id="live-board"')[2].partition("</main>")[0]
        assert "Who owns the invoices now?" in board
        assert "rewriting the order service" in board
        assert re.findall(r"<(?:a|form|button)\b", board) == []
    page = stranger.get(path)
    assert page.headers["Referrer-Policy"] == "no-referrer"
    assert page.headers["Cache-Control"] == "no-store"
    assert page.headers["X-Robots-Tag"] == "noindex, nofollow"
    assert 'content="noindex, nofollow"' in page.text
    assert "/admin" not in page.text
    part = stranger.get(path, headers={"X-Part": "1"})
    assert "<html" not in part.text
    assert part.headers["Referrer-Policy"] == "no-referrer"
    again = stranger.get(path, headers={"X-Part": "1", "If-None-Match": part.headers["ETag"]})
    assert again.status_code in (200, 304)
    # The link gives no access to anything else.
    assert stranger.get(project_path(sample, "board/")).status_code == 303


_ENDS: dict[str, Callable[[Any, SampleData, share_links.CreatedShareLink], object]] = {
    "expired": lambda conn, _, link: conn.execute(
        "UPDATE share_link SET expires_at = clock_timestamp() WHERE id = %s", (link.id,)
    ),
    "revoked": lambda conn, sample, link: share_links.revoke(conn, sample.full_project.id, link.id, actor="ada"),
    "archived": lambda conn, sample, _: projects.archive(conn, sample.full_project.id, actor="ada"),
    "suspended": lambda conn, sample, _: owners.suspend(conn, sample.owner.id, reason="x", actor="cli"),
}


@pytest.mark.parametrize("end", _ENDS.values(), ids=list(_ENDS))
def test_a_shared_board_that_ended_is_not_found_like_one_that_never_was(
    stranger: Browser, db: Database, sample: SampleData, link: share_links.CreatedShareLink, end: Any
) -> None:
    with db.transaction() as conn:
        end(conn, sample, link)
    unknown = stranger.get(f"/shared/{'x' * 43}/")
    ended = stranger.get(f"/shared/{link.token}/")
    assert (unknown.status_code, ended.status_code) == (404, 404)
    assert "expired or was revoked" in ended.text
    assert normalize_page(ended, link.token) == normalize_page(unknown, "x" * 43)
    for path in (f"/shared/{link.token}/stream", f"/shared/{'x' * 43}/stream", "/shared/x/", f"/shared/{'x' * 99}/"):
        assert stranger.get(path).status_code == 404


def test_requests_for_shared_boards_are_limited(
    make_web: Callable[..., WebApp], link: share_links.CreatedShareLink
) -> None:
    browser = make_web(SHARED_BOARD_PER_MINUTE="2").new_browser()
    answers = [browser.get(f"/shared/{token}/") for token in (link.token, "x" * 43, link.token)]
    assert [answer.status_code for answer in answers] == [200, 404, 429]
    assert int(answers[2].headers["Retry-After"]) > 0


def test_an_owner_creates_and_revokes_a_link(ada: Browser, stranger: Browser, sample: SampleData) -> None:
    page = project_path(sample, "share/")
    ada.get(page)
    created = ada.submit("", ttl_hours="24")
    card = ada.get(created.location).text
    (path,) = re.findall(r"https://bus\.example\.org(/shared/[\w-]{43}/)", card)
    assert ada.get(created.location).status_code == 404
    assert stranger.get(path).status_code == 200
    listed = ada.get(page).text
    assert path.split("/")[2] not in listed
    newest, *_ = re.findall(r'action="([^"]+/revoke)"', listed)
    ada.submit(newest)
    assert "Share link revoked." in ada.get(page).text
    assert stranger.get(path).status_code == 404
    ada.get(page)
    assert ada.submit("", ttl_hours="9999").status_code == 400
    audit = ada.get("/admin/audit/").text
    assert "share_link.create" in audit
    assert "share_link.revoke" in audit


def _scope(token: str) -> dict[str, Any]:
    return {
        "type": "http",
        "method": "GET",
        "path": f"/shared/{token}/stream",
        "query_string": b"mark=",
        "headers": [(b"host", b"127.0.0.1:8787")],
    }


def test_a_shared_stream_shows_changes_and_ends_with_its_link(
    make_web: Callable[..., WebApp], db: Database, sample: SampleData, link: share_links.CreatedShareLink
) -> None:
    web = make_web(PUBLIC_URL="http://127.0.0.1:8787")

    async def story() -> None:
        streams = BoardStreams(web.app, web.settings)
        assert await Reader(streams, _scope("x" * 43)).task is False
        reader = Reader(streams, _scope(link.token))
        await reader.until(b"Who owns the invoices now?")
        with db.transaction() as conn:
            agent = make_agent(conn, sample.full_project, "late-one", lane="core")
            posts.create(conn, agent.ctx, "just now", to_lane="core", subject="Brand new")
        await reader.until(b"Brand new")
        assert b"<a " not in b"".join(reader.got)
        with db.transaction() as conn:
            share_links.revoke(conn, sample.full_project.id, link.id, actor="ada")
        async with asyncio.timeout(20):
            assert await reader.task is True
        assert await Reader(streams, _scope(link.token)).task is False

    asyncio.run(story())


def test_streams_of_share_links_leave_places_to_owners(
    make_web: Callable[..., WebApp], link: share_links.CreatedShareLink, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert MAX_SHARED_STREAMS < 1_000
    monkeypatch.setattr("webapp.streams.MAX_SHARED_STREAMS", 1)
    web = make_web(PUBLIC_URL="http://127.0.0.1:8787")

    async def story() -> None:
        streams = BoardStreams(web.app, web.settings)
        first = Reader(streams, _scope(link.token))
        await first.until(b"retry")
        assert await Reader(streams, _scope(link.token)).task is False
        first.leave()
        assert await first.task is True

    asyncio.run(story())
