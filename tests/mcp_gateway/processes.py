"""Gateway processes for tests: the real entry point on a free port."""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx2

from tests import process_pool
from tests.process_pool import ForkedProcess

# Generous: the first import in a fresh environment compiles all modules.
_START_TIMEOUT_SECONDS = 180
_MAIN_WITHOUT_TICKS = """
from mcp_gateway import __main__, subscriptions

subscriptions._TICK_SECONDS = 1e6
__main__.main()
"""


@dataclass
class GatewayProcess:
    """A running gateway; `log` is the file with its output."""

    url: str
    popen: "subprocess.Popen[bytes] | ForkedProcess"
    log: Path

    def stop(self) -> None:
        """Stop it with SIGTERM, as a deploy does."""
        self.popen.send_signal(signal.SIGTERM)
        assert self.popen.wait(20) == 0, self.log.read_text()


@contextmanager
def running_gateways(
    database_url: str, count: int = 1, *, ticks: bool = True, **env: str
) -> Iterator[list[GatewayProcess]]:
    """Run `count` gateways over one database, and end them afterwards.

    Args:
        ticks: whether they poll at intervals; without, only notifications end a wait.
    """
    started = [_start_gateway(database_url, env, ticks) for _ in range(count)]
    try:
        for process in started:
            _wait_until_healthy(process)
        yield started
    finally:
        for process in started:
            if process.popen.poll() is None:
                process.popen.terminate()
        for process in started:
            try:
                process.popen.wait(15)
            except subprocess.TimeoutExpired:
                process.popen.kill()
                process.popen.wait()
            process.log.unlink()


def _start_gateway(database_url: str, env: dict[str, str], ticks: bool) -> GatewayProcess:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    handle, name = tempfile.mkstemp(prefix="gateway-", suffix=".log")
    log = Path(name)
    with os.fdopen(handle, "wb") as output:
        environ = {**_clean_environ(os.environ), "DATABASE_URL": database_url, "PORT": str(port), **env}
        if ticks:
            popen = process_pool.start_module("mcp_gateway", env=environ, output=output)
        else:
            command = [sys.executable, "-c", _MAIN_WITHOUT_TICKS]
            popen = subprocess.Popen(command, env=environ, stdout=output, stderr=subprocess.STDOUT)
    return GatewayProcess(f"http://127.0.0.1:{port}/mcp", popen, log)


def _clean_environ(env: "os._Environ[str]") -> dict[str, str]:
    """The environment without variables that configure the gateway."""
    gateway_variables = {"PUBLIC_URL", "MCP_URL", "ALLOWED_HOSTS", "ALLOWED_ORIGINS", "REDIS_URL", "HOST", "PORT"}
    return {name: value for name, value in env.items() if name not in gateway_variables}


def _wait_until_healthy(process: GatewayProcess) -> None:
    health = process.url.removesuffix("/mcp") + "/healthz"
    deadline = time.monotonic() + _START_TIMEOUT_SECONDS
    while time.monotonic() < deadline:
        if process.popen.poll() is not None:
            break
        try:
            if httpx2.get(health, timeout=1).status_code == 200:
                return
        except httpx2.HTTPError:
            time.sleep(0.05)
    raise AssertionError(f"the gateway did not start:\n{process.log.read_text()}")
