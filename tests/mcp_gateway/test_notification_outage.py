"""Push while things fail: Redis stops, is killed and comes back, a gateway is killed. Nothing is missed or doubled."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest

from bus.db import Database
from tests.factories import Agent
from tests.mcp_gateway.conftest import Team, make_team
from tests.mcp_gateway.mcp_client import McpClient
from tests.mcp_gateway.processes import GatewayProcess, running_gateways
from tests.redis_server import RedisServer

_PATIENCE = 30.0


@pytest.fixture
def queue(tmp_path: Path) -> Iterator[RedisServer]:
    made = RedisServer(tmp_path / "redis")
    yield made
    made.stop_if_running()


@contextmanager
def _pushed(database_url: str, redis_url: str) -> Iterator[tuple[list[GatewayProcess], Team]]:
    db = Database(database_url, pool_size=2)
    team = make_team(db)
    db.close()
    with running_gateways(database_url, 2, REDIS_URL=redis_url) as processes:
        yield processes, team


class Reader(threading.Thread):
    """An agent that waits for posts, acks them, and waits again; when its process is gone it goes to the next."""

    def __init__(self, processes: list[GatewayProcess], agent: Agent) -> None:
        super().__init__(daemon=True)
        self._urls = [process.url for process in processes]
        self._agent = agent
        self.got: list[int] = []
        self.stopping = False
        self.failure: BaseException | None = None

    def run(self) -> None:
        try:
            while not self.stopping:
                self._read()
        except BaseException as error:  # noqa: BLE001
            self.failure = error

    def _read(self) -> None:
        wire = McpClient(self._urls[0], self._agent.token)
        try:
            while not self.stopping:
                news = wire.call("wait_for", kind="inbox", timeout_seconds=3).structured_content
                posts = [one["post_id"] for one in news.get("posts", ())]
                if posts:
                    wire.call("ack", post_ids=posts)
                    self.got += posts
        except httpx2.HTTPError:
            self._urls = self._urls[1:] + self._urls[:1]
            time.sleep(0.05)
        finally:
            wire.close()


def _wait_for(reader: Reader, sent: list[int]) -> None:
    deadline = time.monotonic() + _PATIENCE
    while set(reader.got) != set(sent) and time.monotonic() < deadline and reader.failure is None:
        time.sleep(0.05)
    reader.stopping = True
    reader.join(_PATIENCE)
    assert reader.failure is None
    assert sorted(set(reader.got)) == sorted(sent)


def test_without_redis_news_comes_by_polling(database_url: str, queue: RedisServer) -> None:
    with _pushed(database_url, queue.start()) as (processes, team):
        alice, bob = McpClient(processes[0].url, team.alice.token), McpClient(processes[1].url, team.bob.token)
        queue.stop()
        for wire in (alice, bob):
            assert wire.call("whoami").status == 200
        for _ in range(3):
            news: list[dict[str, Any]] = []
            waiting = threading.Thread(target=lambda news=news: news.append(bob.call("wait_for").structured_content))
            waiting.start()
            time.sleep(0.5)
            post_id = alice.call("post", body="x", to_actor="bob").structured_content["post_id"]
            sent = time.monotonic()
            waiting.join(_PATIENCE)
            # Two seconds between polls, on a machine that may be slow; with hints lost unseen it would be fifteen.
            assert time.monotonic() - sent < 8
            assert [one["post_id"] for one in news[0]["posts"]] == [post_id]
            bob.call("ack", post_id=post_id)
        alice.close()
        bob.close()


def test_redis_killed_and_started_again_in_the_middle_loses_nothing(database_url: str, queue: RedisServer) -> None:
    with _pushed(database_url, queue.start()) as (processes, team):
        reader = Reader([processes[1]], team.bob)
        reader.start()
        alice = McpClient(processes[0].url, team.alice.token)
        sent = []
        for number in range(80):
            sent.append(alice.call("post", body=str(number), to_actor="bob").structured_content["post_id"])
            if number == 20:
                queue.kill()
            if number == 55:
                queue.start()
            time.sleep(0.05)
        _wait_for(reader, sent)
        # Hints travel again: news comes before any poll would bring it.
        time.sleep(3)
        taken = []
        for _ in range(5):
            news: list[Any] = []
            bob = McpClient(processes[1].url, team.bob.token)
            waiting = threading.Thread(
                target=lambda news=news, bob=bob: news.append(bob.call("wait_for").structured_content)
            )
            waiting.start()
            time.sleep(0.3)
            post_id = alice.call("post", body="x", to_actor="bob").structured_content["post_id"]
            sent_at = time.monotonic()
            waiting.join(_PATIENCE)
            taken.append(time.monotonic() - sent_at)
            bob.call("ack", post_id=post_id)
            bob.close()
        assert min(taken) < 1
        alice.close()


def test_a_gateway_killed_under_its_waiters_loses_and_doubles_nothing(database_url: str, queue: RedisServer) -> None:
    with _pushed(database_url, queue.start()) as (processes, team):
        reader = Reader(processes[::-1], team.bob)
        reader.start()
        alice = McpClient(processes[0].url, team.alice.token)
        sent = []
        for number in range(60):
            sent.append(alice.call("post", body=str(number), to_actor="bob").structured_content["post_id"])
            if number == 30:
                processes[1].popen.kill()
            time.sleep(0.03)
        _wait_for(reader, sent)
        acks = []
        before = None
        while True:
            page = alice.call("query_events", type="ack", limit=1000, before=before).structured_content
            acks += [one["payload"]["post_id"] for one in page["events"]]
            before = page["next_before"]
            if before is None:
                break
        assert sorted(acks) == sorted(sent)
        alice.close()


def test_processes_count_the_calls_of_a_token_together(database_url: str, queue: RedisServer) -> None:
    """120 a minute is 2 a second, with a burst of 20 in each process; then both together admit 2 a second."""
    db = Database(database_url, pool_size=2)
    team = make_team(db)
    db.close()
    with running_gateways(database_url, 2, REDIS_URL=queue.start(), RATE_PER_MINUTE="120") as processes:
        wires = [McpClient(process.url, team.alice.token) for process in processes]
        started = time.monotonic()
        admitted, late = 0, 0
        while (passed := time.monotonic() - started) < 14:
            for wire in wires:
                if wire.call("whoami").status == 200:
                    admitted += 1
                    late += passed > 6
            time.sleep(0.1)
        for wire in wires:
            wire.close()
        # Each for itself would admit 4 a second: 96 in all, 32 of them late.
        assert 40 <= admitted <= 84, admitted
        assert late <= 26, late
