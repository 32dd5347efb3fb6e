"""The live board: responses to its script, and updates in two browsers while agents work."""

import re
import time
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import httpx2
import pytest
from playwright.sync_api import Browser as Chromium
from playwright.sync_api import Page, expect

from bus.auth import sessions
from bus.coordination import posts, presence
from bus.db import Database
from tests.factories import Agent, make_agent, make_owner, make_project
from tests.mcp_gateway.processes import running_gateways
from tests.webapp.browser import PHONE_VIEWPORT, open_page
from tests.webapp.live_server import running_live_server
from tests.webapp.sample_data import SampleData, create_sample_data, project_path
from tests.webapp.scenario_steps import call_tool, sign_in
from tests.webapp.web_client import Browser, WebApp

_PART = {"X-Part": "1"}
_COUNT_FLIGHTS = """() => {
    window.flights = 0;
    new MutationObserver((changes) => {
        const added = changes.flatMap(({ addedNodes }) => [...addedNodes]);
        window.flights += added.filter((node) => node.className === "flying").length;
    }).observe(document.getElementById("live-board"), { childList: true });
}"""


def test_an_unchanged_board_is_an_empty_304(
    ada: Browser, sample: SampleData, db: Database, caplog: pytest.LogCaptureFixture
) -> None:
    address = project_path(sample, "board/")
    first = ada.get(address, headers=_PART)
    assert first.status_code == 200
    assert "Migration 42 is ready" in first.text
    assert "<html" not in first.text
    again = ada.get(address, headers={**_PART, "If-None-Match": first.headers["ETag"]})
    # The version changes every 30 s by itself; the second response belongs to the same period.
    if again.status_code == 200:
        again = ada.get(address, headers={**_PART, "If-None-Match": again.headers["ETag"]})
    with caplog.at_level("INFO", "webapp.request"):
        again = ada.get(address, headers={**_PART, "If-None-Match": again.headers["ETag"]})
    assert (again.status_code, again.data, caplog.records) == (304, b"", [])
    with db.transaction() as conn:
        agent = make_agent(conn, sample.full_project, "late-one", lane="core")
        posts.create(conn, agent.ctx, "just now", to_lane="review", subject="Brand new")
    changed = ada.get(address, headers={**_PART, "If-None-Match": again.headers["ETag"]})
    assert changed.status_code == 200
    assert "Brand new" in changed.text
    # The page contains the version from which its script continues.
    assert f'data-mark="{changed.headers["ETag"].strip(chr(34))}"' in ada.get(address).text


def test_a_board_is_not_shown_to_another_owner(site: WebApp, ada: Browser, sample: SampleData, db: Database) -> None:
    with db.transaction() as conn:
        other = make_owner(conn, "eve")
        mine = make_project(conn, "apollo", other)
    with db.connection() as conn:
        eve = site.new_browser().sign_in(conn, other)
    for _ in range(2):
        assert ada.get(project_path(sample, "board/"), headers=_PART).status_code == 200
        assert eve.get(project_path(sample, "board/"), headers=_PART).status_code == 404
        assert "Migration 42" not in eve.get(f"/admin/projects/{mine.id}/board/", headers=_PART).text
    assert site.new_browser().get(project_path(sample, "board/"), headers=_PART).status_code == 303


@pytest.fixture
def mcp(database_url: str) -> Iterator[str]:
    with running_gateways(database_url) as (process,):
        yield process.url


@pytest.mark.slow
def test_two_browsers_show_a_handoff_and_its_ack_live(
    database_url: str, db: Database, mcp: str, chromium: Chromium
) -> None:
    with db.transaction() as conn:
        owner = make_owner(conn, "ada")
        project = make_project(conn, "apollo", owner)
        sender, receiver = make_agent(conn, project, "writer"), make_agent(conn, project, "reader", lane="review")
        presence.register(conn, receiver.ctx, "review")
    with running_live_server(database_url, MCP_URL=mcp) as url:
        board = f"{url}/admin/projects/{project.id}/board/"
        phone_options: dict[str, Any] = {"viewport": PHONE_VIEWPORT, "reduced_motion": "reduce"}
        with open_page(chromium) as operator_browser, open_page(chromium, **phone_options) as phone:
            for page in (operator_browser, phone):
                sign_in(page, url, db, owner)
                page.goto(board)
                expect(page.locator("#live-state")).to_have_text("live")
                page.evaluate("document.documentElement.dataset.kept = 'yes'")
                page.evaluate(_COUNT_FLIGHTS)
                assert float(page.locator("#live-board").get_attribute("data-every") or 9) <= 1.5
            # Updates keep the keyboard focus.
            operator_browser.get_by_role("link", name="reader").focus()
            operator_browser.get_by_label("Announce to screen readers").check()
            operator_browser.get_by_role("link", name="reader").focus()

            sent = call_tool(
                mcp, sender.token, "post", to_lane="review", subject="Index 42 is ready", body="Look, please."
            )
            seen = _appears(operator_browser, phone, "delivered, not seen")
            stop = operator_browser.locator(".rail", has_text="review").locator(f"[data-key=h{sent['post_id']}]")
            expect(stop).to_have_class(re.compile("waiting"))
            # It travelled to the rail of its recipient, but not where the system asks for less motion.
            expect(operator_browser.locator(".flying, .arriving")).to_have_count(0)
            assert [page.evaluate("flights") for page in (operator_browser, phone)] == [1, 0]
            assert call_tool(mcp, receiver.token, "ack", post_ids=[sent["post_id"]])
            acked = _appears(operator_browser, phone, "acknowledged by ada/reader")
            print(f"seen after {seen:.2f} s, acked after {acked:.2f} s")

            expect(stop.locator(".token")).to_have_css("background-color", "rgb(23, 105, 47)")
            expect(operator_browser.locator(".handoffs")).to_contain_text("All clear.")
            expect(operator_browser.locator(".figure", has_text="Unanswered").locator(".value")).to_have_text("0")
            expect(operator_browser.locator("#announce")).to_contain_text(
                "Index 42 is ready, acknowledged by ada/reader", timeout=10_000
            )
            assert operator_browser.evaluate("document.activeElement.textContent") == "reader"
            for page in (operator_browser, phone):
                assert page.evaluate("document.documentElement.dataset.kept") == "yes"
            _leases_run_down(operator_browser, mcp, sender)
            _paused_means_paused(operator_browser, mcp, sender)


