"""subscriptions/listen with the SDK's own client, in two processes: who watches is told, and nobody else."""

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import pytest
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.client.subscriptions import listen

from bus.db import Database
from tests import servers
from tests.factories import Agent
from tests.mcp_gateway.conftest import Team, make_team
from tests.mcp_gateway.mcp_client import McpClient
from tests.mcp_gateway.processes import GatewayProcess, running_gateways

_PATIENCE = 20.0
_ALL = ["bus://inbox", "bus://ledger", "bus://leases", "bus://tasks", "bus://presence"]


@pytest.fixture(scope="module")
def pushed(shared_database_url: str) -> Iterator[list[GatewayProcess]]:
    """Two gateways with Redis between them."""
    worker = os.environ.get("PYTEST_XDIST_WORKER", "gw0")
    url = servers.redis_url(int(worker.removeprefix("gw")))
    with running_gateways(shared_database_url, 2, REDIS_URL=url, STREAMS_PER_TOKEN="2") as processes:
        yield processes


@asynccontextmanager
async def _watching(process: GatewayProcess, agent: Agent, **wanted: Any) -> AsyncIterator[Any]:
    headers = {"Authorization": f"Bearer {agent.token}"}
    async with (
        httpx2.AsyncClient(headers=headers, timeout=60) as http,
        Client(streamable_http_client(process.url, http_client=http)) as client,
        listen(client.session, **wanted) as subscription,
    ):
        yield subscription


async def _next(subscription: Any, seconds: float = _PATIENCE) -> str:
    async with asyncio.timeout(seconds):
        event = await anext(subscription)
    return getattr(event, "uri", type(event).__name__)


async def _nothing(subscription: Any, seconds: float = 1.5) -> bool:
    try:
        await _next(subscription, seconds)
    except TimeoutError:
        return True
    return False


def _do(process: GatewayProcess, agent: Agent, tool: str, **arguments: Any) -> dict[str, Any]:
    wire = McpClient(process.url, agent.token)
    try:
        return wire.call(tool, **arguments).structured_content
    finally:
        wire.close()


@pytest.mark.parametrize(
    ("tool", "arguments", "told"),
    [
        ("post", {"body": "x", "to_actor": "bob"}, {"bus://inbox", "bus://ledger"}),
        ("post", {"body": "x", "to_actor": "alice"}, {"bus://ledger"}),
        ("lease", {"surface": "src/a.py"}, {"bus://leases", "bus://ledger"}),
        ("task_create", {"title": "x"}, {"bus://tasks", "bus://ledger"}),
        ("register", {"lane": "api"}, {"bus://presence", "bus://ledger"}),
        ("claim", {"sequence": "adr"}, {"bus://ledger"}),
    ],
)
def test_who_watches_hears_of_it_from_another_process(
    pushed: list[GatewayProcess], team: Team, tool: str, arguments: dict[str, Any], told: set[str]
) -> None:
    async def play() -> None:
        async with _watching(pushed[1], team.bob, resource_subscriptions=_ALL) as subscription:
            await asyncio.to_thread(_do, pushed[0], team.alice, tool, **arguments)
            heard = {await _next(subscription, 5) for _ in told}
            assert heard == told
            assert await _nothing(subscription)

    asyncio.run(play())


def test_only_what_was_asked_for_is_told(pushed: list[GatewayProcess], team: Team) -> None:
    async def play() -> None:
        async with _watching(pushed[1], team.bob, resource_subscriptions=["bus://tasks"]) as subscription:
            await asyncio.to_thread(_do, pushed[0], team.alice, "claim", sequence="adr")
            await asyncio.to_thread(_do, pushed[0], team.alice, "task_create", title="x")
            assert await _next(subscription) == "bus://tasks"
            assert await _nothing(subscription)

    asyncio.run(play())


def test_another_project_is_not_heard_of(pushed: list[GatewayProcess], team: Team, gateway_db: Database) -> None:
    other = make_team(gateway_db)

    async def play() -> None:
        async with _watching(pushed[0], team.bob, resource_subscriptions=_ALL) as subscription:
            for name, arguments in (
                ("post", {"body": "x", "to_actor": "bob"}),
                ("task_create", {"title": "x"}),
                ("lease", {"surface": "src/a.py"}),
            ):
                await asyncio.to_thread(_do, pushed[0], other.alice, name, **arguments)
            assert await _nothing(subscription)

    asyncio.run(play())


@pytest.mark.parametrize("process", [0, 1])
def test_the_stream_of_a_revoked_token_ends(pushed: list[GatewayProcess], team: Team, process: int) -> None:
    async def play() -> None:
        async with _watching(pushed[process], team.bob, resource_subscriptions=_ALL) as subscription:
            await asyncio.to_thread(_do, pushed[0], team.alice, "admin_revoke", participant_name="bob")
            # What comes after says nothing to whoever holds the old token.
            await asyncio.to_thread(_do, pushed[0], team.alice, "claim", sequence="adr")
            async with asyncio.timeout(_PATIENCE):
                assert [event async for event in subscription] == []

    asyncio.run(play())


def test_who_becomes_project_admin_is_told_of_its_tools(
    pushed: list[GatewayProcess], team: Team, gateway_db: Database
) -> None:
    from bus.tenancy import participations

    async def play() -> None:
        async with _watching(pushed[1], team.bob, tools_list_changed=True) as subscription:
            with gateway_db.transaction() as conn:
                participations.set_admin(conn, team.project_id, "bob", True, actor="cli")
            # That came from outside of the gateways; any hint of the project lets them look.
            await asyncio.to_thread(_do, pushed[0], team.alice, "claim", sequence="adr")
            assert await _next(subscription) == "ToolsListChanged"

    asyncio.run(play())


def test_a_token_holds_only_so_many_streams(pushed: list[GatewayProcess], team: Team) -> None:
    async def play() -> None:
        async with (
            _watching(pushed[0], team.bob, resource_subscriptions=_ALL),
            _watching(pushed[0], team.bob, resource_subscriptions=_ALL),
            _watching(pushed[0], team.alice, resource_subscriptions=_ALL),
        ):
            with pytest.raises(BaseException) as caught:  # noqa: PT011
                async with asyncio.timeout(10), _watching(pushed[0], team.bob, resource_subscriptions=_ALL):
                    pass
            assert not isinstance(caught.value, TimeoutError)
        # They were given back.
        async with _watching(pushed[0], team.bob, resource_subscriptions=_ALL):
            pass

    asyncio.run(play())


def test_a_stopping_process_ends_its_streams(database_url: str) -> None:
    db = Database(database_url, pool_size=2)
    team = make_team(db)
    db.close()

    async def play(process: GatewayProcess) -> None:
        async with _watching(process, team.bob, resource_subscriptions=_ALL) as subscription:
            stopping = asyncio.to_thread(process.stop)
            async with asyncio.timeout(_PATIENCE):
                rest, _ = await asyncio.gather(_all(subscription), stopping)
            assert rest == []

    with running_gateways(database_url) as (process,):
        asyncio.run(play(process))


async def _all(subscription: Any) -> list[Any]:
    return [event async for event in subscription]
