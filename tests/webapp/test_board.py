"""The live board: what its script is answered, and what people in two browsers see of agents at work."""

import time
from collections.abc import Iterator
from datetime import timedelta

import httpx2
import pytest
from playwright.sync_api import Browser as Chromium
from playwright.sync_api import Page, expect

from bus import posts, presence, sessions
from bus.db import Database
from bus.settings import Settings
from tests.factories import Agent, make_agent, make_owner, make_project
from tests.mcp_gateway.processes import running
from tests.webapp.browser import PHONE, opened
from tests.webapp.live import live
from tests.webapp.steps import call, sign_in
from tests.webapp.visits import Browser, Web
from tests.webapp.worlds import World, fill, inside
from webapp.boards import Looks

_PART = {"X-Part": "1"}


def test_a_board_that_has_not_changed_is_an_empty_answer(
    ada: Browser, world: World, db: Database, caplog: pytest.LogCaptureFixture
) -> None:
    address = inside(world, "board/")
    first = ada.get(address, headers=_PART)
    assert first.status_code == 200
    assert "Migration 42 is ready" in first.text
    assert "<html" not in first.text
    again = ada.get(address, headers={**_PART, "If-None-Match": first.headers["ETag"]})
    # The mark turns every 30 s; the one after that is of the same turn.
    if again.status_code == 200:
        again = ada.get(address, headers={**_PART, "If-None-Match": again.headers["ETag"]})
    with caplog.at_level("INFO", "webapp.request"):
        again = ada.get(address, headers={**_PART, "If-None-Match": again.headers["ETag"]})
    assert (again.status_code, again.data, caplog.records) == (304, b"", [])
    with db.write() as conn:
        agent = make_agent(conn, world.full, "late-one", lane="core")
        posts.create(conn, agent.ctx, "just now", to_lane="review", subject="Brand new")
    changed = ada.get(address, headers={**_PART, "If-None-Match": again.headers["ETag"]})
    assert changed.status_code == 200
    assert "Brand new" in changed.text
    # The page itself bears the mark from which its script goes on.
    assert f'data-mark="{changed.headers["ETag"].strip(chr(34))}"' in ada.get(address).text


def test_a_board_that_was_made_for_one_is_not_shown_to_another(
    site: Web, ada: Browser, world: World, db: Database
) -> None:
    with db.write() as conn:
        other = make_owner(conn, "eve")
        mine = make_project(conn, "apollo", other)
    with db.call() as conn:
        eve = site.browser().sign_in(conn, other)
    for _ in range(2):
        assert ada.get(inside(world, "board/"), headers=_PART).status_code == 200
        assert eve.get(inside(world, "board/"), headers=_PART).status_code == 404
        assert "Migration 42" not in eve.get(f"/admin/projects/{mine.id}/board/", headers=_PART).text
    assert site.browser().get(inside(world, "board/"), headers=_PART).status_code == 303


@pytest.fixture
def mcp(database_url: str) -> Iterator[str]:
    with running(database_url) as (process,):
        yield process.url


def test_a_handoff_and_its_ack_show_up_in_two_browsers_while_they_happen(
    database_url: str, db: Database, mcp: str, chromium: Chromium
) -> None:
    with db.write() as conn:
        owner = make_owner(conn, "ada")
        project = make_project(conn, "apollo", owner)
        sender, receiver = make_agent(conn, project, "writer"), make_agent(conn, project, "reader", lane="review")
        presence.register(conn, receiver.ctx, "review")
    with live(database_url, MCP_URL=mcp) as url:
        board = f"{url}/admin/projects/{project.id}/board/"
        with opened(chromium) as desk, opened(chromium, viewport=PHONE) as phone:
            for page in (desk, phone):
                sign_in(page, url, db, owner)
                page.goto(board)
                expect(page.locator("#live-state")).to_have_text("live")
                page.evaluate("document.documentElement.dataset.kept = 'yes'")
                assert float(page.locator("#live-board").get_attribute("data-every") or 9) <= 1.5
            # Whoever reads with the keyboard keeps their place.
            desk.get_by_role("link", name="reader").focus()
            desk.get_by_label("Read handoffs aloud").check()
            desk.get_by_role("link", name="reader").focus()

            sent = call(mcp, sender.token, "post", to_lane="review", subject="Index 42 is ready", body="Look, please.")
            seen = _appears(desk, phone, "waiting")
            assert call(mcp, receiver.token, "ack", post_ids=[sent["post_id"]])
            acked = _appears(desk, phone, "acked")
            print(f"seen after {seen:.2f} s, acked after {acked:.2f} s")

            item = desk.locator(f"[data-key=h{sent['post_id']}]")
            expect(item).to_contain_text("by ada/reader")
            expect(desk.locator("#announce")).to_contain_text("ada/reader acked Index 42 is ready", timeout=10_000)
            assert desk.evaluate("document.activeElement.textContent") == "reader"
            for page in (desk, phone):
                assert page.evaluate("document.documentElement.dataset.kept") == "yes"
            _leases_run_down(desk, mcp, sender)
            _paused_means_paused(desk, mcp, sender)


