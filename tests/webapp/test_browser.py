"""The pages in a real browser: accessibility of every page, and common interactions."""

import re
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from jinja2 import ChoiceLoader, DictLoader
from playwright.sync_api import Browser, Page, expect

from bus.db import Database
from tests.webapp import page_catalog
from tests.webapp.browser import LAPTOP_VIEWPORT, NARROW_VIEWPORT, open_page
from tests.webapp.fake_oidc import FakeOidcProvider, running_provider
from tests.webapp.live_server import running_live_server
from tests.webapp.screenshots import sign_in
from tests.webapp.web_client import WebApp
from webapp.blueprints import PublicBlueprint, render_page

# The WCAG 2.2 AA rules that axe can check.
_RULES = {
    "runOnly": {"type": "tag", "values": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]}
}


# The dark scheme differs from the light one only in its colours.
_COLOURS = {"runOnly": {"type": "rule", "values": ["color-contrast"]}}


@pytest.fixture
def example(db: Database) -> page_catalog.SampleSite:
    return page_catalog.create_sample_site(db)


@pytest.fixture
def pages(database_url: str, example: page_catalog.SampleSite) -> list[page_catalog.PageCase]:
    with closing(WebApp(database_url, **page_catalog.FEATURE_ENV)) as web:
        return list(page_catalog.iter_pages(web, example))


@pytest.fixture
def url(database_url: str) -> Iterator[str]:
    with running_live_server(database_url, **page_catalog.FEATURE_ENV) as address:
        yield address


def _look_at_all(
    chromium: Browser,
    url: str,
    db: Database,
    example: page_catalog.SampleSite,
    pages: list[page_catalog.PageCase],
    **options: object,
) -> Iterator[tuple[Page, page_catalog.PageCase]]:
    for private in (False, True):
        with open_page(chromium, **options) as page:
            if private:
                sign_in(page, url, db, example)
            for shown in pages:
                if shown.requires_sign_in == private:
                    page.goto(url + shown.path)
                    yield page, shown


def test_every_page_is_accessible_and_fits_a_narrow_screen(
    chromium: Browser, url: str, db: Database, example: page_catalog.SampleSite, pages: list[page_catalog.PageCase]
) -> None:
    """Open each page once; check it with axe in light and dark, at narrow width, and for target sizes."""
    problems: list[Any] = []
    # Reduced motion, so that no colour is measured during a transition.
    for page, shown in _look_at_all(chromium, url, db, example, pages, reduced_motion="reduce"):
        # Check the texts of closed confirmations as well.
        page.evaluate("for (const one of document.querySelectorAll('details')) one.open = true")
        problems += [("light", shown.name, *one) for one in _axe(page, _RULES)]
        page.emulate_media(color_scheme="dark")
        problems += [("dark", shown.name, *one) for one in _axe(page, _COLOURS)]
        page.emulate_media(color_scheme="light")
        page.set_viewport_size(NARROW_VIEWPORT)
        for opens in (True, False):
            page.evaluate(f"for (const one of document.querySelectorAll('details')) one.open = {str(opens).lower()}")
            width = page.evaluate("document.scrollingElement.scrollWidth")
            if width > NARROW_VIEWPORT["width"]:
                problems.append(("narrow", shown.name, opens, width))
        problems += [("small", shown.name, one) for one in page.evaluate(_SMALL)]
        page.set_viewport_size(LAPTOP_VIEWPORT)
    assert problems == []


def _axe(page: Page, options: dict[str, Any]) -> list[tuple[str, str, list[str]]]:
    return [
        (one["id"], one["impact"], [node["html"][:200] + " " + node["failureSummary"] for node in one["nodes"]])
        for one in Axe().run(page, options=options).response["violations"]
    ]


# WCAG 2.2, target size: 24 by 24 pixels, except links within text. The label of a check box enlarges its target.
_SMALL = """() => [...document.querySelectorAll('button, summary, a.button, nav a, input, select, textarea')]
    .filter(one => one.offsetParent !== null && !['hidden', 'checkbox', 'radio'].includes(one.type))
    .map(one => [one.outerHTML.slice(0, 120), one.getBoundingClientRect()])
    .filter(([_, box]) => box.width < 24 || box.height < 24)
    .map(([html, box]) => `${html} ${box.width}x${box.height}`)"""


def test_the_dark_scheme_has_a_dark_background(chromium: Browser, url: str) -> None:
    shades = []
    for scheme in ("light", "dark"):
        with open_page(chromium, color_scheme=scheme) as page:
            page.goto(url)
            colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
            shades.append(sum(int(part) for part in re.findall(r"\d+", colour)))
    light, dark = shades
    assert light > 600
    assert dark < 150


def test_the_menu_works_with_the_keyboard_alone(
    chromium: Browser, url: str, db: Database, example: page_catalog.SampleSite
) -> None:
    with open_page(chromium) as page:
        sign_in(page, url, db, example)
        page.goto(f"{url}/account/")
        page.keyboard.press("Tab")
        expect(page.get_by_role("link", name="Skip to main content")).to_be_focused()
        page.keyboard.press("Enter")
        expect(page).to_have_url(f"{url}/account/#main")
        menu = page.locator("header .menu summary")
        menu.focus()
        page.keyboard.press("Enter")
        expect(page.get_by_role("button", name="Sign out", exact=True)).to_be_visible()
        page.keyboard.press("Escape")
        expect(page.get_by_role("button", name="Sign out", exact=True)).to_be_hidden()
        expect(menu).to_be_focused()
        page.keyboard.press("Enter")
        page.get_by_role("button", name="Sign out", exact=True).press("Enter")
        expect(page.get_by_text("You are signed out.")).to_be_visible()
        page.go_back()
        expect(page).to_have_url(re.compile("/sign-in"))


