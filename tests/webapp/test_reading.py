"""Reading pages in a real browser: a steady frame, rows that do not jump, lost connections, the keyboard alone."""

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from bus.auth import sessions
from bus.coordination import posts
from bus.db import Database
from tests.factories import Agent, make_agent
from tests.webapp.browser import PHONE_VIEWPORT, open_page
from tests.webapp.live_server import running_live_server
from tests.webapp.sample_data import SampleData, project_path
from tests.webapp.scenario_steps import sign_in
from tests.webapp.served_site import ServedSite, serve_sample_site

_DESKTOP = {"width": 1440, "height": 900}
_LONG_REF = "https://github.example.org/acme-industries/storefront-and-checkout/pull/142"


@pytest.fixture(scope="module")
def served() -> Iterator[ServedSite]:
    """One site for the tests that change nothing but a few posts."""
    with serve_sample_site() as site:
        yield site


@pytest.fixture(scope="module")
def agent(served: ServedSite) -> Agent:
    with served.db.transaction() as conn:
        agent = make_agent(conn, served.sample_site.project, "reader-of-urls")
        posts.create(conn, agent.ctx, f"See {_LONG_REF}", to_lane="core", subject="Long reference", ref=_LONG_REF)
    return agent


def _path(served: ServedSite, suffix: str) -> str:
    return f"{served.url}{project_path(served.sample_site.sample, suffix)}"


def _left(page: Page, selector: str) -> float:
    box = page.locator(selector).first.bounding_box()
    assert box is not None
    return box["x"]


def test_the_frame_does_not_move_between_pages(chromium: Browser, served: ServedSite) -> None:
    with open_page(chromium, viewport=_DESKTOP) as page:
        sign_in(page, served.url, served.db, served.sample_site.owner)
        frames = set()
        tabs = set()
        for suffix in ("board/", "handoffs/", "tasks/", "ledger/", "insights/", "settings/", ""):
            page.goto(_path(served, suffix))
            frames.add((_left(page, ".brand"), _left(page, ".account summary")))
            lefts = page.locator(".tabs > a").evaluate_all("all => all.map(one => one.getBoundingClientRect().x)")
            tabs.add(tuple(lefts))
        page.goto(f"{served.url}/admin/")
        frames.add((_left(page, ".brand"), _left(page, ".account summary")))
        assert len(frames) == 1, frames
        assert len(tabs) == 1, tabs


@pytest.mark.parametrize("suffix", ["handoffs/", "ledger/"])
def test_the_first_row_begins_within_120_pixels(chromium: Browser, served: ServedSite, suffix: str) -> None:
    with open_page(chromium, viewport=_DESKTOP) as page:
        sign_in(page, served.url, served.db, served.sample_site.owner)
        for address in (_path(served, suffix), f"{served.url}/admin/"):
            page.goto(address)
            box = page.locator("[data-rows]").first.bounding_box()
            assert box is not None
            assert box["y"] <= 120
        row = page.locator("[data-rows] > [data-key]").first.bounding_box()
        assert row is not None
        assert row["height"] <= 44


@pytest.mark.parametrize("width", [320, 390])
def test_a_long_address_as_reference_does_not_widen_a_phone_page(
    chromium: Browser, served: ServedSite, agent: Agent, width: int
) -> None:
    with open_page(chromium, viewport={"width": width, "height": 800}) as page:
        sign_in(page, served.url, served.db, served.sample_site.owner)
        page.goto(_path(served, "handoffs/?unacked=y"))
        thread = page.get_by_role("link", name="Long reference").first.get_attribute("href")
        for address in (
            page.url,
            f"{served.url}{thread}",
            f"{served.url}/admin/",
            _path(served, "ledger/"),
            _path(served, "board/"),
            _path(served, f"handoffs/?ref={_LONG_REF}"),
            _path(served, "refs/"),
            _path(served, f"refs/?ref={_LONG_REF}"),
        ):
            page.goto(address)
            assert page.evaluate("document.scrollingElement.scrollWidth") <= width, address
        assert "acme-industries/storefront-and-checkout#142" in page.content()


def test_the_focus_is_on_the_refused_field(chromium: Browser, served: ServedSite) -> None:
    with open_page(chromium) as page:
        sign_in(page, served.url, served.db, served.sample_site.owner)
        page.goto(_path(served, "handoffs/new"))
        page.get_by_label("To", exact=True).fill("revew-agent")
        page.get_by_label("Message").fill("hello")
        page.get_by_role("button", name="Send handoff").click()
        expect(page.get_by_label("To", exact=True)).to_be_focused()
        expect(page).to_have_title(re.compile("^Error: "))
        expect(page.locator("#to_actor-error")).to_contain_text("review-agent")


