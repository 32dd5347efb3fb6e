"""`llm-bus stdio` with the client of the MCP SDK."""

import asyncio
import json
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from mcp.client import Client
from mcp.client.stdio import StdioServerParameters
from mcp_types import CallToolResult, TextContent

from bus.db import Database
from cli.exit_codes import ExitCode
from tests import factories
from tests.cli import bus_process
from tests.factories import Agent


@pytest.fixture
def ada(database_url: str) -> Agent:
    with closing(Database(database_url, pool_size=1)) as database, database.transaction() as conn:
        return factories.make_agent(conn, label="ada")


def _server(database_url: str, **env: str) -> StdioServerParameters:
    return StdioServerParameters(
        command=sys.executable,
        args=["-m", "cli.main", "stdio"],
        env=bus_process.clean_environ({"DATABASE_URL": database_url, **env}),
    )


def _text(result: CallToolResult) -> str:
    (block,) = result.content
    assert isinstance(block, TextContent)
    return block.text


# Two agents of the legacy protocol work over stdio in tests/mcp_gateway/test_agent_end_to_end.py.
@pytest.mark.parametrize("mode", ["auto", pytest.param("legacy", marks=pytest.mark.exhaustive)])
def test_a_client_works_with_its_token(database_url: str, ada: Agent, mode: str) -> None:
    async def run() -> None:
        async with Client(_server(database_url, LLM_BUS_TOKEN=ada.token), mode=mode) as client:
            assert "claim" in {tool.name for tool in (await client.list_tools()).tools}
            caller = await client.call_tool("whoami")
            assert (caller.structured_content or {})["actor"] == ada.actor
            claimed = await client.call_tool("claim", {"sequence": "adr"})
            assert (claimed.structured_content or {})["number"] == 1
            refused = await client.call_tool("claim", {"sequence": "Not a name"})
            assert refused.is_error

    asyncio.run(run())


@pytest.mark.parametrize("token", ["", "lbus_nonsense"])
def test_without_a_valid_token_tools_are_listed_and_calls_refused(database_url: str, token: str) -> None:
    async def run() -> None:
        async with Client(_server(database_url, LLM_BUS_TOKEN=token)) as client:
            names = {tool.name for tool in (await client.list_tools()).tools}
            assert {"claim", "post", "lease"} <= names
            assert "admin_provision" not in names
            refused = await client.call_tool("claim", {"sequence": "adr"})
            assert refused.is_error
            assert "LLM_BUS_TOKEN" in _text(refused)

    asyncio.run(run())


def test_a_token_revoked_during_the_connection_is_refused(database_url: str, ada: Agent) -> None:
    from bus.tenancy import tokens

    async def run() -> None:
        async with Client(_server(database_url, LLM_BUS_TOKEN=ada.token)) as client:
            assert not (await client.call_tool("whoami")).is_error
            with closing(Database(database_url, pool_size=1)) as database, database.transaction() as conn:
                tokens.revoke_all(conn, ada.ctx.project_id, "ada", actor="cli")
            with pytest.raises(Exception, match="Not authenticated"):
                await client.call_tool("whoami")

    asyncio.run(run())


def test_without_a_running_bus_the_error_names_the_next_step(data: Path) -> None:
    result = bus_process.run_command("stdio", LLM_BUS_DATA=str(data))
    assert (result.returncode, result.stdout) == (ExitCode.UNAVAILABLE, "")
    assert "llm-bus up" in result.stderr


def test_an_error_of_the_settings_does_not_wait_for_the_import_of_the_gateway(data: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "cli.main", "stdio"],
        env=bus_process.clean_environ({"LLM_BUS_DATA": str(data)}),
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == ExitCode.UNAVAILABLE
    assert "cli.runtime" in result.stderr
    assert "mcp_gateway" not in result.stderr


def test_messages_in_other_forms_are_served(database_url: str, ada: Agent) -> None:
    """Arguments as JSON text and null parameters, as over HTTP."""
    client = {"protocolVersion": "2099-01-01", "capabilities": {}, "clientInfo": {"name": "x", "version": "1"}}
    messages: list[dict[str, Any]] = [
        {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": client},
        {"jsonrpc": "2.0", "method": "notifications/initialized", "params": None},
        {"jsonrpc": "2.0", "id": 2, "method": "tools/list", "params": None},
        *(
            {
                "jsonrpc": "2.0",
                "id": 3 + index,
                "method": "tools/call",
                "params": {"name": name, "arguments": arguments},
            }
            for index, (name, arguments) in enumerate(
                [("seed_sequence", '{"sequence": "adr", "current": "41"}'), ("whoami", []), ("claim", "adr")]
            )
        ),
    ]
    server = _server(database_url, LLM_BUS_TOKEN=ada.token)
    with subprocess.Popen(
        [server.command, *server.args], env=server.env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        answers: dict[int, Any] = {}
        for message in messages:
            process.stdin.write(json.dumps(message) + "\n")
            process.stdin.flush()
            if "id" in message:
                answer = json.loads(process.stdout.readline())
                answers[answer["id"]] = answer
        process.stdin.close()
    assert answers[1]["result"]["protocolVersion"] == "2025-11-25"
    assert len(answers[2]["result"]["tools"]) > 20
    assert answers[3]["result"]["structuredContent"]["current"] == 41
    assert answers[4]["result"]["structuredContent"]["actor"] == ada.actor
    assert answers[5]["error"]["message"] == (
        'arguments must be an object; the text "adr" was sent. claim takes: sequence, note, idempotency_key.'
    )
