"""Calls that wait long: what keeps their connection, what ends them early, and what a client hears meanwhile."""

import asyncio
import contextlib
import json
import os
import threading
import time
from collections.abc import Iterator

import httpx2
import pytest
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

from bus.coordination import posts
from bus.coordination.change_notifications import NotificationPublisher
from bus.db import Database
from bus.tenancy import tokens
from tests import servers
from tests.factories import Agent
from tests.mcp_gateway.conftest import Team, make_team
from tests.mcp_gateway.mcp_client import MODERN, McpClient
from tests.mcp_gateway.processes import GatewayProcess, running_gateways
from tests.mcp_gateway.raw_http import build_tool_call, open_raw_connection

_PATIENCE = 20.0
_CAP = 12


def _redis_url() -> str:
    worker = os.environ.get("PYTEST_XDIST_WORKER", "gw0")
    return servers.redis_url(int(worker.removeprefix("gw")))


@pytest.fixture(scope="module")
def pushed(shared_database_url: str) -> Iterator[list[GatewayProcess]]:
    """Two gateways with Redis between them."""
    with running_gateways(shared_database_url, 2, REDIS_URL=_redis_url(), WAITS_PER_TOKEN=str(_CAP)) as processes:
        yield processes


def _call(process: GatewayProcess, agent: Agent, tool: str, **arguments: object) -> object:
    wire = McpClient(process.url, agent.token)
    try:
        return wire.call(tool, **arguments).structured_content
    finally:
        wire.close()


@pytest.mark.parametrize("era", [MODERN, "2025-06-18"])
def test_a_long_silence_is_broken_before_a_proxy_ends_it(pushed: list[GatewayProcess], team: Team, era: str) -> None:
    """After fifteen seconds the answer begins as a stream, and ends with the news."""
    _call(pushed[0], team.bob, "whoami")
    with open_raw_connection(pushed[0]) as line:
        line.socket.settimeout(_PATIENCE)
        started = time.monotonic()
        line.socket.sendall(build_tool_call(team.bob.token, era, "wait_for", timeout_seconds=50))
        first = line.socket.recv(65536)
        assert 10 < time.monotonic() - started < _PATIENCE
        assert b"content-type: text/event-stream" in first
        assert b": ping\r\n\r\n" in first
        line.parser.receive_data(first)
        _call(pushed[1], team.alice, "post", body="late", to_actor="bob")
        ((status, _, body),) = line.exchange(response_count=1)
        data = body.decode().split("data: ", 1)[1]
        content = json.loads(data)["result"]["structuredContent"]
        assert (status, content["posts"][0]["body"]) == (200, "late")
        assert line.is_open(team.bob.token)


def test_who_is_revoked_during_a_long_wait_is_told_so(database_url: str) -> None:
    db = Database(database_url, pool_size=2)
    team = make_team(db)
    with running_gateways(database_url) as (process,), open_raw_connection(process) as line:
        _call(process, team.bob, "whoami")
        line.socket.settimeout(_PATIENCE)
        line.socket.sendall(build_tool_call(team.bob.token, MODERN, "wait_for", timeout_seconds=50))
        line.parser.receive_data(line.socket.recv(65536))
        with db.transaction() as conn:
            tokens.revoke_all(conn, team.project_id, "bob", actor="cli")
        ((status, _, body),) = line.exchange(response_count=1)
        message = json.loads(body.decode().split("data: ", 1)[1])
        assert (status, message["error"]["message"]) == (200, "Not authenticated")
    db.close()


def test_what_is_sent_while_a_call_waits_is_answered_after_it(pushed: list[GatewayProcess], team: Team) -> None:
    _call(pushed[0], team.bob, "whoami")
    with open_raw_connection(pushed[0]) as line:
        line.socket.sendall(build_tool_call(team.bob.token, MODERN, "wait_for", timeout_seconds=2))
        time.sleep(0.3)
        answers = line.exchange(build_tool_call(team.bob.token, MODERN, "whoami"), response_count=2)
        assert b'"timed_out":true' in answers[0][2]
        assert b'"label":"bob"' in answers[1][2]


