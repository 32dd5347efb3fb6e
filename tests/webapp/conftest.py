"""The web over a database of the test's own, and browsers in it."""

from collections.abc import Callable, Iterator
from contextlib import closing

import pytest

from bus.db import Database
from bus.tenancy import owners
from bus.tenancy.owners import Owner
from tests.webapp.browser import chromium
from tests.webapp.fake_oidc import GitHub, Issuer, served
from tests.webapp.sample_data import World, fill
from tests.webapp.web_client import Browser, Web

# One fixture for all files: a second Chromium at one time would need a second loop in the same thread.
__all__ = ["chromium"]


@pytest.fixture
def db(database_url: str) -> Iterator[Database]:
    with closing(Database(database_url, size=24)) as database:
        yield database


@pytest.fixture
def make_web(database_url: str) -> Iterator[Callable[..., Web]]:
    """Makes the web with settings as environment variables."""
    made: list[Web] = []

    def make(**env: str) -> Web:
        made.append(Web(database_url, **env))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture
def site(make_web: Callable[..., Web]) -> Web:
    """The web as it is without settings, reached over TLS."""
    return make_web()


@pytest.fixture
def stranger(site: Web) -> Browser:
    """A browser in which nobody is signed in."""
    return site.browser()


@pytest.fixture
def issuer() -> Iterator[Issuer]:
    made = Issuer()
    with served(made):
        yield made


@pytest.fixture
def github() -> Iterator[GitHub]:
    made = GitHub()
    with served(made):
        yield made


@pytest.fixture
def web(make_web: Callable[..., Web], issuer: Issuer) -> Web:
    return make_web(**issuer.env())


@pytest.fixture
def hub(make_web: Callable[..., Web], github: GitHub) -> Web:
    return make_web(**github.env())


@pytest.fixture
def world(db: Database) -> World:
    """An owner with a project that has something of everything, and an empty one."""
    with db.write() as conn:
        return fill(conn)


@pytest.fixture
def ada(site: Web, db: Database, world: World) -> Browser:
    """The owner of that world, signed in."""
    with db.call() as conn:
        return site.browser().sign_in(conn, world.owner)


@pytest.fixture
def boss(db: Database) -> Owner:
    with db.write() as conn:
        return owners.add(conn, "boss@example.org", handle="boss", operator=True)


@pytest.fixture
def desk(site: Web, db: Database, boss: Owner) -> Browser:
    """The operator, signed in just now."""
    with db.call() as conn:
        return site.browser().sign_in(conn, boss)
