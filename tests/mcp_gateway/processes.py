"""Gateway processes for tests: the real entry point on a free port."""

import os
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx2

from tests import process_pool, servers
from tests.concurrency import wait_until
from tests.metrics_scrape import scrape
from tests.process_pool import ForkedProcess

# Generous: the first import in a fresh environment compiles all modules.
_START_TIMEOUT_SECONDS = 180
NO_TICKS = {"mcp_gateway.subscriptions._TICK_SECONDS": 1e6}


@dataclass
class GatewayProcess:
    """A running gateway; `log` is the file with its output."""

    url: str
    log: Path
    start: "Callable[[], subprocess.Popen[bytes] | ForkedProcess]"

    def __post_init__(self) -> None:
        """Start it."""
        self.popen = self.start()

    def wait_for_waiting_calls(self, count: int) -> None:
        """Wait until so many `wait_for` calls are open in this process, which needs METRICS_TOKEN."""
        wait_until(lambda: scrape(self.url.removesuffix("/mcp")).value("llm_bus_gateway_waiting_calls") == count)

    def stop(self) -> None:
        """Stop it with SIGTERM, as a deploy does."""
        self.popen.send_signal(signal.SIGTERM)
        assert self.popen.wait(20) == 0, self.log.read_text()

    def restart(self) -> None:
        """Stop it, and start another one at the same port."""
        self.stop()
        self.popen = self.start()
        _wait_until_healthy(self)


@contextmanager
def running_gateways(
    database_url: str, count: int = 1, *, constants: Mapping[str, float] | None = None, **env: str
) -> Iterator[list[GatewayProcess]]:
    """Run `count` gateways over one database, and end them afterwards.

    Args:
        constants: other values for constants of modules, such as shorter intervals. With `NO_TICKS` only notifications
            end a wait.
    """
    started = [_start_gateway(database_url, env, constants) for _ in range(count)]
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


def _start_gateway(database_url: str, env: dict[str, str], constants: Mapping[str, float] | None) -> GatewayProcess:
    port = int(env.get("PORT") or servers.free_port())
    handle, name = tempfile.mkstemp(prefix="gateway-", suffix=".log")
    os.close(handle)
    log = Path(name)
    environ = {
        **_clean_environ(os.environ),
        "DATABASE_URL": servers.application_url(database_url),
        "PORT": str(port),
        **env,
    }

    def start() -> "subprocess.Popen[bytes] | ForkedProcess":
        with log.open("ab") as output:
            return process_pool.start_module("mcp_gateway", env=environ, output=output, constants=constants)

    return GatewayProcess(f"http://127.0.0.1:{port}/mcp", log, start)


def _clean_environ(env: "os._Environ[str]") -> dict[str, str]:
    """The environment without variables that configure the gateway."""
    gateway_variables = {
        "PUBLIC_URL",
        "MCP_URL",
        "ALLOWED_HOSTS",
        "ALLOWED_ORIGINS",
        "REDIS_URL",
        "HOST",
        "PORT",
        "DRAIN_SECONDS",
    }
    return {name: value for name, value in env.items() if name not in gateway_variables}


def _wait_until_healthy(process: GatewayProcess) -> None:
    health = process.url.removesuffix("/mcp") + "/healthz"

    def has_ended_or_responds() -> bool:
        try:
            return process.popen.poll() is not None or httpx2.get(health, timeout=1).status_code == 200
        except httpx2.HTTPError:
            return False

    wait_until(has_ended_or_responds, _START_TIMEOUT_SECONDS, describe=process.log.read_text)
    assert process.popen.poll() is None, f"the gateway did not start:\n{process.log.read_text()}"
