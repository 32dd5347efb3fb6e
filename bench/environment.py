"""The measured environment: PostgreSQL with full durability in a temporary folder, Redis, and two gateways."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from pathlib import Path

from bench import cpu
from bench.requests import Address
from bus.db import Database, migrate
from cli.embedded import account, child, postgres, redis

GATEWAY_COUNT = 2
_START_SECONDS = 30.0
_STOP_SIGNALS = ((signal.SIGTERM, 20.0),)
# Variables of the caller's environment that would change the gateways.
_GATEWAY_VARIABLES = (
    "PUBLIC_URL",
    "MCP_URL",
    "ALLOWED_HOSTS",
    "ALLOWED_ORIGINS",
    "REDIS_URL",
    "HOST",
    "RATE_PER_MINUTE",
)
_DURABILITY_SETTINGS = ("fsync", "synchronous_commit", "full_page_writes")


@dataclass
class Environment:
    """The running servers.

    Attributes:
        database: the benchmark's own connections, for set-up and checks.
    """

    folder: Path
    postgres: postgres.PostgresServer
    redis_server: redis.RedisServer
    gateways: list["subprocess.Popen[bytes]"]
    addresses: list[Address]
    database: Database

    @property
    def database_url(self) -> str:
        """The URL of the database."""
        return self.postgres.url

    @property
    def gateway_pids(self) -> list[int]:
        """The process ids of the gateways."""
        return [gateway.pid for gateway in self.gateways]

    @property
    def gateway_memory(self) -> int:
        """The private memory of all gateways, in bytes."""
        return sum(cpu.private_memory(pid) for pid in self.gateway_pids)

    def stop_redis(self) -> None:
        """Stop Redis; the gateways keep running without it."""
        redis.stop(self.redis_server)

    def start_redis(self) -> None:
        """Start Redis again on the same port."""
        server = _start_redis(self.folder, self.redis_server.port)
        redis.wait_until_ready(server)
        self.redis_server = server

    def recent_log_errors(self) -> list[str]:
        """Return the last log lines of the gateways that are not successful requests, for error messages."""
        errors = []
        for gateway, log in zip(self.gateways, sorted(self.folder.glob("gateway-*.log")), strict=True):
            lines = [line for line in log.read_text("utf-8", "replace").splitlines() if '"status":200' not in line]
            errors += [f"{log.name} (exit code {gateway.poll()}): {line[:400]}" for line in lines[-5:]]
        return errors

    @property
    def process_groups(self) -> dict[str, list[int]]:
        """The process ids by group, for measuring CPU seconds."""
        return {"gateway": self.gateway_pids, "postgres": [self.postgres.process.pid]}


@contextmanager
def start_environment(gateway_count: int = GATEWAY_COUNT) -> Iterator[Environment]:
    """Start all servers in a temporary folder; stop them and remove the folder afterwards."""
    _raise_open_file_limit()
    folder = Path(tempfile.mkdtemp(prefix="llm-bus-bench-"))
    # The account of PostgreSQL needs to enter the folder.
    folder.chmod(0o711)
    server = postgres.launch(
        folder / "postgres",
        port=free_port(),
        log_path=folder / "postgres.log",
        account=account.choose_account(folder),
        ephemeral=False,
    )
    redis_server = _start_redis(folder, free_port())
    gateways: list[subprocess.Popen[bytes]] = []
    database = environment = None
    try:
        postgres.wait_until_ready(server)
        redis.wait_until_ready(redis_server)
        migrate.migrate(server.url, application_url=server.application_url)
        addresses = []
        for number in range(gateway_count):
            address = Address("127.0.0.1", free_port())
            gateways.append(
                _start_gateway(folder / f"gateway-{number}.log", server.application_url, redis_server.url, address)
            )
            addresses.append(address)
        for process, address in zip(gateways, addresses, strict=True):
            wait_until_healthy(process, address, folder)
        database = Database(server.url, pool_size=4, application_name="llm-bus bench")
        _require_durability(database)
        environment = Environment(folder, server, redis_server, gateways, addresses, database)
        yield environment
    finally:
        if database is not None:
            database.close()
        for process in gateways:
            child.stop(process, _STOP_SIGNALS)
        redis.stop(redis_server if environment is None else environment.redis_server)
        postgres.stop(server)
        shutil.rmtree(folder, ignore_errors=True)


def clean_environ() -> dict[str, str]:
    """Return the environment without the variables that would change the measured processes."""
    return {name: value for name, value in os.environ.items() if name not in _GATEWAY_VARIABLES}


def free_port() -> int:
    """Return a free port; the default ports may be in use on this machine."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _start_redis(folder: Path, port: int) -> redis.RedisServer:
    return redis.launch(folder / "redis", port=port, log_path=folder / "redis.log", ephemeral=True)


def _raise_open_file_limit() -> None:
    """Raise the limit of open files to the maximum, since `push` opens thousands of connections."""
    try:
        import resource
    except ImportError:
        return
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _start_gateway(log: Path, url: str, redis_url: str, address: Address) -> "subprocess.Popen[bytes]":
    return child.spawn(
        [sys.executable, "-m", "mcp_gateway"],
        log_path=log,
        death_signal=signal.SIGTERM,
        env={**clean_environ(), "DATABASE_URL": url, "REDIS_URL": redis_url, "PORT": str(address.port)},
        cwd=Path.cwd(),
    )


def wait_until_healthy(process: "subprocess.Popen[bytes]", address: Address, folder: Path) -> None:
    """Wait until a server answers its health check.

    Raises:
        child.StartFailedError: the server ended or did not answer in time; the message has the logs.
    """

    def is_healthy() -> bool:
        connection = HTTPConnection(address.host, address.port, timeout=1)
        try:
            connection.request("GET", "/healthz")
            return connection.getresponse().status == 200
        except (OSError, HTTPException):
            return False
        finally:
            connection.close()

    if not child.wait_until(is_healthy, process, _START_SECONDS, child.do_nothing):
        logs = "".join(child.format_log_tail(log) for log in sorted(folder.glob("*.log")))
        raise child.StartFailedError(f"A server did not start:{logs}")


def _require_durability(database: Database) -> None:
    with database.connection() as conn:
        for setting in _DURABILITY_SETTINGS:
            (value,) = conn.fetch_one(f"SHOW {setting}")
            assert value == "on", f"{setting} is {value}, so the measurement would be meaningless"


def checkpoint_and_pause(environment: Environment) -> None:
    """Run a checkpoint, so that a scenario does not pay for the writes of the previous one."""
    with environment.database.connection() as conn:
        conn.raw.execute("CHECKPOINT")
    time.sleep(0.3)
