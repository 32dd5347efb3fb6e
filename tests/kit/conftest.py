"""Fixtures of the kit's tests: a running gateway, a team, and repositories under two interpreters."""

import os
import sys
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bus.db import Database
from tests import servers
from tests.kit import git_repo, python_versions
from tests.kit.git_repo import GitRepo
from tests.kit.python_fork_server import TIME_LIMITS_VARIABLE
from tests.kit.workplace import Workplace, make_workplace
from tests.mcp_gateway.conftest import Team, make_team
from tests.mcp_gateway.mcp_client import McpClient
from tests.mcp_gateway.processes import GatewayProcess, running_gateways

_INTERPRETERS = python_versions.oldest_and_newest()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Run each test under one of the two interpreters, alternating between them.

    Both for each test would take two more minutes; KIT_PYTHONS=all (`make test-kit`) runs them.
    """
    if len(_INTERPRETERS) < 2 or os.environ.get("KIT_PYTHONS") == "all":
        return
    selected: list[pytest.Item] = []
    deselected: list[pytest.Item] = []
    for item in items:
        callspec = getattr(item, "callspec", None)
        if callspec is None or "python" not in callspec.params:
            selected.append(item)
            continue
        version = next(name for name, path in _INTERPRETERS.items() if path == callspec.params["python"])
        # A hash of the test without its interpreter, so that all worker processes select the same tests.
        index = zlib.crc32(item.nodeid.replace(version, "").encode()) % 2
        (selected if list(_INTERPRETERS).index(version) == index else deselected).append(item)
    items[:] = selected
    config.hook.pytest_deselected(items=deselected)


@pytest.fixture(scope="session")
def kit_database_url() -> Iterator[str]:
    """One database per worker process, behind its gateway."""
    with servers.cloned_database() as url:
        yield url


@pytest.fixture(scope="session")
def kit_db(kit_database_url: str) -> Iterator[Database]:
    database = Database(kit_database_url, pool_size=4)
    yield database
    database.close()


@pytest.fixture(scope="session")
def gateway(kit_database_url: str) -> Iterator[GatewayProcess]:
    """A gateway for all tests of a worker process; each test uses its own project."""
    with running_gateways(kit_database_url) as (process,):
        yield process


@pytest.fixture
def team(kit_db: Database) -> Team:
    return make_team(kit_db)


@pytest.fixture
def bob(gateway: GatewayProcess, team: Team) -> Iterator[McpClient]:
    """A client of the bus with Bob's token: the other participant."""
    client = McpClient(gateway.url, team.bob.token)
    yield client
    client.close()


@pytest.fixture
def alice(gateway: GatewayProcess, team: Team) -> Iterator[McpClient]:
    """A client of the bus with Alice's token: the participant whose repository it is."""
    client = McpClient(gateway.url, team.alice.token)
    yield client
    client.close()


@pytest.fixture(params=_INTERPRETERS.values(), ids=list(_INTERPRETERS))
def python(request: pytest.FixtureRequest) -> str:
    """The oldest and the newest supported interpreter of this machine."""
    return str(request.param)


@pytest.fixture
def make_repo(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[str], GitRepo]:
    """Make a repository for an interpreter, with what the marks of the test require."""
    forks = request.node.get_closest_marker("new_interpreter") is None

    def make(python: str) -> GitRepo:
        repo = git_repo.make_repo(tmp_path, python, forks=forks)
        if request.node.get_closest_marker("time_limits") is not None:
            repo.env[TIME_LIMITS_VARIABLE] = "of the kit"
        return repo

    return make


@pytest.fixture
def repo(make_repo: Callable[[str], GitRepo], python: str) -> GitRepo:
    """A repository, for tests that run under both interpreters."""
    return make_repo(python)


@pytest.fixture
def plain(make_repo: Callable[[str], GitRepo]) -> GitRepo:
    """A repository, for tests that do not depend on the interpreter."""
    return make_repo(sys.executable)


@pytest.fixture
def connected(repo: GitRepo, gateway: GatewayProcess, team: Team) -> GitRepo:
    """Alice's repository with the kit, connected to the running gateway; docs/adr is governed."""
    repo.install(gateway.url, "--client", "none")
    repo.git("add", "-A")
    repo.extra_env = {"LLM_BUS_TOKEN": team.alice.token}
    assert repo.commit("kit").returncode == 0
    return repo


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Workplace:
    """A repository and a home folder in which the installer is called within this process."""
    return make_workplace(tmp_path, monkeypatch, capsys)
