"""Real servers for every test: started by the run itself, ended with it."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from tests import servers
from tests.chromium import SKIP_REASON

_SERVERS = pytest.StashKey[servers.Servers]()


def pytest_configure(config: pytest.Config) -> None:
    """Start the servers, in the process that was called and not in its workers."""
    if hasattr(config, "workerinput") or config.option.collectonly:
        return
    config.stash[_SERVERS] = servers.Servers()


def pytest_xdist_auto_num_workers() -> int:
    """Half as many workers again as cores: a third of the time a test waits for processes, browsers and clocks."""
    return (os.cpu_count() or 2) * 3 // 2


def pytest_unconfigure(config: pytest.Config) -> None:
    """End them, after a broken-off run too."""
    if started := config.stash.get(_SERVERS, None):
        started.stop()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say loudly which tests of the browser were left out: a skip is easily taken for a pass."""
    left_out = [
        report.nodeid
        for report in terminalreporter.stats.get("skipped", [])
        if isinstance(report.longrepr, tuple) and SKIP_REASON in report.longrepr[2]
    ]
    if left_out:
        terminalreporter.section("LEFT OUT", sep="!", red=True, bold=True)
        terminalreporter.line(f"{len(left_out)} tests in a browser did not run: {SKIP_REASON}.")
        for nodeid in sorted(left_out):
            terminalreporter.line(f"  {nodeid}")


@pytest.fixture
def database_url() -> Iterator[str]:
    """A migrated, empty database of the test's own: for tests that commit, race or start processes."""
    with servers.cloned_database() as url:
        yield url


@pytest.fixture
def empty_database_url() -> Iterator[str]:
    """A database without a schema: for tests of the migrations."""
    with servers.empty_database() as url:
        yield url


@pytest.fixture(scope="session")
def shared_database_url() -> Iterator[str]:
    """One migrated database per worker process: for tests that roll back what they wrote."""
    with servers.cloned_database() as url:
        yield url


@pytest.fixture
def redis_url() -> Iterator[str]:
    """A logical database of Redis, empty, which no other worker process uses."""
    worker = os.environ.get("PYTEST_XDIST_WORKER", "gw0")
    url = servers.redis_url(int(worker.removeprefix("gw")))
    with redis.Redis.from_url(url) as client:
        client.flushdb()
        yield url
        client.flushdb()


@pytest.fixture(scope="session")
def postgres_log() -> Path:
    """The log of the run's PostgreSQL; each line carries the SQLSTATE (a deadlock is 40P01)."""
    return servers.postgres_log()
