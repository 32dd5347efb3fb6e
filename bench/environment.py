"""What is measured: a PostgreSQL in a temporary folder and two gateway processes over it, all with full durability."""

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

from bench.requests import Address
from bus.db import Database, migrate
from cli.embedded import account, child, postgres, redis

GATEWAY_COUNT = 2
_START_SECONDS = 30.0
_STOP_SIGNALS = ((signal.SIGTERM, 20.0),)
# What would configure a gateway behind the benchmark's back.
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
    """Everything that runs, ready to be loaded.

    Attributes:
        database: the benchmark's own connections, for setting up and for checking.
        watched: process ids by party, for CPU seconds.
    """

    folder: Path
    postgres: postgres.PostgresServer
    redis_server: redis.RedisServer
    gateways: list["subprocess.Popen[bytes]"]
    addresses: list[Address]
    database: Database

    @property
    def database_url(self) -> str:
        return self.postgres.url

    @property
    def gateway_pids(self) -> list[int]:
        return [gateway.pid for gateway in self.gateways]

    def stop_redis(self) -> None:
        """End Redis; the gateways go on without it."""
        redis.stop(self.redis_server)

    def start_redis(self) -> None:
        """Start it again where it was."""
        again = _start_redis(self.folder, self.redis_server.port)
        redis.wait_until_ready(again)
        self.redis_server = again

    def recent_log_errors(self) -> list[str]:
        """What the gateways said last that was no answer, for the message of a failure."""
        said = []
        for gateway, log in zip(self.gateways, sorted(self.folder.glob("gateway-*.log")), strict=True):
            lines = [line for line in log.read_text("utf-8", "replace").splitlines() if '"status":200' not in line]
            said += [f"{log.name} (exit code {gateway.poll()}): {line[:400]}" for line in lines[-5:]]
        return said

    @property
    def process_groups(self) -> dict[str, list[int]]:
        return {"gateway": self.gateway_pids, "postgres": [self.postgres.process.pid]}


@contextmanager
def start_environment(gateway_count: int = GATEWAY_COUNT) -> Iterator[Environment]:
    """Start everything in a temporary folder; end it and remove the folder afterwards."""
    _raise_open_file_limit()
    folder = Path(tempfile.mkdtemp(prefix="llm-bus-bench-"))
    # The account that runs PostgreSQL passes through.
    folder.chmod(0o711)
    server = postgres.launch(
        folder / "postgres",
        port=free_port(),
        log_path=folder / "postgres.log",
        account=account.choose_account(folder),
        ephemeral=False,
    )
    queue = _start_redis(folder, free_port())
    started: list[subprocess.Popen[bytes]] = []
    database = bed = None
    try:
        postgres.wait_until_ready(server)
        redis.wait_until_ready(queue)
        migrate.migrate(server.url)
        addresses = []
        for number in range(gateway_count):
            address = Address("127.0.0.1", free_port())
            started.append(_start_gateway(folder / f"gateway-{number}.log", server.url, queue.url, address))
            addresses.append(address)
        for process, address in zip(started, addresses, strict=True):
            wait_until_healthy(process, address, folder)
        database = Database(server.url, pool_size=4, application_name="llm-bus bench")
        _require_durability(database)
        bed = Environment(folder, server, queue, started, addresses, database)
        yield bed
    finally:
        if database is not None:
            database.close()
        for process in started:
            child.stop(process, _STOP_SIGNALS)
        redis.stop(queue if bed is None else bed.redis_server)
        postgres.stop(server)
        shutil.rmtree(folder, ignore_errors=True)


def clean_environ() -> dict[str, str]:
    """The environment without what would configure a process behind the benchmark's back."""
    return {name: value for name, value in os.environ.items() if name not in _GATEWAY_VARIABLES}


def free_port() -> int:
    """One of the kernel's choice: the usual ones belong to whatever else runs on this machine."""
    with socket.socket() as any_port:
        any_port.bind(("127.0.0.1", 0))
        return int(any_port.getsockname()[1])


def _start_redis(folder: Path, port: int) -> redis.RedisServer:
    return redis.launch(folder / "redis", port=port, log_path=folder / "redis.log", ephemeral=True)


def _raise_open_file_limit() -> None:
    """As many open files as the system allows this process and its children, since `push` opens thousands."""
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
    """Wait until a server answers; if it ends instead, its log is in the error."""

    def answers() -> bool:
        connection = HTTPConnection(address.host, address.port, timeout=1)
        try:
            connection.request("GET", "/healthz")
            return connection.getresponse().status == 200
        except (OSError, HTTPException):
            return False
        finally:
            connection.close()

    if not child.wait_until(answers, process, _START_SECONDS, child.do_nothing):
        logs = "".join(child.format_log_tail(log) for log in sorted(folder.glob("*.log")))
        raise child.StartFailedError(f"A server did not start:{logs}")


def _require_durability(database: Database) -> None:
    with database.connection() as conn:
        for setting in _DURABILITY_SETTINGS:
            (value,) = conn.fetch_one(f"SHOW {setting}")
            assert value == "on", f"{setting} is {value}: such a measurement says nothing"


def checkpoint_and_pause(environment: Environment) -> None:
    """Bring the database to rest after much was written, so that one scenario does not pay for the one before."""
    with environment.database.connection() as conn:
        conn.raw.execute("CHECKPOINT")
    time.sleep(0.3)
