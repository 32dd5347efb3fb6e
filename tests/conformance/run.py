"""The official MCP conformance suite against the real gateway: `make conformance`.

Needs Node 22 or newer, or CONFORMANCE as the command that runs the suite; without either it prints a message and runs
nothing. Exit code 1 if a scenario fails.
"""

import asyncio
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
from contextlib import closing
from typing import Any

from bus.config.settings import Settings
from bus.db import Database
from bus.operations import logs
from mcp_gateway import http_server
from mcp_gateway.app import Gateway
from mcp_gateway.resources import RESOURCES, Resource
from tests import factories, servers

_PACKAGE = "@modelcontextprotocol/conformance@0.2.0-alpha.12"
_MIN_NODE_VERSION = 22
_SCENARIO_TIMEOUT_SECONDS = 120
# The scenarios for any server; the others call tools of a server made for the suite.
_SCENARIOS = {
    "2025-11-25": (
        "server-initialize",
        "ping",
        "tools-list",
        "dns-rebinding-protection",
        "resources-list",
        "resources-read-text",
        "prompts-list",
    ),
    "2026-07-28": (
        "tools-list",
        "dns-rebinding-protection",
        "resources-list",
        "resources-read-text",
        "prompts-list",
        "http-header-validation",
        "caching",
        "sep-2164-resource-not-found",
    ),
}
_SUMMARY_PATTERN = re.compile(r"^Passed: (\d+)/(\d+), (\d+) failed, (\d+) warnings?$", re.MULTILINE)


def main() -> int:
    """Run every scenario, print a line for each, and return the exit code."""
    command = _find_suite_command()
    if command is None:
        print(
            f"Skipped: the conformance suite needs Node {_MIN_NODE_VERSION} or newer; installed:"
            f" {_get_node_version() or 'none'}. Set CONFORMANCE to another command that runs it."
        )
        return 0
    started = servers.Servers()
    try:
        with servers.cloned_database() as url:
            failed = asyncio.run(_run_suite(command, url))
    finally:
        started.stop()
    print(f"{failed} of {sum(map(len, _SCENARIOS.values()))} scenarios failed." if failed else "All passed.")
    return 1 if failed else 0


async def _run_suite(command: list[str], database_url: str) -> int:
    with closing(Database(database_url, pool_size=1)) as database, database.transaction() as conn:
        token = factories.make_agent(conn, label="conformance", is_admin=True).token
    # One scenario reads a text resource of a server made for the suite.
    text = "This is the content of the static text resource."
    fixture = Resource("test://static-text", "static-text", "For the suite", "text/plain", None, text)
    RESOURCES[fixture.uri] = fixture
    logs.configure_logging("ERROR")
    settings = Settings.from_env({"DATABASE_URL": database_url, "PORT": str(_free_port())})
    gateway = Gateway(settings)

    async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
        # The suite cannot send a token.
        if scope["type"] == "http":
            authorization = (b"authorization", f"Bearer {token}".encode())
            scope = {**scope, "headers": [*scope["headers"], authorization]}
        await gateway(scope, receive, send)

    serving = asyncio.create_task(http_server.serve(app, settings, gateway.service.drain))
    try:
        await _wait_for_port(settings.port, serving)
        url = f"http://localhost:{settings.port}/mcp"
        failed = 0
        for version, scenarios in _SCENARIOS.items():
            for scenario in scenarios:
                arguments = ("server", "--url", url, "--scenario", scenario, "--spec-version", version)
                failed += not await _run_scenario([*command, *arguments], f"{version}  {scenario}")
        return failed
    finally:
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)


async def _run_scenario(command: list[str], name: str) -> bool:
    process = await asyncio.create_subprocess_exec(
        *command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    try:
        output, _ = await asyncio.wait_for(process.communicate(), _SCENARIO_TIMEOUT_SECONDS)
    except TimeoutError:
        process.kill()
        output, _ = await process.communicate()
    text = output.decode("utf-8", "replace")
    summary = _SUMMARY_PATTERN.search(text)
    # A skipped scenario exits with 0 too, but prints no summary.
    has_passed = process.returncode == 0 and summary is not None and summary[1] == summary[2] != "0"
    print(f"ok    {name}" if has_passed else f"FAIL  {name}\n{text}", flush=True)
    return has_passed


async def _wait_for_port(port: int, serving: "asyncio.Task[None]") -> None:
    for _ in range(300):
        if serving.done():
            serving.result()
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            await asyncio.sleep(0.1)
        else:
            writer.close()
            await writer.wait_closed()
            return
    raise TimeoutError("the gateway did not start within 30 s")


def _find_suite_command() -> list[str] | None:
    """Return the command that runs the suite, or None without a suitable Node."""
    if command := os.environ.get("CONFORMANCE", "").strip():
        return shlex.split(command)
    version = re.match(r"v(\d+)\.", _get_node_version())
    npx = shutil.which("npx")
    if version is None or int(version[1]) < _MIN_NODE_VERSION or npx is None:
        return None
    return [npx, "--yes", _PACKAGE]


def _get_node_version() -> str:
    node = shutil.which("node")
    if node is None:
        return ""
    return subprocess.run([node, "--version"], capture_output=True, text=True, check=False).stdout.strip()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    sys.exit(main())
