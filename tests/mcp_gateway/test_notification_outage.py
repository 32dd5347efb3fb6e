"""Outages of Redis and of gateways lose and duplicate nothing: change notifications are only an optimisation."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest

from bus.db import Database
from tests.concurrency import hold_for, stretched, wait_until
from tests.factories import Agent
from tests.mcp_gateway.conftest import Team, make_team
from tests.mcp_gateway.mcp_client import McpClient
from tests.mcp_gateway.processes import GatewayProcess, running_gateways
from tests.metrics_scrape import METRICS_TOKEN
from tests.redis_server import RedisServer

_TIMEOUT_SECONDS = 120.0


@pytest.fixture
def redis_server(tmp_path: Path) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path / "redis")
    yield server
    server.stop_if_running()


@contextmanager
def _gateways_and_team(database_url: str, redis_url: str) -> Iterator[tuple[list[GatewayProcess], Team]]:
    db = Database(database_url, pool_size=2)
    team = make_team(db)
    db.close()
    with running_gateways(database_url, 2, REDIS_URL=redis_url, METRICS_TOKEN=METRICS_TOKEN) as processes:
        yield processes, team


class Reader(threading.Thread):
    """An agent that waits for posts and acks them in a loop; when its gateway is gone it uses the next one."""

    def __init__(self, processes: list[GatewayProcess], agent: Agent) -> None:
        super().__init__(daemon=True)
        self._urls = [process.url for process in processes]
        self._agent = agent
        self.received: list[int] = []
        self.is_stopping = False
        self.failure: BaseException | None = None

    def run(self) -> None:
        try:
            while not self.is_stopping:
                self._read()
        except BaseException as error:  # noqa: BLE001
            self.failure = error

    def _read(self) -> None:
        client = McpClient(self._urls[0], self._agent.token)
        try:
            while not self.is_stopping:
                result = client.call("wait_for", kind="inbox", timeout_seconds=3).structured_content
                post_ids = [post["post_id"] for post in result.get("posts", ())]
                if post_ids:
                    client.call("ack", post_ids=post_ids)
                    self.received += post_ids
        except httpx2.HTTPError:
            self._urls = self._urls[1:] + self._urls[:1]
        finally:
            client.close()


def _wait_for(reader: Reader, sent: list[int]) -> None:
    wait_until(lambda: set(reader.received) == set(sent) or reader.failure is not None)
    reader.is_stopping = True
    reader.join(_TIMEOUT_SECONDS)
    assert reader.failure is None
    assert sorted(set(reader.received)) == sorted(sent)


@pytest.mark.slow
def test_without_redis_posts_arrive_by_polling(database_url: str, redis_server: RedisServer) -> None:
    with _gateways_and_team(database_url, redis_server.start()) as (processes, team):
        alice, bob = McpClient(processes[0].url, team.alice.token), McpClient(processes[1].url, team.bob.token)
        redis_server.stop()
        for client in (alice, bob):
            assert client.call("whoami").status == 200
        for _ in range(3):
            results: list[dict[str, Any]] = []
            waiting = threading.Thread(
                target=lambda results=results: results.append(bob.call("wait_for").structured_content)
            )
            waiting.start()
            processes[1].wait_for_waiting_calls(1)
            post_id = alice.call("post", body="x", to_actor="bob").structured_content["post_id"]
            sent = time.monotonic()
            waiting.join(_TIMEOUT_SECONDS)
            # Two seconds between polls, plus time for a slow machine. If the outage went unnoticed it would be fifteen.
            assert time.monotonic() - sent < stretched(8)
            assert [post["post_id"] for post in results[0]["posts"]] == [post_id]
            bob.call("ack", post_id=post_id)
        alice.close()
        bob.close()


@pytest.mark.slow
def test_killing_and_restarting_redis_loses_nothing(database_url: str, redis_server: RedisServer) -> None:
    with _gateways_and_team(database_url, redis_server.start()) as (processes, team):
        reader = Reader([processes[1]], team.bob)
        reader.start()
        alice = McpClient(processes[0].url, team.alice.token)
        sent: list[int] = []

        def send() -> bool:
            post = alice.call("post", body=str(len(sent)), to_actor="bob").structured_content
            sent.append(post["post_id"])
            return True

        hold_for(send, seconds=1)
        redis_server.kill()
        hold_for(send, seconds=2)
        redis_server.start()
        hold_for(send, seconds=1)
        _wait_for(reader, sent)
        # Notifications work again: a post arrives before the next poll.
        delays = []
        for _ in range(8):
            results: list[Any] = []
            bob = McpClient(processes[1].url, team.bob.token)
            waiting = threading.Thread(
                target=lambda results=results, bob=bob: results.append(bob.call("wait_for").structured_content)
            )
            waiting.start()
            processes[1].wait_for_waiting_calls(1)
            post_id = alice.call("post", body="x", to_actor="bob").structured_content["post_id"]
            sent_at = time.monotonic()
            waiting.join(_TIMEOUT_SECONDS)
            delays.append(time.monotonic() - sent_at)
            bob.call("ack", post_id=post_id)
            bob.close()
            if delays[-1] < 1:
                break
        assert min(delays) < 1
        alice.close()


def test_killing_a_gateway_with_long_polls_loses_and_duplicates_nothing(
    database_url: str, redis_server: RedisServer
) -> None:
    with _gateways_and_team(database_url, redis_server.start()) as (processes, team):
        reader = Reader(processes[::-1], team.bob)
        reader.start()
        alice = McpClient(processes[0].url, team.alice.token)
        sent: list[int] = []

        def send() -> bool:
            post = alice.call("post", body=str(len(sent)), to_actor="bob").structured_content
            sent.append(post["post_id"])
            return True

        hold_for(send, seconds=1)
        processes[1].popen.kill()
        hold_for(send, seconds=1)
        _wait_for(reader, sent)
        acks = []
        before = None
        while True:
            page = alice.call("query_events", type="ack", limit=1000, before=before).structured_content
            acks += [event["payload"]["post_id"] for event in page["events"]]
            before = page["next_before"]
            if before is None:
                break
        assert sorted(acks) == sorted(sent)
        alice.close()


@pytest.mark.slow
def test_the_rate_limit_counts_the_calls_of_all_processes(database_url: str, redis_server: RedisServer) -> None:
    """120 a minute is 2 a second. After a burst of 20 in each process, both together admit 2 a second."""
    db = Database(database_url, pool_size=2)
    team = make_team(db)
    db.close()
    with running_gateways(database_url, 2, REDIS_URL=redis_server.start(), RATE_PER_MINUTE="120") as processes:
        clients = [McpClient(process.url, team.alice.token) for process in processes]
        started = time.monotonic()
        admitted, late = 0, 0

        def call_each() -> bool:
            nonlocal admitted, late
            for client in clients:
                if client.call("whoami").status == 200:
                    admitted += 1
                    late += time.monotonic() - started > 6
            return True

        hold_for(call_each, seconds=14)
        for client in clients:
            client.close()
        # Without sharing they would admit 4 a second: 96 in all, 32 of them late.
        assert 40 <= admitted <= 84, admitted
        assert late <= 26, late