def test_few_tab_stops_lead_to_the_first_row(chromium: Browser, served: ServedSite) -> None:
    with open_page(chromium) as page:
        sign_in(page, served.url, served.db, served.sample_site.owner)
        for address in (_path(served, "handoffs/"), f"{served.url}/admin/"):
            page.goto(address)
            stops = 0
            while not page.evaluate("document.activeElement.matches('.item-link')"):
                page.keyboard.press("Tab")
                stops += 1
                assert stops <= 8
                if page.evaluate("document.activeElement.textContent") == "Skip to the list":
                    page.keyboard.press("Enter")


def test_exact_times_are_read_without_a_mouse(chromium: Browser, served: ServedSite) -> None:
    with open_page(chromium, viewport=PHONE_VIEWPORT, has_touch=True, timezone_id="Asia/Kolkata") as page:
        sign_in(page, served.url, served.db, served.sample_site.owner)
        page.goto(f"{served.url}/account/")
        time = page.locator("time[data-ago]").first
        relative = time.inner_text()
        # In the viewer's time zone, by touch or by a key.
        time.tap()
        expect(time).to_have_text(re.compile(r"GMT\+5:30$"))
        page.keyboard.press("t")
        expect(time).to_have_text(relative)


def test_values_of_a_chart_are_read_by_keyboard_and_touch(chromium: Browser, served: ServedSite) -> None:
    with open_page(chromium, has_touch=True) as page:
        sign_in(page, served.url, served.db, served.sample_site.owner)
        page.goto(f"{served.url}/admin/credits/")
        plot = page.locator(".chart .plot").first
        readout = page.locator(".readout").first
        plot.focus()
        page.keyboard.press("End")
        expect(readout).to_contain_text(" · ")
        last = readout.text_content()
        page.keyboard.press("ArrowLeft")
        expect(readout).not_to_have_text(last or "")
        expect(readout).to_contain_text(": ")


@pytest.fixture
def live(database_url: str) -> Iterator[str]:
    with running_live_server(database_url) as url:
        yield url


def _write(db: Database, sample: SampleData, subject: str, agent: Agent | None = None) -> Agent:
    with db.transaction() as conn:
        agent = agent or make_agent(conn, sample.full_project, "late-one")
        posts.create(conn, agent.ctx, "hello", to_actor="ada", subject=subject)
    return agent


def test_rows_wait_behind_a_button_and_nothing_that_is_read_moves(
    chromium: Browser, live: str, db: Database, sample: SampleData
) -> None:
    with open_page(chromium) as page:
        sign_in(page, live, db, sample.owner)
        page.goto(f"{live}{project_path(sample, 'handoffs/')}")
        row = page.locator(".item", has_text="Freeze")
        row.get_by_role("link", name="Freeze").focus()
        before = row.bounding_box()
        agent = _write(db, sample, "Brand new")
        pill = page.get_by_role("button", name="1 new")
        expect(pill).to_be_visible(timeout=15_000)
        # The list has the focus and is up to date all the same: an ack shows in place.
        with db.transaction() as conn:
            post_id = int((row.get_attribute("data-key") or "h0")[1:])
            posts.ack(conn, agent.ctx, [post_id])
        expect(row.locator(".state")).to_contain_text("acknowledged", timeout=15_000)
        expect(page.get_by_role("link", name="Brand new")).to_have_count(0)
        after = row.bounding_box()
        assert before is not None
        assert after is not None
        # The button is the only thing above it that appeared.
        assert after["y"] - before["y"] <= 44
        expect(row.get_by_role("link", name="Freeze")).to_be_focused()
        pill.click()
        expect(page.get_by_role("link", name="Brand new")).to_be_visible()
        expect(pill).to_have_count(0)


def test_a_live_region_says_what_is_new_once(chromium: Browser, live: str, db: Database, sample: SampleData) -> None:
    with open_page(chromium) as page:
        sign_in(page, live, db, sample.owner)
        page.goto(f"{live}{project_path(sample, 'handoffs/')}")
        page.evaluate(
            "window.spoken = []; const region = document.getElementById('announce');"
            "new MutationObserver(() => spoken.push(region.textContent))"
            ".observe(region, { childList: true, characterData: true, subtree: true })"
        )

        def poll() -> None:
            with page.expect_response(lambda response: "x-part" in response.request.headers):
                page.evaluate("document.querySelector('[data-live]').dispatchEvent(new Event('poll'))")

        poll()
        poll()
        assert page.evaluate("spoken") == []
        _write(db, sample, "Brand new")
        poll()
        expect(page.get_by_role("button", name="1 new")).to_be_visible()
        poll()
        poll()
        assert page.evaluate("spoken") == ["1 new"]
        # Nothing that updates itself is a live region of its own.
        assert page.locator("[data-live] :is([role=status], [role=alert], [aria-live])").count() == 0


