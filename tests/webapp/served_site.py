"""A sample site behind a live server, for the browser tests of one file."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass

from bus.db import Database
from tests import servers
from tests.webapp import page_catalog
from tests.webapp.live_server import running_live_server
from tests.webapp.web_client import WebApp


@dataclass(frozen=True)
class ServedSite:
    """The address of the site, its database, its content and all of its pages."""

    url: str
    db: Database
    sample_site: page_catalog.SampleSite
    pages: list[page_catalog.PageCase]


@contextmanager
def serve_sample_site() -> Iterator[ServedSite]:
    """Serve the sample site from a database of its own."""
    with servers.cloned_database() as database_url, closing(Database(database_url, pool_size=2)) as db:
        sample_site = page_catalog.create_sample_site(db)
        with closing(WebApp(database_url, **page_catalog.FEATURE_ENV)) as web:
            pages = list(page_catalog.iter_pages(web, sample_site))
        with running_live_server(database_url, **page_catalog.FEATURE_ENV) as url:
            yield ServedSite(url, db, sample_site, pages)
