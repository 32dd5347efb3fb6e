"""What the kit's tests share: a running gateway, a team, and repositories under two interpreters."""

import os
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from bus.db import Database
from tests import servers
from tests.kit import git_repo, python_versions
from tests.kit.git_repo import GitRepo
from tests.mcp_gateway.conftest import Team, make_team
from tests.mcp_gateway.mcp_client import McpClient
from tests.mcp_gateway.processes import GatewayProcess, running_gateways

_INTERPRETERS = python_versions.oldest_and_newest()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Take each test under one of the two interpreters, so that all of them together run under both.

    Twice as many would take two minutes more of every run; KIT_PYTHONS=all (`make test-kit`) takes them.
    """
    if len(_INTERPRETERS) < 2 or os.environ.get("KIT_PYTHONS") == "all":
        return
    taken, left = [], []
    for item in items:
        given = getattr(item, "callspec", None)
        if given is None or "python" not in given.params:
            taken.append(item)
            continue
        version = next(one for one in _INTERPRETERS if _INTERPRETERS[one] == given.params["python"])
        # By the test without its interpreter, the same in every process.
        turn = zlib.crc32(item.nodeid.replace(version, "").encode()) % 2
        (taken if list(_INTERPRETERS).index(version) == turn else left).append(item)
    items[:] = taken
    config.hook.pytest_deselected(items=left)


@pytest.fixture(scope="session")
def kit_database_url() -> Iterator[str]:
    """One database per worker process behind its gateway."""
    with servers.cloned_database() as url:
        yield url


@pytest.fixture(scope="session")
def kit_db(kit_database_url: str) -> Iterator[Database]:
    database = Database(kit_database_url, pool_size=4)
    yield database
    database.close()


@pytest.fixture(scope="session")
def gateway(kit_database_url: str) -> Iterator[GatewayProcess]:
    """A gateway for all tests of a worker; what they do stays in projects of their own."""
    with running_gateways(kit_database_url) as (process,):
        yield process


@pytest.fixture
def team(kit_db: Database) -> Team:
    return make_team(kit_db)


@pytest.fixture
def bob(gateway: GatewayProcess, team: Team) -> Iterator[McpClient]:
    """The other identity, as he calls the bus himself."""
    wire = McpClient(gateway.url, team.bob.token)
    yield wire
    wire.close()


@pytest.fixture
def alice(gateway: GatewayProcess, team: Team) -> Iterator[McpClient]:
    """The identity whose repository it is, as she calls the bus herself."""
    wire = McpClient(gateway.url, team.alice.token)
    yield wire
    wire.close()


@pytest.fixture(params=_INTERPRETERS.values(), ids=list(_INTERPRETERS))
def python(request: pytest.FixtureRequest) -> str:
    """The oldest and the newest interpreter of this machine, by name."""
    return str(request.param)


@pytest.fixture
def repo(tmp_path: Path, python: str) -> GitRepo:
    """A repository, for tests that are to pass under both interpreters."""
    return git_repo.make_repo(tmp_path, python)


@pytest.fixture
def plain(tmp_path: Path) -> GitRepo:
    """A repository, for tests of what does not depend on the interpreter."""
    return git_repo.make_repo(tmp_path, sys.executable)


@pytest.fixture
def connected(repo: GitRepo, gateway: GatewayProcess, team: Team) -> GitRepo:
    """A repository of alice's with the kit in it, connected to the running gateway; docs/adr is governed."""
    repo.install(gateway.url, "--client", "none")
    repo.git("add", "-A")
    repo.extra_env = {"LLM_BUS_TOKEN": team.alice.token}
    assert repo.commit("kit").returncode == 0
    return repo
