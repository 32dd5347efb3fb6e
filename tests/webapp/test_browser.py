"""Common interactions in a real browser: menu, confirmations, sign-up, live regions, dark scheme."""

import re
from collections.abc import Callable, Iterator

import pytest
from flask import Response
from jinja2 import ChoiceLoader, DictLoader
from playwright.sync_api import Browser, expect

from tests.webapp.browser import LAPTOP_VIEWPORT, open_page
from tests.webapp.fake_oidc import FakeOidcProvider, running_provider
from tests.webapp.live_server import running_live_server
from tests.webapp.screenshots import sign_in
from tests.webapp.served_site import ServedSite, serve_sample_site
from tests.webapp.web_client import WebApp
from webapp.blueprints import PublicBlueprint, render_page


@pytest.fixture(scope="module")
def served() -> Iterator[ServedSite]:
    """One site for all tests of this file, which change nothing but sessions."""
    with serve_sample_site() as site:
        yield site


def test_the_dark_scheme_has_a_dark_background(chromium: Browser, served: ServedSite) -> None:
    shades = []
    for scheme in ("light", "dark"):
        with open_page(chromium, color_scheme=scheme) as page:
            page.goto(served.url)
            colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
            shades.append(sum(int(part) for part in re.findall(r"\d+", colour)))
    light, dark = shades
    assert light > 600
    assert dark < 150


def test_the_menu_works_with_the_keyboard_alone(chromium: Browser, served: ServedSite) -> None:
    url = served.url
    with open_page(chromium) as page:
        sign_in(page, url, served.db, served.sample_site)
        page.goto(f"{url}/account/")
        page.keyboard.press("Tab")
        expect(page.get_by_role("link", name="Skip to main content")).to_be_focused()
        page.keyboard.press("Enter")
        expect(page).to_have_url(f"{url}/account/#main")
        menu = page.locator("header .account summary")
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
    chromium: Browser, served: ServedSite, scripts: bool
) -> None:
    url = served.url
    with open_page(chromium, java_script_enabled=scripts) as page:
        sign_in(page, url, served.db, served.sample_site)
        page.goto(f"{url}/account/")
        asks = page.locator("summary", has_text="Sign out everywhere")
        button = page.get_by_role("button", name="Sign out everywhere")
        expect(button).to_be_hidden()
        asks.click()
        expect(page.get_by_text("Agents are not affected")).to_be_visible()
        if scripts:
            dialog = page.get_by_role("dialog", name="Sign out of every browser, including this one?")
            # The way back has the focus.
            expect(dialog.get_by_role("button", name="Cancel")).to_be_focused()
            page.keyboard.press("Escape")
            expect(dialog).to_have_count(0)
            expect(asks).to_be_focused()
            page.keyboard.press("Enter")
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


def test_the_copy_button_copies_the_endpoint(chromium: Browser, served: ServedSite) -> None:
    with open_page(chromium, permissions=["clipboard-read", "clipboard-write"]) as page:
        page.goto(served.url)
        page.get_by_role("button", name="Copy the MCP endpoint").click()
        expect(page.get_by_role("status").filter(has_text="Copied")).to_be_attached()
        assert page.evaluate("navigator.clipboard.readText()") == f"{served.url}/mcp"


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


@pytest.mark.parametrize("scripts", [True, False], ids=["scripts", "no scripts"])
def test_the_live_board_is_used_by_keyboard_and_fits_the_window(
    chromium: Browser, served: ServedSite, scripts: bool
) -> None:
    with open_page(chromium, viewport={"width": 1440, "height": 900}, java_script_enabled=scripts) as page:
        sign_in(page, served.url, served.db, served.sample_site)
        page.goto(f"{served.url}/admin/projects/{served.sample_site.project.id}/board/")
        box = page.locator(".live-grid").bounding_box()
        assert box is not None
        assert box["y"] + box["height"] <= 900
        if scripts:
            assert page.evaluate("document.scrollingElement.scrollHeight") == 900
            pause = page.get_by_role("button", name="Pause")
            for pressed in ("true", "false"):
                page.keyboard.press("p")
                expect(pause).to_have_attribute("aria-pressed", pressed)
        else:
            expect(page.get_by_role("button", name="Pause")).to_be_hidden()
        # Rails are lists with text: who is there, what they do, and what waits there.
        rail = page.locator("#live-board").get_by_role("listitem").filter(has=page.get_by_role("heading", name="core"))
        expect(rail.get_by_role("list", name="Participants")).to_contain_text("rewriting the order service")
        handoff = rail.get_by_role("list", name="Handoffs").get_by_role("link", name="Freeze")
        page.get_by_role("link", name="Skip to the board").press("Enter")
        for _ in range(20):
            page.keyboard.press("Tab")
            if handoff.evaluate("link => link === document.activeElement"):
                break
        expect(handoff).to_be_focused()
        page.keyboard.press("Enter")
        expect(page.get_by_role("heading", name="Freeze").first).to_be_visible()


class _Board:
    """A page with a live part, built like any other page."""

    def __init__(self) -> None:
        self.text = "one"
        self.pages = PublicBlueprint("bulletin")
        self.pages.get("/bulletin")(self.index)

    def index(self) -> str | Response:
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
    with running_live_server(database_url, board.put_into) as url, open_page(chromium) as page:
        page.goto(f"{url}/bulletin")
        expect(page.get_by_text("now one")).to_be_visible()
        board.text = "two"
        expect(page.get_by_text("now two")).to_be_visible()
        # A part with the keyboard focus is updated, and keeps it.
        page.get_by_role("button", name="Do").focus()
        board.text = "three"
        expect(page.get_by_text("now three")).to_be_visible()
        expect(page.get_by_role("button", name="Do")).to_be_focused()
