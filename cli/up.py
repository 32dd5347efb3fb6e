"""`llm-bus up`: start the servers and processes of one data folder, supervise them, stop them in order."""

import contextlib
import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from bus.config.database_url import normalise_database_url
from cli import banner, data_dir, database_prepared, orphans, procfile, runtime, supervisor
from cli.embedded import child, postgres, redis
from cli.exit_codes import CliError, ExitCode
from cli.files import start_new_log, truncate_oversized_log
from cli.ports import DEFAULT_PORTS, PortAllocator
from cli.restart_schedule import RestartSchedule
from cli.signals import ShutdownRequested, ShutdownSignals

_MAX_PORT_ATTEMPTS = 4
_LOG_CHECK_INTERVAL_SECONDS = 60.0
_Server = TypeVar("_Server", postgres.PostgresServer, redis.RedisServer)


@dataclass
class RunningBus:
    """The servers and processes that were started."""

    data: Path
    ports: PortAllocator
    processes: list[supervisor.SupervisedProcess] = field(default_factory=list)
    postgres_server: postgres.PostgresServer | None = None
    redis_server: redis.RedisServer | None = None
    postgres_restarts: RestartSchedule | None = None
    redis_restarts: RestartSchedule | None = None
    runtime_info: runtime.RuntimeInfo | None = None
    records_are_current: bool = True

    def write_records(self) -> None:
        """Record the children for a start after kill -9, and the addresses for other commands.

        PostgreSQL has its own pid file. The bus runs without these records, so a full disk does not end it: what could
        not be written is written by a later call.
        """
        children = {process.process_type.name: process.popen.pid for process in self.processes}
        if self.redis_server is not None:
            children["redis"] = self.redis_server.process.pid
        try:
            orphans.record_children(self.data, children)
            if self.runtime_info is not None:
                runtime.save(self.runtime_info)
        except OSError as error:
            if self.records_are_current:
                _print_status(f"The records of this run cannot be written to {self.data}: {error}. Trying again.")
            self.records_are_current = False
        else:
            self.records_are_current = True

    def stop(self) -> None:
        """Stop the processes, then Redis, then PostgreSQL: each may need the next to finish its work."""
        supervisor.stop_all(self.processes)
        self.processes.clear()
        if self.redis_server is not None:
            redis.stop(self.redis_server)
        if self.postgres_server is not None:
            postgres.stop(self.postgres_server)
        self.redis_server = self.postgres_server = None


