"""Every call refreshes presence, within two seconds and at drain."""

import json
from collections.abc import Callable

from bus.coordination import presence
from bus.db import Database
from tests.concurrency import wait_until
from tests.mcp_gateway.conftest import Team, make_team
from tests.mcp_gateway.mcp_client import McpClient
from tests.mcp_gateway.processes import running_gateways


def test_a_call_updates_presence_and_last_use_of_the_token_within_two_seconds(
    connect: Callable[..., McpClient], team: Team, gateway_db: Database
) -> None:
    bob = connect(team.bob, process=1)
    bob.call("latest_claims")
    alice = connect(team.alice)

    def seen() -> bool:
        active = alice.call("who_is_active").structured_content["active"]
        return team.bob.actor in {participant["actor"] for participant in active}

    def used() -> bool:
        with gateway_db.connection() as conn:
            sql = "SELECT last_used_at IS NOT NULL FROM token WHERE id = %s"
            return bool(conn.fetch_one(sql, (team.bob.ctx.token_id,))[0])

    # Two seconds, plus time for a slow machine; the same flush then writes the token's use.
    wait_until(seen, 15)
    wait_until(used, 15)
    active = alice.call("who_is_active").structured_content["active"]
    (bob_presence,) = [presence for presence in active if presence["actor"] == team.bob.actor]
    assert (bob_presence["lane"], bob_presence["status"]) == ("web", "")


def test_a_refused_call_refreshes_presence_but_a_denied_one_does_not(
    connect: Callable[..., McpClient], team: Team, gateway_db: Database
) -> None:
    connect(team.bob).call("claim", sequence="NO")
    stranger = connect(None)
    assert stranger.call("whoami").status == 401

    def rows() -> int:
        with gateway_db.connection() as conn:
            return int(conn.fetch_one("SELECT count(*) FROM presence WHERE project_id = %s", (team.project_id,))[0])

    assert wait_until(lambda: rows() == 1, 15)


def test_buffered_presence_is_written_at_drain(database_url: str) -> None:
    db = Database(database_url, pool_size=1)
    team = make_team(db)
    with running_gateways(database_url) as (process,):
        client = McpClient(process.url, team.bob.token)
        client.call("whoami")
        client.close()
        process.stop()
    with db.connection() as conn:
        active = presence.list_active(conn, team.alice.ctx).active
    db.close()
    assert [participant.actor for participant in active] == [team.bob.actor]


def test_the_client_of_a_caller_is_the_last_that_was_named(
    connect: Callable[..., McpClient], team: Team, gateway_db: Database
) -> None:
    def find_client() -> str | None:
        with gateway_db.connection() as conn:
            row = conn.fetch_one_or_none(
                "SELECT client FROM presence WHERE participation_id = %s", (team.bob.ctx.participation_id,)
            )
        return None if row is None else row[0]

    legacy = connect(team.bob, modern=False)
    info = {"name": "gemini-cli-mcp-client", "version": "1"}
    legacy.request("initialize", protocolVersion="2025-06-18", capabilities={}, clientInfo=info)
    wait_until(lambda: find_client() == "gemini-cli")
    # A User-Agent of an HTTP library says nothing, and neither does the kit's.
    for agent in ("node", "llm-bus-kit/1"):
        legacy.http_client.headers["User-Agent"] = agent
        legacy.call("whoami")
    kit = {"name": "llm-bus-kit", "version": "1"}
    legacy.request("initialize", protocolVersion="2025-06-18", capabilities={}, clientInfo=kit)
    codex = connect(team.bob)
    codex.http_client.headers["User-Agent"] = "codex-mcp-client/0.171.0"
    codex.call("whoami")
    wait_until(lambda: find_client() == "codex")
    modern = connect(team.bob)
    meta = {
        **modern.body("tools/list", {})["params"]["_meta"],
        "io.modelcontextprotocol/clientInfo": {**info, "name": "x"},
    }
    content = {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {"_meta": meta}}
    assert modern.send(json.dumps(content).encode(), modern.headers("tools/list")).status == 200
    wait_until(lambda: find_client() == "other")
