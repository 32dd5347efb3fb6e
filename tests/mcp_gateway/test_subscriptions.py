"""subscriptions/listen with the SDK's own client in two processes: only subscribers receive the changes."""

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any
from unittest.mock import Mock

import httpx2
import pytest
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.client.subscriptions import listen

from bus.config.settings import Settings
from bus.db import Database
from bus.errors import Unavailable
from bus.tenancy import participations
from mcp_gateway.service import Service
from tests import servers
from tests.factories import Agent
from tests.mcp_gateway.conftest import Team, make_team
from tests.mcp_gateway.mcp_client import McpClient
from tests.mcp_gateway.processes import GatewayProcess, running_gateways

_TIMEOUT_SECONDS = 120.0
_ALL_URIS = ["bus://inbox", "bus://ledger", "bus://leases", "bus://tasks", "bus://presence"]


@pytest.fixture(scope="module")
def gateways_with_redis(shared_database_url: str) -> Iterator[list[GatewayProcess]]:
    """Two gateways that share a Redis."""
    worker = os.environ.get("PYTEST_XDIST_WORKER", "gw0")
    url = servers.redis_url(int(worker.removeprefix("gw")))
    with running_gateways(shared_database_url, 2, REDIS_URL=url, STREAMS_PER_TOKEN="2") as processes:
        yield processes


@asynccontextmanager
async def _subscribed(process: GatewayProcess, agent: Agent, **filters: Any) -> AsyncIterator[Any]:
    headers = {"Authorization": f"Bearer {agent.token}"}
    async with (
        httpx2.AsyncClient(headers=headers, timeout=60) as http,
        Client(streamable_http_client(process.url, http_client=http)) as client,
        listen(client.session, **filters) as subscription,
    ):
        yield subscription


async def _next(subscription: Any, seconds: float = _TIMEOUT_SECONDS) -> str:
    async with asyncio.timeout(seconds):
        event = await anext(subscription)
    return getattr(event, "uri", type(event).__name__)


async def _is_silent(subscription: Any, seconds: float = 1.5) -> bool:
    try:
        await _next(subscription, seconds)
    except TimeoutError:
        return True
    return False


def _call_tool(process: GatewayProcess, agent: Agent, tool: str, **arguments: Any) -> dict[str, Any]:
    client = McpClient(process.url, agent.token)
    try:
        return client.call(tool, **arguments).structured_content
    finally:
        client.close()


@pytest.mark.parametrize(
    ("tool", "arguments", "uris"),
    [
        ("post", {"body": "x", "to_actor": "bob"}, {"bus://inbox", "bus://ledger"}),
        ("post", {"body": "x", "to_actor": "alice"}, {"bus://ledger"}),
        ("lease", {"surface": "src/a.py"}, {"bus://leases", "bus://ledger"}),
        ("task_create", {"title": "x"}, {"bus://tasks", "bus://ledger"}),
        ("register", {"lane": "api"}, {"bus://presence", "bus://ledger"}),
        ("claim", {"sequence": "adr"}, {"bus://ledger"}),
    ],
)
def test_a_subscriber_receives_changes_from_another_process(
    gateways_with_redis: list[GatewayProcess], team: Team, tool: str, arguments: dict[str, Any], uris: set[str]
) -> None:
    async def main() -> None:
        async with _subscribed(gateways_with_redis[1], team.bob, resource_subscriptions=_ALL_URIS) as subscription:
            await asyncio.to_thread(_call_tool, gateways_with_redis[0], team.alice, tool, **arguments)
            received = {await _next(subscription, 5) for _ in uris}
            assert received == uris
            assert await _is_silent(subscription)

    asyncio.run(main())


def test_a_stream_reports_only_the_subscribed_resources(gateways_with_redis: list[GatewayProcess], team: Team) -> None:
    async def main() -> None:
        async with _subscribed(
            gateways_with_redis[1], team.bob, resource_subscriptions=["bus://tasks"]
        ) as subscription:
            await asyncio.to_thread(_call_tool, gateways_with_redis[0], team.alice, "claim", sequence="adr")
            await asyncio.to_thread(_call_tool, gateways_with_redis[0], team.alice, "task_create", title="x")
            assert await _next(subscription) == "bus://tasks"
            assert await _is_silent(subscription)

    asyncio.run(main())