def _appears(operator_browser: Page, phone: Page, state: str) -> float:
    """Wait until both boards show the handoff in this state; returns how many seconds that took."""
    started = time.monotonic()
    for page in (operator_browser, phone):
        expect(page.locator(".stop", has_text="Index 42 is ready")).to_contain_text(state)
    return time.monotonic() - started


def _leases_run_down(page: Page, mcp: str, agent: Agent) -> None:
    call_tool(mcp, agent.token, "lease", surface="src/**", ttl_seconds=5)
    left = page.locator(".lease [data-left]")
    expect(left).to_contain_text("s left")
    # The countdown ends without an event; the lease disappears soon after.
    expect(left.filter(has_text="s left")).to_have_count(0, timeout=20_000)


def _paused_means_paused(page: Page, mcp: str, agent: Agent) -> None:
    page.get_by_role("button", name="Pause").press("Enter")
    expect(page.locator("#live-state")).to_have_text("paused")
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    call_tool(mcp, agent.token, "claim", sequence="adr")
    page.wait_for_timeout(2_000)
    assert asked == []
    expect(page.locator(".numbers")).to_contain_text("No claims yet.")
    # Resuming shows the changes made while it was paused.
    page.get_by_role("button", name="Pause").press("Enter")
    expect(page.locator(".numbers")).to_contain_text("writer")


def test_a_stream_sends_changes_and_ends_with_the_session(database_url: str, db: Database) -> None:
    with db.transaction() as conn:
        sample = create_sample_data(conn)
        eve = make_owner(conn, "eve")
        agent = make_agent(conn, sample.full_project, "late-one", lane="core")
    with running_live_server(database_url) as url:
        address = f"{url}{project_path(sample, 'board/stream')}"
        with db.connection() as conn:
            token, other = (
                sessions.open_session(conn, owner.id, method="link", ttl=timedelta(hours=1))
                for owner in (sample.owner, eve)
            )

        def refused(cookie: str, **headers: str) -> int:
            return httpx2.get(address, headers={"Cookie": cookie, **headers}).status_code

        assert refused("llm-bus=unknown") == 303
        assert refused(f"llm-bus={other}") == 404
        assert refused(f"llm-bus={token}", Host="evil.example") == 421
        with httpx2.stream(
            "GET", f"{address}?mark=1.2.3", headers={"Cookie": f"llm-bus={token}"}, timeout=15
        ) as response:
            lines = response.iter_lines()
            assert response.headers["content-type"].startswith("text/event-stream")
            assert next(lines) == "retry: 500"
            # The first event contains the changes since the requested version.
            assert "Migration 42 is ready" in _next_board(lines)
            with db.transaction() as conn:
                posts.create(conn, agent.ctx, "just now", to_lane="review", subject="Brand new")
            assert "Brand new" in _next_board(lines)
            with db.transaction() as conn:
                sessions.end_all_sessions(conn, sample.owner.id, actor=sample.owner.handle)
                posts.create(conn, agent.ctx, "later", to_lane="review", subject="Not for the signed out")
            assert "Not for the signed out" not in "".join(lines)
        assert refused(f"llm-bus={token}") == 303


def _next_board(lines: Iterator[str]) -> str:
    """The content of the next event with an id, up to its blank line."""
    event: list[str] = []
    for line in lines:
        if line.startswith("id: "):
            event = [line]
        elif event and not line:
            return "".join(event)
        elif event:
            event.append(line)
    raise AssertionError("the stream ended")


def test_a_board_without_a_stream_polls(
    database_url: str, db: Database, chromium: Chromium, sample: SampleData
) -> None:
    with running_live_server(database_url) as url, open_page(chromium) as page:
        sign_in(page, url, db, sample.owner)
        # A proxy that does not support streams.
        page.route("**/board/stream*", lambda route: route.fulfill(status=502))
        page.goto(f"{url}{project_path(sample, 'board/')}")
        expect(page.locator("#live-state")).to_have_text("live")
        with db.transaction() as conn:
            agent = make_agent(conn, sample.full_project, "late-one", lane="core")
            posts.create(conn, agent.ctx, "just now", to_lane="review", subject="Brand new")
        expect(page.locator(".handoffs")).to_contain_text("Brand new")
        with db.transaction() as conn:
            sessions.end_all_sessions(conn, sample.owner.id, actor=sample.owner.handle)
        expect(page.locator("#live-state")).to_have_text("Signed out — reload")
