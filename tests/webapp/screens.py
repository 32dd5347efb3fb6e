"""`make screens`: a picture of every page, at the widths of a laptop and of a phone, light and dark.

A new page is among them by being there. What its address needs is looked up in `_values`.
"""

import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, BrowserContext
from werkzeug.routing import Rule

from bus import login_links, owners, projects
from bus.db import Database
from bus.rules.tokens import mint_code
from tests import scenes, servers
from tests.factories import make_owner, make_project
from tests.webapp.browser import LAPTOP, PHONE, launched
from tests.webapp.live import live
from tests.webapp.visits import Web
from webapp.page import Pages

_SKIPPED = {"static", "health.healthz", "health.readyz"}


def main(folder: Path) -> None:
    """Write the pictures into `folder`, and say how many."""
    started = servers.Servers()
    try:
        with servers.cloned_database() as url, closing(Database(url, size=2)) as db:
            owner, project = _fill(db)
            with live(url) as address, launched() as browser, closing(Web(url)) as web:
                count = sum(
                    _take(browser, address, db, owner, list(_pages(web, db, project)), folder, width, scheme)
                    for width in (LAPTOP, PHONE)
                    for scheme in ("light", "dark")
                )
    finally:
        started.stop()
    print(f"{count} pictures are in {folder}")


def _fill(db: Database) -> tuple[owners.Owner, projects.Project]:
    with db.write() as conn:
        owner = make_owner(conn, "ada")
        project = make_project(conn, "apollo", owner)
        scenes.set_up(conn, project)
        make_project(conn, "website", owner)
    return owner, project


def _pages(web: Web, db: Database, project: projects.Project) -> Iterator[tuple[str, str, bool]]:
    """Name, path and whether one has to be signed in, of every page."""
    with web.app.test_request_context():
        for rule in web.app.url_map.iter_rules():
            if rule.endpoint in _SKIPPED or "GET" not in (rule.methods or ()):
                continue
            values = _values(db, rule, project)
            built = rule.build(values)
            if built is None or set(values) < rule.arguments:
                print(f"left out: {rule.rule} (say in tests/webapp/screens.py what its address needs)")
                continue
            private = isinstance(web.app.blueprints.get(rule.endpoint.partition(".")[0]), Pages)
            yield rule.endpoint.replace(".", "-").replace("_", "-"), built[1], private
    yield "error-404", "/nope", False


def _values(_db: Database, rule: Rule, project: projects.Project) -> dict[str, Any]:
    known: dict[str, Any] = {"project_id": project.id, "code": mint_code(), "token": "x" * 43}
    return {name: known[name] for name in rule.arguments if name in known}


def _take(
    browser: Browser,
    address: str,
    db: Database,
    owner: owners.Owner,
    pages: list[tuple[str, str, bool]],
    folder: Path,
    size: dict[str, int],
    scheme: Any,
) -> int:
    where = folder / f"{size['width']}-{scheme}"
    where.mkdir(parents=True, exist_ok=True)
    for private in (False, True):
        context: BrowserContext = browser.new_context(viewport=size, color_scheme=scheme)  # type: ignore[arg-type]
        page = context.new_page()
        if private:
            with db.call() as conn:
                page.goto(f"{address}/sign-in/link/{login_links.create(conn, owner)}")
            page.get_by_role("button", name="Sign in").click()
        for name, path, needs in pages:
            if needs == private:
                page.goto(address + path)
                page.screenshot(path=where / f"{name}.png", full_page=True)
        context.close()
    return len(pages)


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "screens").resolve())