def test_a_lost_connection_and_an_ended_session_are_shown(
    chromium: Browser, live: str, db: Database, sample: SampleData
) -> None:
    with open_page(chromium) as page:
        sign_in(page, live, db, sample.owner)
        for path in ("/admin/", project_path(sample, "board/")):
            page.goto(f"{live}{path}")
            bar = page.locator("#connection")
            expect(bar).to_be_hidden()
            page.context.set_offline(True)
            expect(bar).to_contain_text("Connection lost. This page shows")
            page.context.set_offline(False)
            expect(bar).to_be_hidden(timeout=20_000)
        page.goto(f"{live}/admin/")
        with db.transaction() as conn:
            sessions.end_all_sessions(conn, sample.owner.id, actor=sample.owner.handle)
        expect(page.get_by_role("link", name="Sign in again")).to_be_visible(timeout=15_000)
        expect(page.locator("#connection")).to_contain_text("You are signed out")


def test_a_person_answers_from_the_inbox_by_keyboard_alone(
    chromium: Browser, live: str, db: Database, sample: SampleData
) -> None:
    _write(db, sample, "Please decide")
    with open_page(chromium) as page:
        sign_in(page, live, db, sample.owner)
        page.goto(f"{live}/admin/?state=for-you")
        expect(page).to_have_title(re.compile(r"^\(5\) Inbox"))
        page.keyboard.press("j")
        expect(page.get_by_role("link", name="Migration 42 is ready")).to_be_focused()
        page.keyboard.press("j")
        expect(page.get_by_role("link", name="Please decide")).to_be_focused()
        page.keyboard.press("k")
        page.keyboard.press("e")
        expect(page.locator(".item.gone")).to_contain_text("Migration 42 is ready")
        expect(page.locator("#announce")).to_have_text("Acknowledged.")
        expect(page.get_by_role("link", name="Please decide")).to_be_focused()
        page.keyboard.press("r")
        expect(page.get_by_label("Reply")).to_be_focused()
        page.keyboard.type("Yes, go ahead, e and j are letters here.")
        page.keyboard.press("Tab")
        page.keyboard.press("Enter")
        page.wait_for_url("**/admin/?state=for-you")
        page.keyboard.press("j")
        page.keyboard.press("e")
        # The answer itself waits for an acknowledgement now.
        expect(page.get_by_text("All clear")).to_be_visible()
        expect(page).to_have_title(re.compile(r"^\(5\) Inbox"))
        page.reload()
        expect(page.get_by_text("All clear")).to_be_visible()
        page.keyboard.press("?")
        expect(page.get_by_role("dialog")).to_be_visible()
        page.get_by_label("Single-key shortcuts").uncheck()
        page.keyboard.press("Escape")
        page.keyboard.press("?")
        expect(page.get_by_role("dialog")).to_be_hidden()
    with db.connection() as conn:
        rows = conn.fetch_all("SELECT body FROM post WHERE actor = 'ada' AND body LIKE 'Yes, go%%'")
    assert rows == [("Yes, go ahead, e and j are letters here.",)]


def test_the_inbox_works_without_scripts_on_a_phone(
    chromium: Browser, live: str, db: Database, sample: SampleData
) -> None:
    with open_page(chromium, viewport=PHONE_VIEWPORT, java_script_enabled=False) as page:
        sign_in(page, live, db, sample.owner)
        page.get_by_role("link", name="For you").click()
        page.get_by_role("link", name="Reply", exact=True).click()
        page.get_by_label("Reply").fill("Without scripts.")
        page.get_by_role("button", name="Send reply").click()
        page.get_by_role("button", name="Acknowledge").click()
        expect(page.get_by_text("All clear")).to_be_visible()
        # What needs scripts is not shown without them.
        page.goto(f"{live}{project_path(sample, 'board/')}")
        expect(page.get_by_role("heading", name="Waiting")).to_be_visible()
        for control in (page.get_by_label("Announce to screen readers"), page.get_by_text("Full screen")):
            expect(control).to_be_attached()
            expect(control).to_be_hidden()
