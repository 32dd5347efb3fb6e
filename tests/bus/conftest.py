"""Fixtures of the engine's tests: databases, and a project with an admin and two agents."""

from collections.abc import Iterator
from contextlib import closing

import pytest

from bus.db import Connection, Database
from bus.tenancy.projects import Project
from tests import factories, servers
from tests.factories import Agent


@pytest.fixture
def db(database_url: str) -> Iterator[Database]:
    """A private database for tests that commit, with connections for a hundred concurrent callers."""
    with closing(Database(servers.application_url(database_url), pool_size=110)) as database:
        yield database


@pytest.fixture(scope="session")
def _shared_db(shared_database_url: str) -> Iterator[Database]:
    with closing(Database(shared_database_url, pool_size=1)) as database:
        yield database


@pytest.fixture
def conn(_shared_db: Database) -> Iterator[Connection]:
    """A connection of the processes' role, in a transaction that is rolled back at the end."""
    with _shared_db.connection() as connection, connection.raw.transaction(force_rollback=True):
        servers.act_as_application(connection)
        yield connection


@pytest.fixture(scope="module")
def module_conn(_shared_db: Database) -> Iterator[Connection]:
    """As `conn`, for the tests of a file, which start with the same rows and each roll back to them."""
    with _shared_db.connection() as connection, connection.raw.transaction(force_rollback=True):
        servers.act_as_application(connection)
        yield connection


@pytest.fixture
def project(conn: Connection) -> Project:
    return factories.make_project(conn)


@pytest.fixture
def root(conn: Connection, project: Project) -> Agent:
    """A project-admin."""
    return factories.make_agent(conn, project, "root", is_admin=True)


@pytest.fixture
def ada(conn: Connection, project: Project) -> Agent:
    return factories.make_agent(conn, project, "ada")


@pytest.fixture
def bob(conn: Connection, project: Project) -> Agent:
    return factories.make_agent(conn, project, "bob")
