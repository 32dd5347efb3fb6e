"""The official MCP conformance suite against the real gateway and the authorization server: `make conformance`.

npx runs it, with a downloaded Node where the machine has none that is recent enough; CONFORMANCE names another command
that runs the suite. Exit code 1 if a scenario fails.
"""

import asyncio
import os
import re
import shlex
import signal
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
from tests.concurrency import wait_until_async
from tests.conformance import authorization
from tests.node import find_or_install_node

_PACKAGE = "@modelcontextprotocol/conformance@0.2.0-alpha.12"
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
    command, path = _find_suite_command()
    started = servers.Servers()
    try:
        with servers.cloned_database() as url:
            failed = asyncio.run(_run_suite(command, path, url))
        with servers.cloned_database() as url:
            failed += authorization.run(command, path, url)
    finally:
        started.stop()
    total = sum(map(len, _SCENARIOS.values())) + len(authorization.SPEC_VERSIONS) * len(authorization.SCENARIOS)
    print(f"{failed} of {total} scenarios failed." if failed else "All passed.")
    return 1 if failed else 0


async def _run_suite(command: list[str], path: str, database_url: str) -> int:
    with closing(Database(database_url, pool_size=1)) as database, database.transaction() as conn:
        token = factories.make_agent(conn, label="conformance", is_admin=True).token
    # One scenario reads a text resource of a server made for the suite.
    text = "This is the content of the static text resource."
    fixture = Resource("test://static-text", "static-text", "For the suite", "text/plain", None, text)
    RESOURCES[fixture.uri] = fixture
    logs.configure_logging("ERROR")
    settings = Settings.from_env({"DATABASE_URL": servers.application_url(database_url), "PORT": str(_free_port())})
    gateway = Gateway(settings)

    async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
        # The suite cannot send a token.
        if scope["type"] == "http":
            authorization = (b"authorization", f"Bearer {token}".encode())
            scope = {**scope, "headers": [*scope["headers"], authorization]}
        await gateway(scope, receive, send)

    serving = asyncio.create_task(http_server.serve(app, settings, gateway.begin_drain, gateway.service.drain))
    try:
        await _wait_for_port(settings.port, serving)
        url = f"http://localhost:{settings.port}/mcp"
        failed = 0
        for version, scenarios in _SCENARIOS.items():
            for scenario in scenarios:
                arguments = ("server", "--url", url, "--scenario", scenario, "--spec-version", version)
                failed += not await _run_scenario([*command, *arguments], path, f"{version}  {scenario}")
        return failed
    finally:
        if not serving.done():
            # The server stops at this signal as in production.
            signal.raise_signal(signal.SIGTERM)
            await serving


async def _run_scenario(command: list[str], path: str, name: str) -> bool:
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**os.environ, "PATH": path},
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
    def is_listening() -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    await wait_until_async(lambda: serving.done() or is_listening(), 30)
    if serving.done():
        serving.result()


def _find_suite_command() -> tuple[list[str], str]:
    """Return the command that runs the suite, and the PATH for it."""
    if command := os.environ.get("CONFORMANCE", "").strip():
        return shlex.split(command), os.environ.get("PATH", os.defpath)
    node = find_or_install_node()
    return [*node.npx, "--yes", _PACKAGE], node.path


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    sys.exit(main())
