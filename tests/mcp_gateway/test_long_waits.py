"""Long polls that wait long: keep-alive pings, early ends, progress, and limits across processes."""

import asyncio
import contextlib
import json
import os
import threading
import time
from collections.abc import Iterator
from typing import Any, cast

import httpx2
import pytest
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

from bus.coordination import posts
from bus.coordination.change_notifications import NotificationPublisher
from bus.db import Database
from bus.tenancy import tokens
from mcp_gateway import mcp_endpoint
from tests import servers
from tests.concurrency import stretched, wait_until
from tests.factories import Agent
from tests.mcp_gateway.conftest import Team, make_team
from tests.mcp_gateway.mcp_client import MODERN, McpClient, McpResponse
from tests.mcp_gateway.processes import GatewayProcess, running_gateways
from tests.mcp_gateway.raw_http import build_tool_call, open_raw_connection
from tests.metrics_scrape import METRICS_TOKEN

_TIMEOUT_SECONDS = 120.0
_WAITS_PER_TOKEN = 12
_SHORT_INTERVALS = {
    "mcp_gateway.mcp_endpoint._PING_INTERVAL_SECONDS": 1.0,
    "mcp_gateway.long_poll._PROGRESS_INTERVAL_SECONDS": 1.0,
    "mcp_gateway.concurrency_limit._SHARE_INTERVAL_SECONDS": 0.3,
    "mcp_gateway.concurrency_limit._EXPIRE_SECONDS": 2,
}


def _redis_url() -> str:
    worker = os.environ.get("PYTEST_XDIST_WORKER", "gw0")
    return servers.redis_url(int(worker.removeprefix("gw")))


@pytest.fixture(scope="module")
def gateways_with_redis(shared_database_url: str) -> Iterator[list[GatewayProcess]]:
    """Two gateways that share a Redis."""
    with running_gateways(
        shared_database_url,
        2,
        constants=_SHORT_INTERVALS,
        REDIS_URL=_redis_url(),
        METRICS_TOKEN=METRICS_TOKEN,
        WAITS_PER_TOKEN=str(_WAITS_PER_TOKEN),
    ) as processes:
        yield processes


def _call(process: GatewayProcess, agent: Agent, tool: str, **arguments: object) -> Any:
    client = McpClient(process.url, agent.token)
    try:
        return client.call(tool, **arguments).structured_content
    finally:
        client.close()


@pytest.mark.parametrize("version", [MODERN, "2025-06-18"])
def test_a_silent_long_poll_sends_pings(gateways_with_redis: list[GatewayProcess], team: Team, version: str) -> None:
    """The response then is a stream that ends with the result. Proxies close connections silent for 30 to 60 s."""
    assert mcp_endpoint._PING_INTERVAL_SECONDS <= 15
    _call(gateways_with_redis[0], team.bob, "whoami")
    with open_raw_connection(gateways_with_redis[0]) as connection:
        connection.socket.settimeout(_TIMEOUT_SECONDS)
        started = time.monotonic()
        connection.socket.sendall(build_tool_call(team.bob.token, version, "wait_for", timeout_seconds=50))
        first = b""
        while b": ping\r\n\r\n" not in first:
            first += connection.socket.recv(65536)
        assert 0.8 < time.monotonic() - started < _TIMEOUT_SECONDS
        assert b"content-type: text/event-stream" in first
        connection.parser.receive_data(first)
        _call(gateways_with_redis[1], team.alice, "post", body="late", to_actor="bob")
        ((status, _, body),) = connection.exchange(response_count=1)
        data = body.decode().split("data: ", 1)[1]
        content = json.loads(data)["result"]["structuredContent"]
        assert (status, content["posts"][0]["body"]) == (200, "late")
        assert connection.is_open(team.bob.token)


def test_a_token_revoked_during_a_long_poll_gets_an_error_event(database_url: str) -> None:
    db = Database(database_url, pool_size=2)
    team = make_team(db)
    gateway = running_gateways(database_url, constants=_SHORT_INTERVALS)
    with gateway as (process,), open_raw_connection(process) as connection:
        _call(process, team.bob, "whoami")
        connection.socket.settimeout(_TIMEOUT_SECONDS)
        connection.socket.sendall(build_tool_call(team.bob.token, MODERN, "wait_for", timeout_seconds=50))
        connection.parser.receive_data(connection.socket.recv(65536))
        with db.transaction() as conn:
            tokens.revoke_all(conn, team.project_id, "bob", actor="cli")
        ((status, _, body),) = connection.exchange(response_count=1)
        message = json.loads(body.decode().split("data: ", 1)[1])
        assert (status, message["error"]["message"]) == (200, "Not authenticated")
    db.close()


def test_a_request_sent_during_a_long_poll_is_answered_after_it(
    gateways_with_redis: list[GatewayProcess], team: Team
) -> None:
    _call(gateways_with_redis[0], team.bob, "whoami")
    with open_raw_connection(gateways_with_redis[0]) as connection:
        connection.socket.sendall(build_tool_call(team.bob.token, MODERN, "wait_for", timeout_seconds=2))
        connection.assert_silent(0.3)
        answers = connection.exchange(build_tool_call(team.bob.token, MODERN, "whoami"), response_count=2)
        assert b'"timed_out":true' in answers[0][2]
        assert b'"label":"bob"' in answers[1][2]


