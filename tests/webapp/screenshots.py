"""`make screens`: a picture of every page, at the widths of a laptop and of a phone, light and dark.

A new page is among them by being there; what its address needs is said in examples.py. A word after the folder takes
those pages only whose name has it: `make screens ARGS="screens board"`.
"""

import sys
from contextlib import closing
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page

from bus.auth import login_links
from bus.db import Database
from tests import servers
from tests.webapp import page_catalog
from tests.webapp.browser import LAPTOP, PHONE, launched, opened
from tests.webapp.fake_oidc import Issuer, served
from tests.webapp.live_server import live
from tests.webapp.web_client import Web


def main(folder: Path, only: str = "") -> None:
    """Write the pictures of the pages that have `only` in their name into `folder`, and say how many."""
    started = servers.Servers()
    count = 0
    try:
        with servers.cloned_database() as url, closing(Database(url, size=2)) as db:
            example = page_catalog.fill(db)
            with closing(Web(url, **page_catalog.ENV)) as web:
                pages = [shown for shown in page_catalog.every_page(web, example) if only in shown.name]
            issuer = Issuer()
            issuer.person |= {"email": "hedy@example.org", "preferred_username": "hedy"}
            with served(issuer), live(url, **page_catalog.ENV, **issuer.env()) as address, launched() as browser:
                for size in (LAPTOP, PHONE):
                    for scheme in ("light", "dark"):
                        where = folder / f"{size['width']}-{scheme}"
                        where.mkdir(parents=True, exist_ok=True)
                        look: dict[str, Any] = {"viewport": size, "color_scheme": scheme}
                        count += _take(browser, address, db, example, pages, where, **look)
                        if not only:
                            count += _newcomer(browser, address, where, **look)
                            count += _cards(browser, address, db, example, where, **look)
    finally:
        started.stop()
    print(f"{count} pictures are in {folder}")


def sign_in(page: Page, address: str, db: Database, example: page_catalog.Example) -> None:
    """Sign the example's owner in, as people do."""
    with db.call() as conn:
        page.goto(login_links.address(address, login_links.create(conn, example.owner)))
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url("**/admin/")


def _newcomer(browser: Browser, address: str, where: Path, **options: Any) -> int:
    """Take what only somebody sees who comes for the first time."""
    with opened(browser, **options) as page:
        page.goto(f"{address}/sign-in")
        page.get_by_role("button", name="Continue with Example Inc.").click()
        page.wait_for_url("**/welcome")
        page.screenshot(path=where / "welcome-index.png", full_page=True)
        page.get_by_label("Handle").fill("No Such Thing!")
        page.get_by_role("button", name="Open the account").click()
        page.get_by_text("Handle must be").wait_for()
        page.screenshot(path=where / "welcome-refused.png", full_page=True)
    return 2


def _take(
    browser: Browser,
    address: str,
    db: Database,
    example: page_catalog.Example,
    pages: list[page_catalog.Shown],
    where: Path,
    **options: Any,
) -> int:
    for private in (False, True):
        with opened(browser, **options) as page:
            if private:
                sign_in(page, address, db, example)
            for shown in pages:
                if shown.private == private:
                    page.goto(address + shown.path)
                    page.screenshot(path=where / f"{shown.name}.png", full_page=True)
    return len(pages)


def _cards(
    browser: Browser, address: str, db: Database, example: page_catalog.Example, where: Path, **options: Any
) -> int:
    """Take what is shown once."""
    count = 0
    with opened(browser, **options) as page:
        sign_in(page, address, db, example)
        for name in page_catalog.cards(page, address, example):
            page.screenshot(path=where / f"{name}.png", full_page=True)
            count += 1
    return count


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "screens").resolve(), *sys.argv[2:3])
