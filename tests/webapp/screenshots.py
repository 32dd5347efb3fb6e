"""`make screens`: a screenshot of every page, at laptop and phone width, light and dark.

New pages are included automatically; page_catalog.py has the values of their addresses. A word after the folder selects
pages by name: `make screens ARGS="screens board"`.
"""

import sys
from contextlib import closing
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page

from bus.auth import login_links
from bus.client_setup import login_link_url
from bus.db import Database
from tests import servers
from tests.webapp import page_catalog
from tests.webapp.browser import LAPTOP_VIEWPORT, PHONE_VIEWPORT, launch_chromium, open_page
from tests.webapp.fake_oidc import FakeOidcProvider, running_provider
from tests.webapp.live_server import running_live_server
from tests.webapp.web_client import WebApp


def capture_screenshots(folder: Path, only: str = "") -> None:
    """Write screenshots of the pages with `only` in their name to `folder`, and print their number."""
    started = servers.Servers()
    count = 0
    try:
        with servers.cloned_database() as url, closing(Database(url, pool_size=2)) as db:
            example = page_catalog.create_sample_site(db)
            with closing(WebApp(url, **page_catalog.FEATURE_ENV)) as web:
                pages = [shown for shown in page_catalog.iter_pages(web, example) if only in shown.name]
            issuer = FakeOidcProvider()
            issuer.user_claims |= {"email": "hedy@example.org", "preferred_username": "hedy"}
            with (
                running_provider(issuer),
                running_live_server(url, **page_catalog.FEATURE_ENV, **issuer.env()) as address,
                launch_chromium() as browser,
            ):
                for size in (LAPTOP_VIEWPORT, PHONE_VIEWPORT):
                    for scheme in ("light", "dark"):
                        where = folder / f"{size['width']}-{scheme}"
                        where.mkdir(parents=True, exist_ok=True)
                        look: dict[str, Any] = {"viewport": size, "color_scheme": scheme}
                        count += _capture_pages(browser, address, db, example, pages, where, **look)
                        if not only:
                            count += _capture_sign_up(browser, address, where, **look)
                            count += _capture_one_time_cards(browser, address, db, example, where, **look)
    finally:
        started.stop()
    print(f"{count} pictures are in {folder}")


def sign_in(page: Page, address: str, db: Database, site: page_catalog.SampleSite) -> None:
    """Sign the sample owner in with a one-time link."""
    with db.connection() as conn:
        page.goto(login_link_url(address, login_links.create_login_link(conn, site.owner, actor="cli")))
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url("**/admin/")


def _capture_sign_up(browser: Browser, address: str, folder: Path, **options: Any) -> int:
    """Capture the sign-up page, empty and refused."""
    with open_page(browser, **options) as page:
        page.goto(f"{address}/sign-in")
        page.get_by_role("button", name="Continue with Example Inc.").click()
        page.wait_for_url("**/welcome")
        page.screenshot(path=folder / "welcome-index.png", full_page=True)
        page.get_by_label("Handle").fill("No Such Thing!")
        page.get_by_role("button", name="Create account").click()
        page.get_by_text("Handle must be").wait_for()
        page.screenshot(path=folder / "welcome-refused.png", full_page=True)
    return 2


def _capture_pages(
    browser: Browser,
    address: str,
    db: Database,
    site: page_catalog.SampleSite,
    pages: list[page_catalog.PageCase],
    folder: Path,
    **options: Any,
) -> int:
    for private in (False, True):
        with open_page(browser, **options) as page:
            if private:
                sign_in(page, address, db, site)
            for shown in pages:
                if shown.requires_sign_in == private:
                    page.goto(address + shown.path)
                    page.screenshot(path=folder / f"{shown.name}.png", full_page=True)
    return len(pages)


def _capture_one_time_cards(
    browser: Browser, address: str, db: Database, site: page_catalog.SampleSite, folder: Path, **options: Any
) -> int:
    """Capture the pages that are shown once."""
    count = 0
    with open_page(browser, **options) as page:
        sign_in(page, address, db, site)
        for name in page_catalog.show_one_time_cards(page, address, site):
            page.screenshot(path=folder / f"{name}.png", full_page=True)
            count += 1
    return count


if __name__ == "__main__":
    capture_screenshots(Path(sys.argv[1] if len(sys.argv) > 1 else "screens").resolve(), *sys.argv[2:3])
