"""The web application over a database of the test, and its browsers."""

from collections.abc import Callable, Iterator
from contextlib import closing

import pytest

from bus.db import Database
from bus.tenancy import owners
from bus.tenancy.owners import Owner
from tests import servers
from tests.webapp.browser import chromium, chromium_process
from tests.webapp.fake_oidc import FakeGitHub, FakeOidcProvider, running_provider
from tests.webapp.sample_data import SampleData
from tests.webapp.sample_database import SampleDatabase
from tests.webapp.web_client import Browser, WebApp

# Fixtures for all files.
__all__ = ["chromium", "chromium_process"]


@pytest.fixture(scope="session")
def sample_database() -> Iterator[SampleDatabase]:
    with closing(SampleDatabase()) as database:
        yield database


@pytest.fixture
def database_url(request: pytest.FixtureRequest, sample_database: SampleDatabase) -> Iterator[str]:
    """A database for one test: a copy of the sample database if the test uses `sample`, else an empty one."""
    template = sample_database.fresh_url() if "sample" in request.fixturenames else None
    with servers.cloned_database(template) as url:
        yield url


@pytest.fixture
def db(database_url: str) -> Iterator[Database]:
    with closing(Database(database_url, pool_size=24)) as database:
        yield database


@pytest.fixture
def make_web(database_url: str) -> Iterator[Callable[..., WebApp]]:
    """Create web applications with settings as environment variables."""
    made: list[WebApp] = []

    def make(**env: str) -> WebApp:
        made.append(WebApp(database_url, **env))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture
def site(make_web: Callable[..., WebApp]) -> WebApp:
    """The web application with default settings, reached over TLS."""
    return make_web()


@pytest.fixture
def stranger(site: WebApp) -> Browser:
    """A browser that is not signed in."""
    return site.new_browser()


@pytest.fixture
def issuer() -> Iterator[FakeOidcProvider]:
    made = FakeOidcProvider()
    with running_provider(made):
        yield made


@pytest.fixture
def github() -> Iterator[FakeGitHub]:
    made = FakeGitHub()
    with running_provider(made):
        yield made


@pytest.fixture
def web(make_web: Callable[..., WebApp], issuer: FakeOidcProvider) -> WebApp:
    return make_web(**issuer.env())


@pytest.fixture
def github_web(make_web: Callable[..., WebApp], github: FakeGitHub) -> WebApp:
    return make_web(**github.env())


@pytest.fixture
def sample(database_url: str, sample_database: SampleDatabase) -> SampleData:
    """An owner with a project that has something of everything, and an empty one; `database_url` contains them."""
    return sample_database.sample


@pytest.fixture
def ada(site: WebApp, db: Database, sample: SampleData) -> Browser:
    """The owner of that world, signed in."""
    with db.connection() as conn:
        return site.new_browser().sign_in(conn, sample.owner)


@pytest.fixture
def boss(db: Database) -> Owner:
    with db.transaction() as conn:
        return owners.add(conn, "boss@example.org", handle="boss", operator=True, actor="cli")


@pytest.fixture
def operator_browser(site: WebApp, db: Database, boss: Owner) -> Browser:
    """The operator, signed in just now."""
    with db.connection() as conn:
        return site.new_browser().sign_in(conn, boss)
