"""A database of the test's own and a Redis that it may stop, for processes of the workers."""

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
    """A Redis of the test's own, which it starts, kills and starts again."""
    made = RedisServer(tmp_path / "redis")
    yield made
    made.stop_if_running()