def test_progress_is_told_to_who_asked_for_it(pushed: list[GatewayProcess], team: Team) -> None:
    heard: list[tuple[float, float | None]] = []

    async def progress(value: float, total: float | None, message: str | None) -> None:
        heard.append((value, total))

    async def play() -> None:
        headers = {"Authorization": f"Bearer {team.bob.token}"}
        async with (
            httpx2.AsyncClient(headers=headers, timeout=60) as http,
            Client(streamable_http_client(pushed[0].url, http_client=http)) as client,
        ):
            answer = await client.call_tool("wait_for", {"timeout_seconds": 13}, progress_callback=progress)
            assert answer.structured_content == {"timed_out": True}

    asyncio.run(play())
    assert heard == [(10, 13)]


def test_a_token_may_only_wait_so_often_in_all_processes_together(pushed: list[GatewayProcess], team: Team) -> None:
    opened: list[McpClient] = []

    def wait(process: GatewayProcess) -> None:
        wire = McpClient(process.url, team.bob.token)
        opened.append(wire)
        threading.Thread(target=wire.call, args=("wait_for",), kwargs={"timeout_seconds": 20}, daemon=True).start()

    for _ in range(_CAP):
        wait(pushed[0])
    wire = McpClient(pushed[1].url, team.bob.token)
    deadline = time.monotonic() + _PATIENCE
    while (reply := wire.call("wait_for", timeout_seconds=1)).status != 429:
        assert time.monotonic() < deadline, "the other process never heard of them"
    assert reply.headers["retry-after"] == "1"
    # Everybody is told, and so there is room again, here too.
    _call(pushed[0], team.alice, "post", body="x", to_actor="bob")
    while (reply := wire.call("wait_for", timeout_seconds=1)).status != 200:
        assert time.monotonic() < deadline, "what was let go is still counted"
        time.sleep(0.2)
    for one in (*opened, wire):
        one.close()


def test_a_killed_process_holds_nothing_for_long(database_url: str) -> None:
    db = Database(database_url, pool_size=2)
    team = make_team(db)
    db.close()
    env = {"REDIS_URL": _redis_url(), "WAITS_PER_TOKEN": "2"}
    with running_gateways(database_url, **env) as (first,), running_gateways(database_url, **env) as (second,):
        for _ in range(2):
            wire = McpClient(first.url, team.bob.token)
            threading.Thread(target=_ignoring, args=(wire,), daemon=True).start()
        wire = McpClient(second.url, team.bob.token)
        deadline = time.monotonic() + _PATIENCE
        while wire.call("wait_for", timeout_seconds=1).status != 429:
            assert time.monotonic() < deadline
        first.popen.kill()
        while wire.call("wait_for", timeout_seconds=1).status != 200:
            assert time.monotonic() < deadline, "the dead are still counted"
            time.sleep(0.2)
        wire.close()


def _ignoring(wire: McpClient) -> None:
    with contextlib.suppress(httpx2.HTTPError):
        wire.call("wait_for", timeout_seconds=50)


def test_what_is_read_as_a_resource_has_surfaced(
    pushed: list[GatewayProcess], team: Team, gateway_db: Database
) -> None:
    post_id = _call(pushed[0], team.alice, "post", body="x", to_actor="bob")["post_id"]
    wire = McpClient(pushed[0].url, team.bob.token)
    assert wire.request("resources/read", "bus://inbox", uri="bus://inbox").status == 200
    wire.close()
    deadline = time.monotonic() + _PATIENCE
    while True:
        with gateway_db.connection() as conn:
            (post,) = posts.list_posts(conn, team.alice.ctx, tag=None, limit=1).posts
        assert post.post_id == post_id
        assert post.deliveries is not None
        if post.deliveries.surfaced == 1:
            break
        assert time.monotonic() < deadline, "never noted"
        time.sleep(0.1)


def test_what_people_do_outside_a_gateway_wakes_who_waits(
    pushed: list[GatewayProcess], team: Team, shared_database_url: str
) -> None:
    """A command revokes a token; the call that waits with it ends at once and not with the next look."""
    hints = NotificationPublisher(_redis_url())
    db = Database(shared_database_url, pool_size=1, on_commit=hints.publish)
    ended: list[float] = []

    def wait() -> None:
        wire = McpClient(pushed[0].url, team.bob.token)
        assert wire.call("wait_for", timeout_seconds=25).status == 401
        ended.append(time.monotonic())
        wire.close()

    waiting = threading.Thread(target=wait)
    waiting.start()
    time.sleep(0.5)
    started = time.monotonic()
    with db.transaction() as conn:
        tokens.revoke_all(conn, team.project_id, "bob", actor="cli")
    waiting.join(_PATIENCE)
    assert ended
    assert ended[0] - started < 5
    hints.close()
    db.close()
