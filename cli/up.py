"""`llm-bus up`: start everything in one data folder, keep it running, end it in order."""

import contextlib
import json
import os
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from bus.config.settings import normalise_database_url
from cli import banner, data_dir, orphans, procfile, readiness, runtime, supervisor
from cli.embedded import child, postgres, redis
from cli.exit_codes import CliError, ExitCode
from cli.files import start_new_log, truncate_oversized_log
from cli.ports import DEFAULT_PORTS, PortAllocator
from cli.signals import ShutdownRequested, ShutdownSignals

_MAX_PORT_ATTEMPTS = 4
_LOG_CHECK_INTERVAL_SECONDS = 60.0


@dataclass
class RunningBus:
    """Everything that was started, in the order of its start."""

    data: Path
    ports: PortAllocator
    processes: list[supervisor.SupervisedProcess] = field(default_factory=list)
    postgres_server: postgres.PostgresServer | None = None
    redis_server: redis.RedisServer | None = None

    def record_children(self) -> None:
        """Write our children down, for the start after a kill -9. PostgreSQL has its own pid file."""
        children = {process.process_type.name: process.popen.pid for process in self.processes}
        if self.redis_server is not None:
            children["redis"] = self.redis_server.process.pid
        orphans.record_children(self.data, children)

    def stop(self) -> None:
        """End the processes, then Redis, then PostgreSQL: each may need the next to finish its work."""
        supervisor.stop_all(self.processes)
        self.processes.clear()
        if self.redis_server is not None:
            redis.stop(self.redis_server)
        if self.postgres_server is not None:
            postgres.stop(self.postgres_server)
        self.redis_server = self.postgres_server = None


def up(data: Path, *, as_json: bool) -> int:
    """Run the bus in `data` until a signal; returns the exit code.

    Raises:
        CliError: something did not start; nothing is left running then.
    """
    data_dir.create(data)
    lock = data_dir.DataDirLock(data)
    if not lock.acquire():
        return _report_already_running(data, as_json=as_json)
    signals = ShutdownSignals()
    running = RunningBus(data, PortAllocator(data / "ports.json"))
    try:
        _start_and_supervise(running, signals, as_json=as_json)
    except ShutdownRequested:
        _print_status("Stopping ...")
    except child.StartFailedError as error:
        raise CliError(str(error)) from error
    finally:
        runtime.delete(data)
        running.stop()
        orphans.record_children(data, {})
        lock.release()
    return ExitCode.OK


def _start_and_supervise(running: RunningBus, signals: ShutdownSignals, *, as_json: bool) -> None:
    orphans.terminate_all(running.data)
    _launch_servers(running)
    database_url, redis_url = _wait_for_servers(running, signals)
    agents: list[runtime.NewAgent] = []
    if not readiness.is_ready(running.data, database_url):
        # Here, since its imports take longer than everything that a start without it does.
        from cli import bootstrap

        agents = bootstrap.prepare_database(running.data, database_url, signals.raise_if_requested)
    if running.redis_server is None and not _is_redis_responding(redis_url):
        _print_status("Redis (REDIS_URL) does not answer. The bus works without it, a little slower.")
    signals.raise_if_requested()
    now = _start_processes(running, signals, database_url, redis_url)
    runtime.save(now)
    if as_json:
        _print_result(
            json.dumps(
                now.addresses()
                | {"agents": [{"project": new.project, "name": new.name, "token": new.token} for new in agents]}
            )
        )
    else:
        _print_result(banner.render(now, agents, _login_url(now)))
    _supervise(running, signals)


def _login_url(runtime_info: runtime.RuntimeInfo) -> str | None:
    """A link that signs in the owner whom the first start made; None where somebody else runs the show by now."""
    if not runtime_info.web:
        return None
    # Here, since everything answers by now and nobody waits for these imports.
    from bus.auth import login_links
    from bus.client_setup import login_link_url
    from bus.db import Database
    from bus.errors import BusError
    from bus.tenancy import owners

    with contextlib.closing(
        Database(runtime_info.database_url, pool_size=1, application_name="llm-bus up")
    ) as database:
        try:
            with database.transaction() as conn:
                token = login_links.create_login_link(conn, owners.get(conn, runtime.OWNER_EMAIL), actor="cli")
        except BusError:
            return None
    return login_link_url(runtime_info.public_url, token)


