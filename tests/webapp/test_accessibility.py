"""Every page in a real browser: WCAG rules in light and dark, width of a narrow screen, and target sizes."""

from collections.abc import Iterator
from typing import Any

import pytest
from axe_playwright_python.base import AXE_SCRIPT
from playwright.sync_api import Browser, Page

from tests.webapp.browser import LAPTOP_VIEWPORT, NARROW_VIEWPORT, open_page
from tests.webapp.page_catalog import PageCase
from tests.webapp.screenshots import sign_in
from tests.webapp.served_site import ServedSite, serve_sample_site

# Several tests, so that test workers share the pages.
_PARTS = 6
# Only violations are reported with their nodes, and pages of one frame need no preloaded style sheets.
_AXE_OPTIONS = {"resultTypes": ["violations"], "preload": False, "iframes": False}
# The WCAG 2.2 AA rules that axe can check.
_ALL_RULES = {
    "runOnly": {"type": "tag", "values": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]}
}
# The dark scheme differs from the light one only in its colours.
_COLOUR_RULES = {"runOnly": {"type": "rule", "values": ["color-contrast"]}}
# WCAG 2.2, target size: 24 by 24 pixels, except links within text. The label of a check box enlarges its target.
_SMALL_TARGETS = """() => [...document.querySelectorAll('button, summary, a.button, nav a, input, select, textarea')]
    .filter(one => one.offsetParent !== null && !['hidden', 'checkbox', 'radio'].includes(one.type))
    .map(one => [one.outerHTML.slice(0, 120), one.getBoundingClientRect()])
    .filter(([_, box]) => box.width < 24 || box.height < 24)
    .map(([html, box]) => `${html} ${box.width}x${box.height}`)"""


@pytest.fixture(scope="module")
def served() -> Iterator[ServedSite]:
    with serve_sample_site() as site:
        yield site


@pytest.mark.slow
@pytest.mark.parametrize("part", range(_PARTS), ids=lambda part: f"{part + 1} of {_PARTS}")
def test_every_page_is_accessible_and_fits_a_narrow_screen(chromium: Browser, served: ServedSite, part: int) -> None:
    _assert_accessible(
        chromium, served, [page for page in served.pages if not page.name.endswith("-empty")][part::_PARTS]
    )


@pytest.mark.exhaustive
def test_every_page_of_an_empty_project_is_accessible(chromium: Browser, served: ServedSite) -> None:
    _assert_accessible(chromium, served, [page for page in served.pages if page.name.endswith("-empty")])


def _assert_accessible(chromium: Browser, served: ServedSite, pages: list[PageCase]) -> None:
    """Open each page once, for all checks."""
    assert pages
    problems: list[Any] = []
    checked_menus: set[str] = set()
    for requires_sign_in in (False, True):
        cases = [case for case in pages if case.requires_sign_in == requires_sign_in]
        # Reduced motion, so that no colour is measured during a transition.
        with open_page(chromium, reduced_motion="reduce") as page:
            if requires_sign_in:
                sign_in(page, served.url, served.db, served.sample_site)
            for case in cases:
                page.set_viewport_size(LAPTOP_VIEWPORT)
                page.goto(served.url + case.path)
                problems += [(case.name, *problem) for problem in _check(page, checked_menus)]
    assert problems == []


def _check(page: Page, checked_menus: set[str]) -> Iterator[tuple[Any, ...]]:
    # Check the texts of closed confirmations and menus as well; an open menu covers links, so they are checked apart.
    page.evaluate(AXE_SCRIPT)
    _open_details(page, True)
    # Most pages of a project have the same menus.
    menus = page.locator("details.menu").evaluate_all("all => all.map(menu => menu.outerHTML).join('')")
    if menus not in checked_menus:
        checked_menus.add(menus)
        yield from (("menus", *violation) for violation in _run_axe(page, _ALL_RULES, "details.menu"))
    _open_details(page, False, "details.menu")
    yield from (("light", *violation) for violation in _run_axe(page, _ALL_RULES))
    page.emulate_media(color_scheme="dark")
    yield from (("dark", *violation) for violation in _run_axe(page, _COLOUR_RULES))
    page.emulate_media(color_scheme="light")
    page.set_viewport_size(NARROW_VIEWPORT)
    for are_open in (True, False):
        _open_details(page, are_open)
        width = page.evaluate("document.scrollingElement.scrollWidth")
        if width > NARROW_VIEWPORT["width"]:
            yield "too wide", "details open" if are_open else "details closed", width
    yield from (("target too small", element) for element in page.evaluate(_SMALL_TARGETS))


def _open_details(page: Page, are_open: bool, selector: str = "details") -> None:
    page.locator(selector).evaluate_all("(all, are_open) => all.forEach(one => { one.open = are_open })", are_open)


def _run_axe(page: Page, rules: dict[str, Any], selector: str = "html") -> list[tuple[str, str, list[str]]]:
    if not page.locator(selector).count():
        return []
    run = "async ([selector, options]) => (await axe.run(selector, options)).violations"
    violations = page.evaluate(run, [selector, _AXE_OPTIONS | rules])
    return [
        (rule["id"], rule["impact"], [node["html"][:200] + " " + node["failureSummary"] for node in rule["nodes"]])
        for rule in violations
    ]