@pytest.mark.parametrize("scripts", [True, False], ids=["scripts", "no scripts"])
def test_destructive_actions_ask_first_and_can_be_cancelled(
    chromium: Browser, url: str, db: Database, example: page_catalog.SampleSite, scripts: bool
) -> None:
    with open_page(chromium, java_script_enabled=scripts) as page:
        sign_in(page, url, db, example)
        page.goto(f"{url}/account/")
        asks = page.locator("summary", has_text="Sign out everywhere")
        button = page.get_by_role("button", name="Sign out everywhere")
        expect(button).to_be_hidden()
        asks.click()
        expect(page.get_by_text("Agents are not affected")).to_be_visible()
        if scripts:
            page.get_by_role("button", name="Cancel").locator("visible=true").click()
            expect(button).to_be_hidden()
            expect(asks).to_be_focused()
        else:
            expect(page.get_by_role("button", name="Cancel").first).to_be_hidden()
            asks.click()
            expect(button).to_be_hidden()
        asks.click()
        button.click()
        expect(page.get_by_text("Signed out everywhere.")).to_be_visible()
        page.goto(f"{url}/account/")
        expect(page).to_have_url(re.compile("/sign-in"))


def test_the_copy_button_copies_the_endpoint(chromium: Browser, url: str) -> None:
    with open_page(chromium, permissions=["clipboard-read", "clipboard-write"]) as page:
        page.goto(url)
        page.get_by_role("button", name="Copy the MCP endpoint").click()
        expect(page.get_by_role("status").filter(has_text="Copied")).to_be_attached()
        assert page.evaluate("navigator.clipboard.readText()") == f"{url}/mcp"


@pytest.mark.parametrize("scripts", [True, False], ids=["scripts", "no scripts"])
def test_a_visitor_signs_up_with_a_provider(chromium: Browser, database_url: str, scripts: bool) -> None:
    """The CSP of a real browser allows forms only to this site, and the redirect to the provider still works."""
    issuer = FakeOidcProvider()
    with running_provider(issuer):
        with (
            running_live_server(database_url, **issuer.env()) as url,
            open_page(chromium, viewport=LAPTOP_VIEWPORT, java_script_enabled=scripts) as page,
        ):
            page.goto(f"{url}/account/")
            page.get_by_role("button", name="Continue with Example Inc.").click()
            page.wait_for_url("**/welcome")
            expect(page.get_by_label("Handle")).to_have_value("ada-l")
            page.get_by_label("Handle").fill("No Such Thing!")
            page.get_by_role("button", name="Create account").click()
            expect(page.get_by_label("Handle")).to_have_attribute("aria-invalid", "true")
            page.get_by_label("Handle").fill("countess")
            page.get_by_role("button", name="Create account").click()
            page.wait_for_url("**/account/")
            expect(page.get_by_text("Welcome. Your account is ready.")).to_be_visible()
            expect(page.locator("main .mono").first).to_have_text("countess")


class _Board:
    """A page with a live part, built like any other page."""

    def __init__(self) -> None:
        self.text = "one"
        self.pages = PublicBlueprint("bulletin")
        self.pages.get("/bulletin")(self.index)

    def index(self) -> object:
        return render_page("board.html", part="board_part.html", text=self.text)

    def put_into(self, web: WebApp) -> None:
        web.app.jinja_loader = ChoiceLoader(
            [
                web.app.jinja_loader,  # type: ignore[list-item]
                DictLoader(
                    {
                        "board.html": '{% extends "base.html" %}{% import "parts/ui.html" as ui %}{% block main %}'
                        '<h1>Board</h1>{% call ui.live("/bulletin", every=0.2) %}{% include part %}{% endcall %}'
                        "{% endblock %}",
                        "board_part.html": '{% import "parts/forms.html" as forms %}<p>now {{ text }}</p>'
                        '{{ forms.action_button("Do", "/bulletin") }}',
                    }
                ),
            ]
        )
        web.app.register_blueprint(self.pages)


def test_the_live_part_of_a_page_is_sent_only_if_it_changed(make_web: Callable[..., WebApp]) -> None:
    board, web = _Board(), make_web()
    board.put_into(web)
    browser = web.new_browser()
    assert "<h1>Board" in browser.get("/bulletin").text
    part = browser.get("/bulletin", headers={"X-Part": "1"})
    assert "<h1>" not in part.text
    assert "now one" in part.text
    tag = part.headers["ETag"]
    # CSRF tokens differ in each response; they do not count as a change.
    again = browser.get("/bulletin", headers={"X-Part": "1", "If-None-Match": tag})
    assert (again.status_code, again.data) == (304, b"")
    board.text = "two"
    changed = browser.get("/bulletin", headers={"X-Part": "1", "If-None-Match": tag})
    assert changed.status_code == 200
    assert "now two" in changed.text


def test_the_live_part_of_a_page_updates_itself(chromium: Browser, database_url: str) -> None:
    board = _Board()
    with running_live_server(database_url, prepare=board.put_into) as url, open_page(chromium) as page:
        page.goto(f"{url}/bulletin")
        expect(page.get_by_text("now one")).to_be_visible()
        board.text = "two"
        expect(page.get_by_text("now two")).to_be_visible()
        # A part with the keyboard focus is not replaced.
        page.get_by_role("button", name="Do").focus()
        board.text = "three"
        page.wait_for_timeout(600)
        expect(page.get_by_text("now two")).to_be_visible()
        page.get_by_role("button", name="Do").blur()
        expect(page.get_by_text("now three")).to_be_visible()
