"""Fixtures of the gateway's tests: two processes over one database, and a team in its own project."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from bus.db import Database
from tests import servers
from tests.factories import Agent, make_agent, make_project
from tests.mcp_gateway.mcp_client import McpClient
from tests.mcp_gateway.processes import GatewayProcess, running_gateways


@pytest.fixture(scope="session")
def shared_database_url() -> Iterator[str]:
    """One database per test worker behind its gateways, which write presence at any time.

    The engine's tests use another database, since they check the content of every table.
    """
    with servers.cloned_database() as url:
        yield url


@pytest.fixture(scope="session")
def gateway_db(shared_database_url: str) -> Iterator[Database]:
    """The database behind `gateways`; each test commits to its own projects."""
    database = Database(shared_database_url, pool_size=8)
    yield database
    database.close()


@pytest.fixture(scope="session")
def gateways(shared_database_url: str) -> Iterator[list[GatewayProcess]]:
    """Two gateway processes over one database, for all tests of a worker."""
    with running_gateways(shared_database_url, 2) as processes:
        yield processes


@pytest.fixture
def connect(gateways: list[GatewayProcess]) -> Iterator[Callable[..., McpClient]]:
    """Connect an agent: `connect(agent, modern=…, process=0)`; the fixture closes the clients."""
    clients: list[McpClient] = []

    def open_client(agent: Agent | None, *, modern: bool = True, process: int = 0) -> McpClient:
        client = McpClient(gateways[process].url, agent.token if agent else None, modern)
        clients.append(client)
        return client

    yield open_client
    for client in clients:
        client.close()


@dataclass(frozen=True)
class Team:
    """Two agents in their own project: alice is project-admin, bob is in lane `web`."""

    alice: Agent
    bob: Agent
    project_id: int
    owner_id: int


@pytest.fixture
def team(gateway_db: Database) -> Team:
    return make_team(gateway_db)


def make_team(db: Database) -> Team:
    with db.transaction() as conn:
        project = make_project(conn)
        alice = make_agent(conn, project, "alice", is_admin=True)
        bob = make_agent(conn, project, "bob", lane="web")
    return Team(alice, bob, project.id, project.owner_id)