def _appears(desk: Page, phone: Page, state: str) -> float:
    """Wait until both boards show the handoff in this state; returns how many seconds that took."""
    started = time.monotonic()
    for page in (desk, phone):
        handoff = page.locator(".handoff", has_text="Index 42 is ready")
        expect(handoff.locator(".state")).to_contain_text(state)
    return time.monotonic() - started


def _leases_run_down(page: Page, mcp: str, agent: Agent) -> None:
    call(mcp, agent.token, "lease", surface="src/**", ttl_seconds=5)
    left = page.locator(".lease [data-left]")
    expect(left).to_contain_text("s left")
    # Over by the clock alone: nobody wrote anything.
    expect(left).to_have_text("over")


def _paused_means_paused(page: Page, mcp: str, agent: Agent) -> None:
    page.get_by_role("button", name="Pause").press("Enter")
    expect(page.locator("#live-state")).to_have_text("paused")
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    call(mcp, agent.token, "claim", sequence="adr")
    page.wait_for_timeout(2_000)
    assert asked == []
    expect(page.locator(".numbers")).to_contain_text("No number was claimed yet.")
    # Going on shows what happened meanwhile.
    page.get_by_role("button", name="Pause").press("Enter")
    expect(page.locator(".numbers")).to_contain_text("ada/writer")


def test_a_look_that_needs_no_page_is_answered_as_the_page_answers(database_url: str, site: Web, db: Database) -> None:
    with db.write() as conn:
        world = fill(conn)
        eve = make_owner(conn, "eve")
    address = inside(world, "board/")
    with live(database_url) as url:
        with db.call() as conn:
            token, other = (
                sessions.open_(conn, one.id, method="link", lasts=timedelta(hours=1)) for one in (world.owner, eve)
            )
        # The live web is reached without TLS.
        looks = Looks(site.app, Settings.from_env({"DATABASE_URL": database_url, "PUBLIC_URL": url}))
        looks._cookie = "llm-bus"

        def ask(cookie: str, **headers: str) -> httpx2.Response:
            return httpx2.get(url + address, headers={"X-Part": "1", "Cookie": cookie, **headers})

        # Made by the page, and from then on without it.
        first = ask(f"llm-bus={token}")
        second = ask(f"a=b; llm-bus={token}; c=d")
        assert (first.status_code, first.text) == (second.status_code, second.text)
        assert "set-cookie" not in second.headers
        same = ask(f"llm-bus={token}", **{"If-None-Match": second.headers["ETag"]})
        assert (same.status_code, same.content) == (304, b"")
        for name in ("etag", "cache-control", "content-type", "x-content-type-options"):
            assert first.headers[name] == second.headers[name]

        def is_answered(cookie: str, **headers: str) -> bool:
            sent = {"host": url.removeprefix("http://"), "x-part": "1", "cookie": cookie, **headers}
            raw = [(name.encode(), value.encode()) for name, value in sent.items()]
            found = looks.look(address, raw)
            return found is not None

        mark = first.headers["ETag"]
        good = {"if-none-match": mark}
        assert is_answered(f"llm-bus={token}", **good)
        # What is unusual goes to the page, which decides.
        assert not is_answered(f"llm-bus={other}", **good)
        assert not is_answered("llm-bus=nobody", **good)
        assert not is_answered("", **good)
        assert not is_answered(f"llm-bus={token}", host="evil.example", **good)
        assert ask(f"llm-bus={other}").status_code == 404
        assert ask("llm-bus=nobody").status_code == 303
        assert ask(f"llm-bus={token}", Host="evil.example").status_code == 421
        with db.write() as conn:
            sessions.end_all(conn, world.owner.id)
        assert not is_answered(f"llm-bus={token}", **good)
        assert ask(f"llm-bus={token}", **{"If-None-Match": mark}).status_code == 303