def test_a_client_that_requests_progress_receives_it(gateways_with_redis: list[GatewayProcess], team: Team) -> None:
    reported: list[tuple[float, float | None]] = []

    async def report(progress: float, total: float | None, message: str | None) -> None:
        reported.append((progress, total))

    async def main() -> None:
        headers = {"Authorization": f"Bearer {team.bob.token}"}
        async with (
            httpx2.AsyncClient(headers=headers, timeout=60) as http,
            Client(streamable_http_client(gateways_with_redis[0].url, http_client=http)) as client,
        ):
            result = await client.call_tool("wait_for", {"timeout_seconds": 2}, progress_callback=report)
            assert result.structured_content == {"timed_out": True}

    asyncio.run(main())
    assert reported == [(1, 2)]


def _wait_for_status(client: McpClient, status: int) -> McpResponse:
    """Call until the response has this status, and return it."""

    def call() -> McpResponse | None:
        response = client.call("wait_for", timeout_seconds=1)
        return response if response.status == status else None

    return cast(McpResponse, wait_until(call, _TIMEOUT_SECONDS))


def test_the_limit_of_waiting_calls_counts_all_processes(gateways_with_redis: list[GatewayProcess], team: Team) -> None:
    waiting_clients: list[McpClient] = []

    def wait(process: GatewayProcess) -> None:
        client = McpClient(process.url, team.bob.token)
        waiting_clients.append(client)
        threading.Thread(target=client.call, args=("wait_for",), kwargs={"timeout_seconds": 20}, daemon=True).start()

    for _ in range(_WAITS_PER_TOKEN):
        wait(gateways_with_redis[0])
    client = McpClient(gateways_with_redis[1].url, team.bob.token)
    response = _wait_for_status(client, 429)
    assert response.headers["retry-after"] == "1"
    # All long polls end, so this process accepts new ones again.
    _call(gateways_with_redis[0], team.alice, "post", body="x", to_actor="bob")
    _wait_for_status(client, 200)
    for opened_client in (*waiting_clients, client):
        opened_client.close()


def test_the_counts_of_a_killed_process_expire(database_url: str) -> None:
    db = Database(database_url, pool_size=2)
    team = make_team(db)
    db.close()
    with running_gateways(database_url, 2, constants=_SHORT_INTERVALS, REDIS_URL=_redis_url(), WAITS_PER_TOKEN="2") as (
        first,
        second,
    ):
        for _ in range(2):
            client = McpClient(first.url, team.bob.token)
            threading.Thread(target=_wait_ignoring_errors, args=(client,), daemon=True).start()
        client = McpClient(second.url, team.bob.token)
        _wait_for_status(client, 429)
        first.popen.kill()
        _wait_for_status(client, 200)
        client.close()


def _wait_ignoring_errors(client: McpClient) -> None:
    with contextlib.suppress(httpx2.HTTPError):
        client.call("wait_for", timeout_seconds=50)


def test_posts_read_as_a_resource_are_surfaced(
    gateways_with_redis: list[GatewayProcess], team: Team, gateway_db: Database
) -> None:
    post_id = _call(gateways_with_redis[0], team.alice, "post", body="x", to_actor="bob")["post_id"]
    client = McpClient(gateways_with_redis[0].url, team.bob.token)
    assert client.request("resources/read", "bus://inbox", uri="bus://inbox").status == 200
    client.close()

    def is_surfaced() -> bool:
        with gateway_db.connection() as conn:
            (post,) = posts.list_posts(conn, team.alice.ctx, tag=None, limit=1).posts
        assert post.post_id == post_id
        assert post.deliveries is not None
        return post.deliveries.surfaced == 1

    wait_until(is_surfaced)


def test_a_change_outside_the_gateways_wakes_long_polls(
    gateways_with_redis: list[GatewayProcess], team: Team, shared_database_url: str
) -> None:
    """A command revokes a token, and its long poll ends before the next periodic refresh."""
    publisher = NotificationPublisher(_redis_url())
    db = Database(shared_database_url, pool_size=1, on_commit=publisher.publish)
    ended: list[tuple[int, float]] = []

    def wait() -> None:
        client = McpClient(gateways_with_redis[0].url, team.bob.token)
        response = client.call("wait_for", timeout_seconds=25)
        ended.append((response.status, time.monotonic()))
        client.close()

    waiting = threading.Thread(target=wait)
    waiting.start()
    gateways_with_redis[0].wait_for_waiting_calls(1)
    started = time.monotonic()
    with db.transaction() as conn:
        tokens.revoke_all(conn, team.project_id, "bob", actor="cli")
    waiting.join(_TIMEOUT_SECONDS)
    ((status, ended_at),) = ended
    assert status == 401
    assert ended_at - started < stretched(5)
    publisher.close()
    db.close()
