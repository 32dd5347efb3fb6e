"""Valkey as a child process."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis as client
from redis.backoff import NoBackoff
from redis.retry import Retry

from cli.embedded import child, redis
from tests.servers import free_port, make_traversable_folder


@pytest.fixture
def folder() -> Iterator[Path]:
    path = make_traversable_folder()
    yield path
    shutil.rmtree(path, ignore_errors=True)


def _start(folder: Path, port: int | None = None) -> redis.RedisServer:
    server = redis.launch(folder / "redis", port=port or free_port(), log_path=folder / "log")
    redis.wait_until_ready(server)
    return server


def test_data_survives_a_kill(folder: Path) -> None:
    server = _start(folder)
    with client.Redis.from_url(server.url) as connection:
        connection.set("kept", "yes")
    server.process.kill()
    server.process.wait()
    server = _start(folder)
    try:
        with client.Redis.from_url(server.url) as connection:
            assert connection.get("kept") == b"yes"
            assert connection.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
    finally:
        redis.stop(server)


def test_a_connection_without_the_password_is_refused(folder: Path) -> None:
    server = _start(folder)
    try:
        no_retry = Retry(NoBackoff(), 0)
        with client.Redis(port=server.port, retry=no_retry) as connection, pytest.raises(client.AuthenticationError):
            connection.ping()
    finally:
        redis.stop(server)


def test_a_taken_port_raises_an_error_of_its_own(folder: Path) -> None:
    first = _start(folder)
    other = make_traversable_folder()
    try:
        with pytest.raises(child.PortTakenError):
            _start(other, first.port)
    finally:
        redis.stop(first)
        shutil.rmtree(other, ignore_errors=True)