def _launch_servers(running: RunningBus, exclude: frozenset[int] = frozenset()) -> None:
    """Start the servers that no variable names and that do not run yet; waits for none of them."""
    if not _get_env("REDIS_URL") and running.redis_server is None:
        running.redis_server = _launch_redis(running, running.ports.assign("redis", exclude=exclude))
        running.record_children()
    if not _get_env("DATABASE_URL") and running.postgres_server is None:
        running.postgres_server = _launch_postgres(running, running.ports.assign("postgres", exclude=exclude))


def _wait_for_servers(running: RunningBus, signals: ShutdownSignals) -> tuple[str, str]:
    """Return the URLs of the database and of Redis, once what we launched takes connections."""
    refused: set[int] = set()
    for _ in range(_MAX_PORT_ATTEMPTS):
        try:
            if running.postgres_server is not None:
                postgres.wait_until_ready(running.postgres_server, signals.raise_if_requested)
            if running.redis_server is not None:
                redis.wait_until_ready(running.redis_server, signals.raise_if_requested)
        except child.PortTakenError:
            if running.postgres_server is not None and running.postgres_server.process.poll() is not None:
                refused.add(running.postgres_server.port)
                running.postgres_server = None
            if running.redis_server is not None and running.redis_server.process.poll() is not None:
                refused.add(running.redis_server.port)
                running.redis_server = None
            _launch_servers(running, frozenset(refused))
            continue
        return (
            normalise_database_url(
                running.postgres_server.url if running.postgres_server else _get_env("DATABASE_URL")
            ),
            running.redis_server.url if running.redis_server else _get_env("REDIS_URL"),
        )
    raise CliError("Other programs keep taking the ports that PostgreSQL or Redis were to use. Try again.")


def _launch_postgres(running: RunningBus, port: int) -> postgres.PostgresServer:
    return postgres.launch(
        running.data / "postgres",
        port=port,
        log_path=start_new_log(running.data / "logs", "postgres"),
        account=data_dir.server_account(running.data),
    )


def _launch_redis(running: RunningBus, port: int) -> redis.RedisServer:
    return redis.launch(running.data / "redis", port=port, log_path=start_new_log(running.data / "logs", "redis"))


def _start_processes(
    running: RunningBus, signals: ShutdownSignals, database_url: str, redis_url: str
) -> runtime.RuntimeInfo:
    """Start what the Procfile lists and wait until it answers; other ports are tried where one was lost."""
    cwd, kinds = procfile.read()
    refused: set[int] = set()
    for _ in range(_MAX_PORT_ATTEMPTS):
        ports = {
            kind.name: running.ports.assign(kind.name, exclude=frozenset(refused))
            for kind in kinds
            if kind.name in supervisor.HTTP_PROCESS_NAMES
        }
        now = _build_runtime_info(running.data, ports, database_url, redis_url)
        env = {
            "DATABASE_URL": database_url,
            "REDIS_URL": redis_url,
            "PUBLIC_URL": now.public_url,
            "MCP_URL": now.mcp_url,
            "HOST": "127.0.0.1",
            "LLM_BUS_DATA": str(running.data),
        }
        try:
            # What answers people and agents first; what works by the clock has time.
            for some in (
                [kind for kind in kinds if kind.name in ports],
                [one for one in kinds if one.name not in ports],
            ):
                started = [
                    supervisor.start(kind, cwd=cwd, log_dir=running.data / "logs", env=env, port=ports.get(kind.name))
                    for kind in some
                ]
                running.processes += started
                running.record_children()
                for process in started:
                    supervisor.wait_until_ready(process, signals.raise_if_requested)
        except supervisor.PortConflictError as lost:
            # The addresses are in everybody's environment, so everybody starts again.
            refused.add(lost.port)
            supervisor.stop_all(running.processes)
            running.processes.clear()
            continue
        return now
    raise CliError("Other programs keep taking the ports that the bus was to use. Try again.")


