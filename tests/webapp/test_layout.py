"""Layout in a real browser: what is aligned, what has room, and the navigation of a phone."""

from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, Page

from bus.coordination import leases, posts
from tests.factories import make_agent
from tests.webapp.browser import LAPTOP_VIEWPORT, open_page
from tests.webapp.sample_data import project_path
from tests.webapp.scenario_steps import sign_in
from tests.webapp.served_site import ServedSite, serve_sample_site

# Links within a sentence are exempt (WCAG 2.2, target size).
_SMALL_LINKS = """() => [...document.querySelectorAll('main [data-key] :is(a.seq, a.item-link, a.place)')]
    .filter(one => one.offsetParent).map(one => [one.outerHTML.slice(0, 90), one.getBoundingClientRect().height])
    .filter(([, height]) => height < 24).map(([html, height]) => `${html} ${height}`)"""


@pytest.fixture(scope="module")
def served() -> Iterator[ServedSite]:
    with serve_sample_site() as site:
        with site.db.transaction() as conn:
            left, right = (make_agent(conn, site.sample_site.project, label) for label in ("left-hand", "right-hand"))
            for agent in (left, right):
                leases.acquire(conn, agent.ctx, "src/shared.py")
            posts.create(conn, left.ctx, "Late", to_actor="right-hand", ack_within_seconds=1)
            conn.execute(
                "UPDATE post SET ack_due_at = clock_timestamp() - interval '1 minute' WHERE ack_due_at IS NOT NULL"
            )
        yield site


@pytest.fixture
def page(chromium: Browser, served: ServedSite) -> Iterator[Page]:
    with open_page(chromium, viewport=LAPTOP_VIEWPORT) as page:
        sign_in(page, served.url, served.db, served.sample_site.owner)
        yield page


def _path(served: ServedSite, suffix: str) -> str:
    return f"{served.url}{project_path(served.sample_site.sample, suffix)}"


def _boxes(page: Page, selector: str) -> list[dict[str, Any]]:
    return [box for one in page.locator(selector).all() if (box := one.bounding_box())]


def test_rows_of_what_needs_attention_begin_at_one_edge(page: Page, served: ServedSite) -> None:
    page.goto(_path(served, ""))
    lefts = {round(box["x"]) for box in _boxes(page, ".attention-list > li > span:last-child")}
    badges = {page.locator(".attention-list > li > .badge").nth(index).inner_text() for index in range(len(lefts))}
    assert len(_boxes(page, ".attention-list > li")) >= 3
    assert len(lefts) == 1, (lefts, badges)


def test_tabs_of_the_console_do_not_stick_out(page: Page, served: ServedSite) -> None:
    with served.db.transaction() as conn:
        conn.execute("UPDATE owner SET operator = true WHERE id = %s", (served.sample_site.owner.id,))
    page.goto(f"{served.url}/operator/")
    (tabs,), (heading,) = _boxes(page, ".subtabs"), _boxes(page, "main h1")
    main = page.locator("main").evaluate(
        "one => { const style = getComputedStyle(one), box = one.getBoundingClientRect();"
        " return [box.left + parseFloat(style.paddingLeft), box.right - parseFloat(style.paddingRight)] }"
    )
    assert [round(tabs["x"]), round(tabs["x"] + tabs["width"])] == [round(edge) for edge in main]
    # The first label begins below the heading.
    first = page.locator(".subtabs .tab-label").first.bounding_box()
    assert first is not None
    assert abs(first["x"] - heading["x"]) <= 1


def test_warnings_fill_their_box_and_headings_have_room(page: Page, served: ServedSite) -> None:
    page.goto(_path(served, "settings/"))
    page.evaluate(
        "document.querySelector('main').insertAdjacentHTML('afterbegin',"
        " '<div class=\"alert warning\"><p>' + 'A long warning. '.repeat(20) + '</p></div>"
        '<section class="card probe"><h2>Heading</h2><p>Text</p></section>'
        '<section class="section probe"><h2>Heading</h2><p>Text</p></section>\')'
    )
    (alert,), (text,) = _boxes(page, ".alert.warning"), _boxes(page, ".alert.warning p")
    assert text["width"] > alert["width"] - 60
    for heading, below in zip(_boxes(page, ".probe h2"), _boxes(page, ".probe p"), strict=True):
        assert below["y"] - (heading["y"] + heading["height"]) >= 4


@pytest.mark.parametrize("width", [320, 390])
def test_the_tabs_of_a_phone_are_all_in_sight_at_the_bottom(page: Page, served: ServedSite, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 760})
    page.goto(_path(served, "handoffs/"))
    tabs = _boxes(page, ".tabs > a, .tabs > .gear")
    assert len(tabs) == 6
    assert all(tab["x"] >= 0 and tab["x"] + tab["width"] <= width for tab in tabs), tabs
    assert all(tab["y"] > 690 and tab["height"] >= 44 for tab in tabs), tabs
    labels = page.locator(".tabs .tab-label").evaluate_all("all => all.map(one => one.scrollWidth - one.clientWidth)")
    assert all(cut <= 0 for cut in labels), labels
    # It stays there while the page scrolls, and hides nothing of its end.
    page.evaluate("scrollTo(0, document.scrollingElement.scrollHeight)")
    (footer,) = _boxes(page, ".site-footer")
    assert _boxes(page, ".tabs > a")[0]["y"] > 690
    assert footer["y"] + footer["height"] <= _boxes(page, ".tabs")[0]["y"] + 1


def test_the_links_of_rows_are_large_enough_for_a_thumb(page: Page, served: ServedSite) -> None:
    page.set_viewport_size({"width": 390, "height": 760})
    for address in (_path(served, "ledger/"), _path(served, "handoffs/"), f"{served.url}/admin/"):
        page.goto(address)
        assert page.evaluate(_SMALL_LINKS) == [], address