def test_a_stream_reports_no_changes_of_another_project(
    gateways_with_redis: list[GatewayProcess], team: Team, gateway_db: Database
) -> None:
    other = make_team(gateway_db)

    async def main() -> None:
        async with _subscribed(gateways_with_redis[0], team.bob, resource_subscriptions=_ALL_URIS) as subscription:
            for name, arguments in (
                ("post", {"body": "x", "to_actor": "bob"}),
                ("task_create", {"title": "x"}),
                ("lease", {"surface": "src/a.py"}),
            ):
                await asyncio.to_thread(_call_tool, gateways_with_redis[0], other.alice, name, **arguments)
            assert await _is_silent(subscription)

    asyncio.run(main())


@pytest.mark.parametrize("process", [0, 1])
def test_the_stream_of_a_revoked_token_ends(
    gateways_with_redis: list[GatewayProcess], team: Team, process: int
) -> None:
    async def main() -> None:
        async with _subscribed(
            gateways_with_redis[process], team.bob, resource_subscriptions=_ALL_URIS
        ) as subscription:
            await asyncio.to_thread(
                _call_tool, gateways_with_redis[0], team.alice, "admin_revoke", participant_name="bob"
            )
            # The holder of the revoked token receives no later events.
            await asyncio.to_thread(_call_tool, gateways_with_redis[0], team.alice, "claim", sequence="adr")
            async with asyncio.timeout(_TIMEOUT_SECONDS):
                assert [event async for event in subscription] == []

    asyncio.run(main())


def test_a_new_project_admin_is_notified_of_the_changed_tool_list(
    gateways_with_redis: list[GatewayProcess], team: Team, gateway_db: Database
) -> None:
    async def main() -> None:
        async with _subscribed(gateways_with_redis[1], team.bob, tools_list_changed=True) as subscription:
            with gateway_db.transaction() as conn:
                participations.set_admin(conn, team.project_id, "bob", True, actor="cli")
            # The change was committed outside the gateways; any notification of the project triggers the read.
            await asyncio.to_thread(_call_tool, gateways_with_redis[0], team.alice, "claim", sequence="adr")
            assert await _next(subscription) == "ToolsListChanged"

    asyncio.run(main())


def test_the_number_of_streams_per_token_is_limited(gateways_with_redis: list[GatewayProcess], team: Team) -> None:
    async def main() -> None:
        async with (
            _subscribed(gateways_with_redis[0], team.bob, resource_subscriptions=_ALL_URIS),
            _subscribed(gateways_with_redis[0], team.bob, resource_subscriptions=_ALL_URIS),
            _subscribed(gateways_with_redis[0], team.alice, resource_subscriptions=_ALL_URIS),
        ):
            with pytest.raises(BaseException) as caught:  # noqa: PT011
                async with (
                    asyncio.timeout(10),
                    _subscribed(gateways_with_redis[0], team.bob, resource_subscriptions=_ALL_URIS),
                ):
                    pass
            assert not isinstance(caught.value, TimeoutError)
        # Closed streams are no longer counted.
        async with _subscribed(gateways_with_redis[0], team.bob, resource_subscriptions=_ALL_URIS):
            pass

    asyncio.run(main())


def test_a_stopping_process_ends_its_streams(database_url: str) -> None:
    db = Database(database_url, pool_size=2)
    team = make_team(db)
    db.close()

    async def main(process: GatewayProcess) -> None:
        async with _subscribed(process, team.bob, resource_subscriptions=_ALL_URIS) as subscription:
            stopping = asyncio.to_thread(process.stop)
            async with asyncio.timeout(_TIMEOUT_SECONDS):
                rest, _ = await asyncio.gather(_collect(subscription), stopping)
            assert rest == []

    with running_gateways(database_url) as (process,):
        asyncio.run(main(process))


async def _collect(subscription: Any) -> list[Any]:
    return [event async for event in subscription]


def test_a_process_that_is_about_to_stop_begins_no_stream(shared_database_url: str, team: Team) -> None:
    async def listen_while_draining() -> None:
        service = Service(Settings.from_env({"DATABASE_URL": servers.application_url(shared_database_url)}))
        service.drain()
        try:
            with pytest.raises(Unavailable):
                await service.streams.listen(team.alice.ctx, Mock(), Mock())
        finally:
            await service.stop()

    asyncio.run(listen_while_draining())
