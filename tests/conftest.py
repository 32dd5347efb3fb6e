"""Real servers for every test, started and stopped by the test run."""

import functools
import gc
import math
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import httpcore2
import pytest
import redis
from hypothesis import HealthCheck, settings

from tests import servers
from tests.chromium import SKIP_REASON

# Clients of tests talk to servers of this machine; each would read the certificates of the system for 46 ms.
httpcore2.default_ssl_context = functools.cache(httpcore2.default_ssl_context)

# Limits of time would fail tests on a loaded machine.
settings.register_profile("shared machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("shared machine")

_ENGINE_TESTS = "tests/bus/"
_SERVERS = pytest.StashKey[servers.Servers]()


def pytest_configure(config: pytest.Config) -> None:
    """Start the servers in the main process, not in the xdist workers."""
    if hasattr(config, "workerinput") or config.option.collectonly:
        return
    config.stash[_SERVERS] = started = servers.Servers()
    # Temporary files of tests and of their processes are beside the databases; `--basetemp` keeps those of pytest.
    os.environ["TMPDIR"] = tempfile.tempdir = str(started.make_temporary_folder())


def pytest_xdist_auto_num_workers() -> int:
    """Use two workers per core: tests wait much of the time for processes, browsers and clocks."""
    return (os.cpu_count() or 2) * 2


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Give each test worker its part of the list: tests that share servers together, and slow tests first.

    A slow test that begins last prolongs the run by its whole length. The engine's tests start no servers, so they are
    at the end of each part, which xdist gives to workers that have nothing left to do.
    """
    worker_count = getattr(config, "workerinput", {}).get("workercount", 1)
    served = sorted(
        (item for item in items if not item.nodeid.startswith(_ENGINE_TESTS)), key=lambda item: str(item.path.parent)
    )
    engine = [item for item in items if item.nodeid.startswith(_ENGINE_TESTS)]
    ordered: list[pytest.Item] = []
    for worker in range(worker_count):
        # xdist first gives each worker a part of this size.
        size = (len(items) - len(ordered)) // (worker_count - worker)
        part = served[: min(size, math.ceil(len(served) / (worker_count - worker)))]
        del served[: len(part)]
        engine_part = engine[: size - len(part)]
        del engine[: len(engine_part)]
        part += engine_part
        ordered += sorted(part, key=lambda item: item.get_closest_marker("slow") is None)
    items[:] = ordered


def pytest_collection_finish() -> None:
    """Take the modules and the tests out of each later garbage collection, which took 6% of the CPU of a run."""
    gc.collect()
    gc.freeze()


def pytest_unconfigure(config: pytest.Config) -> None:
    """Stop the servers, also after an aborted run."""
    if started := config.stash.get(_SERVERS, None):
        started.stop()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """List the browser tests that were skipped: a skip is easily mistaken for a pass."""
    skipped = [
        report.nodeid
        for report in terminalreporter.stats.get("skipped", [])
        if isinstance(report.longrepr, tuple) and SKIP_REASON in report.longrepr[2]
    ]
    if skipped:
        terminalreporter.section("SKIPPED", sep="!", red=True, bold=True)
        terminalreporter.line(f"{len(skipped)} browser tests did not run: {SKIP_REASON}.")
        for nodeid in sorted(skipped):
            terminalreporter.line(f"  {nodeid}")


@pytest.fixture
def database_url() -> Iterator[str]:
    """A migrated, empty database for one test that commits, races or starts processes."""
    with servers.cloned_database() as url:
        yield url


@pytest.fixture
def empty_database_url() -> Iterator[str]:
    """A database without a schema, for tests of the migrations."""
    with servers.empty_database() as url:
        yield url


@pytest.fixture(scope="session")
def shared_database_url() -> Iterator[str]:
    """One migrated database per worker process, for tests that roll back their writes."""
    with servers.cloned_database() as url:
        yield url


@pytest.fixture
def redis_url() -> Iterator[str]:
    """An empty logical Redis database that no other worker process uses."""
    worker = os.environ.get("PYTEST_XDIST_WORKER", "gw0")
    url = servers.redis_url(int(worker.removeprefix("gw")))
    with redis.Redis.from_url(url) as client:
        client.flushdb()
        yield url
        client.flushdb()


@pytest.fixture(scope="session")
def postgres_log() -> Path:
    """The PostgreSQL log of this run; each line has the SQLSTATE (a deadlock is 40P01)."""
    return servers.postgres_log()