def up(data: Path, *, as_json: bool) -> int:
    """Run the bus in `data` until a signal arrives, and return the exit code.

    Raises:
        CliError: a server or process did not start; nothing is left running then.
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
        orphans.delete_record(data)
        lock.release()
    return ExitCode.OK


def _start_and_supervise(running: RunningBus, signals: ShutdownSignals, *, as_json: bool) -> None:
    orphans.terminate_all(running.data)
    _launch_servers(running)
    urls, redis_url = _wait_for_servers(running, signals)
    agents: list[runtime.NewAgent] = []
    if not database_prepared.is_ready(running.data, urls.application):
        # Imported here, since the imports take longer than the whole start of a prepared bus.
        from cli import bootstrap

        agents = bootstrap.prepare_database(running.data, urls, signals.raise_if_requested)
    if running.redis_server is None and not _is_redis_responding(redis_url):
        _print_status("Redis (REDIS_URL) does not respond. The bus works without it, a little slower.")
    signals.raise_if_requested()
    runtime_info = _start_processes(running, signals, urls, redis_url)
    running.runtime_info = runtime_info
    running.write_records()
    if as_json:
        new_agents = [{"project": agent.project, "name": agent.name, "token": agent.token} for agent in agents]
        _print_result(json.dumps(runtime_info.addresses() | {"agents": new_agents}))
    else:
        _print_result(banner.render(runtime_info, agents, _login_url(runtime_info)))
    _supervise(running, signals)


def _login_url(runtime_info: runtime.RuntimeInfo) -> str | None:
    """Return a link that signs in the owner whom the first start created; None if that owner no longer exists."""
    if not runtime_info.web:
        return None
    # Imported here, since the bus is ready now and these imports delay nothing.
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
    """Start the servers that no variable names and that do not run yet, without waiting for them."""
    if not _get_env("REDIS_URL") and running.redis_server is None:
        running.redis_server = _launch_redis(running, running.ports.assign("redis", exclude=exclude))
        running.write_records()
    if not _get_env("DATABASE_URL") and running.postgres_server is None:
        running.postgres_server = _launch_postgres(running, running.ports.assign("postgres", exclude=exclude))


def _wait_for_servers(running: RunningBus, signals: ShutdownSignals) -> tuple[runtime.DatabaseUrls, str]:
    """Return the URLs of the database and of Redis when the launched servers accept connections."""
    taken_ports: set[int] = set()
    for _ in range(_MAX_PORT_ATTEMPTS):
        try:
            if running.postgres_server is not None:
                postgres.wait_until_ready(running.postgres_server, signals.raise_if_requested)
            if running.redis_server is not None:
                redis.wait_until_ready(running.redis_server, signals.raise_if_requested)
        except child.PortTakenError:
            if running.postgres_server is not None and running.postgres_server.process.poll() is not None:
                taken_ports.add(running.postgres_server.port)
                running.postgres_server = None
            if running.redis_server is not None and running.redis_server.process.poll() is not None:
                taken_ports.add(running.redis_server.port)
                running.redis_server = None
            _launch_servers(running, frozenset(taken_ports))
            continue
        redis_url = running.redis_server.url if running.redis_server else _get_env("REDIS_URL")
        if running.postgres_server is not None:
            server = running.postgres_server
            return runtime.DatabaseUrls(server.application_url, server.url), redis_url
        application = normalise_database_url(_get_env("DATABASE_URL"))
        return runtime.DatabaseUrls(application, runtime.read_migration_database_url() or application), redis_url
    raise CliError("Other programs keep taking the ports chosen for PostgreSQL or Redis. Try again.")


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
    running: RunningBus, signals: ShutdownSignals, urls: runtime.DatabaseUrls, redis_url: str
) -> runtime.RuntimeInfo:
    """Start the processes of the Procfile and wait until they are ready; retry with other ports after a conflict."""
    cwd, process_types = procfile.read()
    taken_ports: set[int] = set()
    for _ in range(_MAX_PORT_ATTEMPTS):
        ports = {
            process_type.name: running.ports.assign(process_type.name, exclude=frozenset(taken_ports))
            for process_type in process_types
            if process_type.name in supervisor.HTTP_PROCESS_NAMES
        }
        runtime_info = _build_runtime_info(running.data, ports, urls, redis_url)
        env = {
            "DATABASE_URL": urls.application,
            "REDIS_URL": redis_url,
            "PUBLIC_URL": runtime_info.public_url,
            "MCP_URL": runtime_info.mcp_url,
            "HOST": "127.0.0.1",
            "LLM_BUS_DATA": str(running.data),
        }
        try:
            # Web and gateway first, so that they are ready sooner; the time-driven processes can wait.
            for group in (
                [process_type for process_type in process_types if process_type.name in ports],
                [process_type for process_type in process_types if process_type.name not in ports],
            ):
                started = [
                    supervisor.start(
                        process_type,
                        cwd=cwd,
                        log_dir=running.data / "logs",
                        env=env,
                        port=ports.get(process_type.name),
                    )
                    for process_type in group
                ]
                running.processes += started
                running.write_records()
                for process in started:
                    supervisor.wait_until_ready(process, signals.raise_if_requested)
        except supervisor.PortConflictError as conflict:
            # The environment of every process contains the addresses, so all of them restart.
            taken_ports.add(conflict.port)
            supervisor.stop_all(running.processes)
            running.processes.clear()
            continue
        return runtime_info
    raise CliError("Other programs keep taking the ports chosen for the bus. Try again.")


def _build_runtime_info(
    data: Path, ports: dict[str, int], urls: runtime.DatabaseUrls, redis_url: str
) -> runtime.RuntimeInfo:
    """Return the addresses of the bus: those of the environment, or else of the chosen ports."""
    public_url = _get_env("PUBLIC_URL").rstrip("/")
    mcp_url = _get_env("MCP_URL").rstrip("/")
    local_gateway = f"http://127.0.0.1:{ports.get('gateway', DEFAULT_PORTS['gateway'])}/mcp"
    return runtime.RuntimeInfo(
        database_url=urls.application,
        redis_url=redis_url,
        public_url=public_url or f"http://127.0.0.1:{ports.get('web', DEFAULT_PORTS['web'])}",
        mcp_url=mcp_url or (f"{public_url}/mcp" if public_url else local_gateway),
        web="web" in ports,
        data=str(data),
        ports=ports,
        migration_database_url=urls.owner,
    )


def _supervise(running: RunningBus, signals: ShutdownSignals) -> None:
    """Restart processes that end and bound the logs, until a signal arrives."""
    next_check = time.monotonic() + _LOG_CHECK_INTERVAL_SECONDS
    while True:
        signals.raise_if_requested()
        was_server_restarted = _restart_exited_servers(running)
        restarted = [process for process in running.processes if supervisor.restart_if_exited(process, _print_status)]
        if was_server_restarted or restarted or not running.records_are_current:
            running.write_records()
        if time.monotonic() > next_check:
            for log in (running.data / "logs").glob("*.log"):
                truncate_oversized_log(log)
            next_check = time.monotonic() + _LOG_CHECK_INTERVAL_SECONDS
        signals.wait(1.0)


def _restart_exited_servers(running: RunningBus) -> bool:
    """Restart the embedded servers that ended, each on its port; return whether one was restarted.

    A server that ends again, as PostgreSQL does on a full disk, is tried again with growing delays. This does not wait
    until it is ready: the other processes are supervised meanwhile, and they reconnect by themselves.
    """
    was_restarted = False
    postgres_server, redis_server = running.postgres_server, running.redis_server
    if postgres_server is not None:
        running.postgres_restarts = running.postgres_restarts or _new_server_schedule()
        replacement = _restart_server_if_exited(
            "PostgreSQL",
            postgres_server,
            running.postgres_restarts,
            lambda: _launch_postgres(running, postgres_server.port),
        )
        running.postgres_server = replacement or postgres_server
        was_restarted |= replacement is not None
    if redis_server is not None:
        running.redis_restarts = running.redis_restarts or _new_server_schedule()
        new_redis = _restart_server_if_exited(
            "Redis", redis_server, running.redis_restarts, lambda: _launch_redis(running, redis_server.port)
        )
        running.redis_server = new_redis or redis_server
        was_restarted |= new_redis is not None
    return was_restarted


def _new_server_schedule() -> RestartSchedule:
    return RestartSchedule(time.monotonic(), first_delay_seconds=1.0)


def _restart_server_if_exited(
    name: str, server: _Server, restarts: RestartSchedule, launch: Callable[[], _Server]
) -> _Server | None:
    """Return a new server if the present one has ended and its restart is due; None otherwise."""
    code, now = server.process.poll(), time.monotonic()
    if code is None:
        return None
    delay = restarts.plan_restart(now)
    if delay is not None:
        delay_text = supervisor.format_delay(delay)
        _print_status(f"{name} ended with code {code}; restarting it{delay_text}. Log: {server.log_path}")
    if not restarts.begin_attempt(now):
        return None
    try:
        return launch()
    except (OSError, child.StartFailedError, CliError) as error:
        _print_status(f"{name} cannot be started: {error}")
        return None


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
    """Print to standard error; standard output carries only the JSON line or the banner."""
    with contextlib.suppress(OSError):
        print(message, file=sys.stderr, flush=True)


def _print_result(text: str) -> None:
    # The reader of the output may be gone; the bus continues.
    with contextlib.suppress(OSError):
        print(text, flush=True)
