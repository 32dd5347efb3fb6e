"""A database for each test, and a Redis that the test may stop, for worker processes."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from bus.db import Database
from tests.redis_server import RedisServer


@pytest.fixture
def db(database_url: str) -> Iterator[Database]:
    """The database of the test, for many threads."""
    with closing(Database(database_url, pool_size=20)) as database:
        yield database


@pytest.fixture
def queue(tmp_path: Path) -> Iterator[RedisServer]:
    """A Redis that only this test starts, kills and restarts."""
    server = RedisServer(tmp_path / "redis")
    yield server
    server.stop_if_running()