def _build_runtime_info(data: Path, ports: dict[str, int], database_url: str, redis_url: str) -> runtime.RuntimeInfo:
    """The addresses that cards and links will name: the user's, else those of the chosen ports."""
    chosen_public = _get_env("PUBLIC_URL").rstrip("/")
    chosen_mcp = _get_env("MCP_URL").rstrip("/")
    local_gateway = f"http://127.0.0.1:{ports.get('gateway', DEFAULT_PORTS['gateway'])}/mcp"
    return runtime.RuntimeInfo(
        database_url=database_url,
        redis_url=redis_url,
        public_url=chosen_public or f"http://127.0.0.1:{ports.get('web', DEFAULT_PORTS['web'])}",
        mcp_url=chosen_mcp or (f"{chosen_public}/mcp" if chosen_public else local_gateway),
        web="web" in ports,
        data=str(data),
        ports=ports,
    )


def _supervise(running: RunningBus, signals: ShutdownSignals) -> None:
    """Bring back what ends by itself and keep the logs bounded, until somebody asks us to end."""
    next_check = time.monotonic() + _LOG_CHECK_INTERVAL_SECONDS
    while True:
        signals.raise_if_requested()
        _restart_exited_servers(running, signals)
        restarted = [process for process in running.processes if supervisor.restart_if_exited(process, _print_status)]
        if restarted:
            running.record_children()
        if time.monotonic() > next_check:
            for log in (running.data / "logs").glob("*.log"):
                truncate_oversized_log(log)
            next_check = time.monotonic() + _LOG_CHECK_INTERVAL_SECONDS
        signals.wait(1.0)


def _restart_exited_servers(running: RunningBus, signals: ShutdownSignals) -> None:
    """Start a server of ours that ended again, on its port.

    Raises:
        StartFailedError: it does not come back; without it there is no bus.
    """
    server, queue = running.postgres_server, running.redis_server
    if server is not None and (code := server.process.poll()) is not None:
        _print_status(f"PostgreSQL ended with code {code}; starting it again. Log: {server.log_path}")
        signals.wait(1.0)
        running.postgres_server = _launch_postgres(running, server.port)
        postgres.wait_until_ready(running.postgres_server, signals.raise_if_requested)
    if queue is not None and (code := queue.process.poll()) is not None:
        _print_status(f"Redis ended with code {code}; starting it again. Log: {queue.log_path}")
        signals.wait(1.0)
        running.redis_server = _launch_redis(running, queue.port)
        running.record_children()
        redis.wait_until_ready(running.redis_server, signals.raise_if_requested)


def _report_already_running(data: Path, *, as_json: bool) -> int:
    other = runtime.find_running(data)
    if other is None:
        _print_status(f"llm-bus: another `llm-bus up` is starting or stopping in {data}.")
        return ExitCode.RUNNING
    web = f", web {other.public_url}" if other.web else ""
    _print_status(f"llm-bus: already running in {data}: gateway {other.mcp_url}{web}.")
    if as_json:
        _print_result(json.dumps(other.addresses() | {"agents": []}))
    return ExitCode.RUNNING


def _is_redis_responding(redis_url: str) -> bool:
    from redis import Redis, RedisError

    try:
        with Redis.from_url(redis_url, socket_connect_timeout=2, socket_timeout=2) as client:
            return bool(client.ping())
    except (RedisError, ValueError):
        return False


def _get_env(name: str) -> str:
    return os.environ.get(name, "").strip()


def _print_status(message: str) -> None:
    """To stderr: standard output belongs to the one JSON line, or the screen."""
    with contextlib.suppress(OSError):
        print(message, file=sys.stderr, flush=True)


def _print_result(text: str) -> None:
    # Whoever read our output may be gone; the bus goes on.
    with contextlib.suppress(OSError):
        print(text, flush=True)
