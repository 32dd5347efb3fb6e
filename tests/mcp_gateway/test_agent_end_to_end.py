"""A workday of two agents with the SDK's own client: over HTTP in both protocols, and over stdio."""

import os
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import anyio
import httpx2
import pytest
from mcp import StdioServerParameters
from mcp.client import Client
from mcp.client.streamable_http import streamable_http_client

from tests.mcp_gateway.conftest import Team
from tests.mcp_gateway.processes import GatewayProcess

_STDIO_PROGRAM = """
import os
from bus.config.settings import Settings
from mcp_gateway.stdio import run
run(Settings.from_env(), os.environ["LLM_BUS_TOKEN"])
"""


@asynccontextmanager
async def over_http(url: str, token: str, mode: str) -> AsyncIterator[Client]:
    async with httpx2.AsyncClient(headers={"Authorization": f"Bearer {token}"}, timeout=120) as http:
        async with Client(streamable_http_client(url, http_client=http), mode=mode) as client:
            yield client


@asynccontextmanager
async def over_stdio(database_url: str, token: str, mode: str) -> AsyncIterator[Client]:
    server = StdioServerParameters(
        command=sys.executable,
        args=["-c", _STDIO_PROGRAM],
        env={**os.environ, "DATABASE_URL": database_url, "LLM_BUS_TOKEN": token},
    )
    async with Client(server, mode=mode) as client:
        yield client


class Session:
    """A client's tools as async calls that return the structured content."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def __call__(self, tool: str, /, **arguments: Any) -> dict[str, Any]:
        result = await self._client.call_tool(tool, arguments)
        assert not result.is_error, result
        content: dict[str, Any] = result.structured_content
        return content

    async def call_refused(self, tool: str, /, **arguments: Any) -> dict[str, Any]:
        result = await self._client.call_tool(tool, arguments)
        assert result.is_error, result
        error: dict[str, Any] = result.structured_content["error"]
        return error


async def run_workday(alice: Session, bob: Session) -> None:
    await bob("register", lane="web", status="reading the backlog")
    await alice("register", lane="api", status="planning")
    start = await alice("whats_new")
    assert [event["type"] for event in start["events"]] == ["register"]
    # Her own events are counted and not listed.
    assert start["left_out"] == {"own": 1}
    assert start["more"] is False

    first = await alice("claim", sequence="adr", note="caching")
    second = await bob("claim", sequence="adr")
    assert (first["number"], second["number"]) == (1, 2)

    held = await alice("lease", surface="src/api/**", note="refactoring")
    assert held["others"] == []
    contended = await bob("lease", surface="./src//api/users.py", ttl_seconds=60)
    assert [other["actor"] for other in contended["others"]] == [(await alice("whoami"))["actor"]]
    assert contended["fence"] > held["fence"]

    handoff = await bob("post", to_actor="alice", body="May I have users.py for ten minutes?", ref="PR 7")
    assert handoff["recipients"] == 1
    # Any next call of the recipient carries the count of unread posts.
    assert (await alice("who_holds"))["_unread_posts"] == 1
    inbox = await alice("read_posts", to_me=True, unacked_only=True)
    assert [post["post_id"] for post in inbox["posts"]] == [handoff["post_id"]]
    assert "_unread_posts" not in inbox
    await alice("ack", post_id=handoff["post_id"])
    assert "_unread_posts" not in await alice("who_holds")
    (sent,) = (await bob("read_posts", ref="PR 7"))["posts"]
    assert sent["acked_by"] == [(await alice("whoami"))["actor"]]

    api = (await alice("task_create", title="Split the module", owner="alice"))["task_id"]
    page_task = (await alice("task_create", title="Use it in the page", lane="web"))["task_id"]
    later = (await alice("task_create", title="Announce it", blocked_on=[api]))["task_id"]
    await alice("task_start", task_id=api)
    assert (await bob("task_next", lane="web"))["task"]["task_id"] == page_task
    await bob("task_block", task_id=page_task, reason="needs the new module", on=api)
    assert (await bob.call_refused("task_start", task_id=later))["code"] == "wrong_state"
    shipped = await alice("task_ship", task_id=api, ref="PR 8")
    assert shipped["unblocked"] == [page_task, later]
    tasks = {task["task_id"]: task for task in (await bob("list_tasks"))["tasks"]}
    assert tasks[page_task]["status"] == "in_progress"
    await bob("task_ship", task_id=page_task, ref="PR 9")

    assert (await alice("release", surface="*"))["released"] == 1
    assert (await bob("release", surface="src/api/users.py"))["released"] == 1

    page = await bob("query_events", ref="PR 8")
    assert [event["type"] for event in page["events"]] == ["task_ship"]
    ledger = (await bob("query_events", limit=1000))["events"]
    alice_name = (await alice("whoami"))["actor"]
    new = await alice("whats_new", limit=500)
    assert [event["id"] for event in new["events"]] == [
        event["id"] for event in reversed(ledger) if event["id"] > 2 and event["actor"] != alice_name
    ]
    assert len(new["events"]) + new["left_out"]["own"] == len(ledger) - 2
    reread = await alice("whats_new", limit=500, since=new["since_event_id"])
    assert [event["id"] for event in reread["events"]] == list(range(3, len(ledger) + 1))
    assert [event["id"] for event in reversed(ledger)] == list(range(1, len(ledger) + 1))
    assert (await alice("whats_new"))["events"] == []
    active = (await alice("who_is_active"))["active"]
    assert {participant["lane"] for participant in active} == {"api", "web"}


@pytest.mark.parametrize("mode", ["legacy", "2026-07-28", "auto"])
def test_two_agents_work_a_day_over_http(gateways: list[GatewayProcess], team: Team, mode: str) -> None:
    async def main() -> None:
        async with (
            over_http(gateways[0].url, team.alice.token, mode) as alice,
            over_http(gateways[1].url, team.bob.token, mode) as bob,
        ):
            await run_workday(Session(alice), Session(bob))

    anyio.run(main)


# Each mode starts two interpreters with the SDK; over HTTP both protocols run always.
@pytest.mark.parametrize("mode", ["legacy", pytest.param("2026-07-28", marks=pytest.mark.exhaustive)])
def test_two_agents_work_a_day_over_stdio(shared_database_url: str, team: Team, mode: str) -> None:
    async def main() -> None:
        async with AsyncExitStack() as stack:
            alice, bob = [
                Session(await stack.enter_async_context(over_stdio(shared_database_url, agent.token, mode)))
                for agent in (team.alice, team.bob)
            ]
            await run_workday(alice, bob)

    anyio.run(main)


def test_a_client_lists_and_reads_resources_and_prompts(gateways: list[GatewayProcess], team: Team) -> None:
    async def main() -> None:
        async with over_http(gateways[0].url, team.bob.token, "2026-07-28") as client:
            resources = await client.list_resources()
            assert {str(resource.uri) for resource in resources.resources} == {
                "bus://guide",
                "bus://inbox",
                "bus://ledger",
                "bus://leases",
                "bus://tasks",
                "bus://presence",
            }
            for resource in resources.resources:
                content = await client.read_resource(resource.uri)
                assert content.contents[0].text
            prompts = await client.list_prompts()
            assert [prompt.name for prompt in prompts.prompts] == ["start_session", "handoff"]
            text = (await client.get_prompt("handoff", {"to": "review", "ref": "PR 1"})).messages[0].content.text
            assert "PR 1" in text

    anyio.run(main)
