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
from cli.exit_codes import CliError, Exit
from cli.files import bound_log, fresh_log
from cli.ports import DEFAULTS, Ports
from cli.signals import Signals, Stop

_TRIES = 4
_LOG_CHECK_SECONDS = 60.0


@dataclass
class Running:
    """Everything that was started, in the order of its start."""

    data: Path
    ports: Ports
    processes: list[supervisor.Process] = field(default_factory=list)
    database: postgres.Postgres | None = None
    queue: redis.Redis | None = None

    def note_children(self) -> None:
        """Write our children down, for the start after a kill -9. PostgreSQL has its own pid file."""
        children = {process.type.name: process.running.pid for process in self.processes}
        if self.queue is not None:
            children["redis"] = self.queue.process.pid
        orphans.note(self.data, children)

    def stop(self) -> None:
        """End the processes, then Redis, then PostgreSQL: each may need the next to finish its work."""
        supervisor.stop_all(self.processes)
        self.processes.clear()
        if self.queue is not None:
            redis.stop(self.queue)
        if self.database is not None:
            postgres.stop(self.database)
        self.queue = self.database = None


def up(data: Path, *, as_json: bool) -> int:
    """Run the bus in `data` until a signal; returns the exit code.

    Raises:
        CliError: something did not start; nothing is left running then.
    """
    data_dir.make(data)
    lock = data_dir.Lock(data)
    if not lock.take():
        return _already_running(data, as_json=as_json)
    signals = Signals()
    running = Running(data, Ports(data / "ports.json"))
    try:
        _start_and_watch(running, signals, as_json=as_json)
    except Stop:
        _say("Stopping ...")
    except child.StartFailedError as error:
        raise CliError(str(error)) from error
    finally:
        runtime.withdraw(data)
        running.stop()
        orphans.note(data, {})
        lock.release()
    return Exit.OK


def _start_and_watch(running: Running, signals: Signals, *, as_json: bool) -> None:
    orphans.end_all(running.data)
    _launch_servers(running)
    database_url, redis_url = _await_servers(running, signals)
    agents: list[runtime.NewAgent] = []
    if not readiness.is_ready(running.data, database_url):
        # Here, since its imports take longer than everything that a start without it does.
        from cli import bootstrap

        agents = bootstrap.prepare(running.data, database_url, signals.check)
    if running.queue is None and not _answers(redis_url):
        _say("Redis (REDIS_URL) does not answer. The bus works without it, a little slower.")
    signals.check()
    now = _start_processes(running, signals, database_url, redis_url)
    runtime.publish(now)
    if as_json:
        _print(
            json.dumps(
                now.addresses()
                | {"agents": [{"project": new.project, "name": new.name, "token": new.token} for new in agents]}
            )
        )
    else:
        _print(banner.render(now, agents, _login_url(now)))
    _watch(running, signals)


def _login_url(now: runtime.Runtime) -> str | None:
    """A link that signs in the owner whom the first start made; None where somebody else runs the show by now."""
    if not now.web:
        return None
    # Here, since everything answers by now and nobody waits for these imports.
    from bus.auth import login_links
    from bus.db import Database
    from bus.errors import BusError
    from bus.tenancy import owners

    with contextlib.closing(Database(now.database_url, size=1, name="llm-bus up")) as database:
        try:
            with database.write() as conn:
                token = login_links.create(conn, owners.get(conn, runtime.OWNER_EMAIL))
        except BusError:
            return None
    return login_links.address(now.public_url, token)


def _launch_servers(running: Running, refuse: frozenset[int] = frozenset()) -> None:
    """Start the servers that no variable names and that do not run yet; waits for none of them."""
    if not _from_env("REDIS_URL") and running.queue is None:
        running.queue = _launch_redis(running, running.ports.choose("redis", refuse=refuse))
        running.note_children()
    if not _from_env("DATABASE_URL") and running.database is None:
        running.database = _launch_postgres(running, running.ports.choose("postgres", refuse=refuse))


def _await_servers(running: Running, signals: Signals) -> tuple[str, str]:
    """Return the URLs of the database and of Redis, once what we launched takes connections."""
    refused: set[int] = set()
    for _ in range(_TRIES):
        try:
            if running.database is not None:
                postgres.wait(running.database, signals.check)
            if running.queue is not None:
                redis.wait(running.queue, signals.check)
        except child.PortTakenError:
            if running.database is not None and running.database.process.poll() is not None:
                refused.add(running.database.port)
                running.database = None
            if running.queue is not None and running.queue.process.poll() is not None:
                refused.add(running.queue.port)
                running.queue = None
            _launch_servers(running, frozenset(refused))
            continue
        return (
            normalise_database_url(running.database.url if running.database else _from_env("DATABASE_URL")),
            running.queue.url if running.queue else _from_env("REDIS_URL"),
        )
    raise CliError("Other programs keep taking the ports that PostgreSQL or Redis were to use. Try again.")


def _launch_postgres(running: Running, port: int) -> postgres.Postgres:
    return postgres.launch(
        running.data / "postgres",
        port=port,
        log=fresh_log(running.data / "logs", "postgres"),
        account=data_dir.server_account(running.data),
    )


def _launch_redis(running: Running, port: int) -> redis.Redis:
    return redis.launch(running.data / "redis", port=port, log=fresh_log(running.data / "logs", "redis"))


def _start_processes(running: Running, signals: Signals, database_url: str, redis_url: str) -> runtime.Runtime:
    """Start what the Procfile lists and wait until it answers; other ports are tried where one was lost."""
    cwd, kinds = procfile.read()
    refused: set[int] = set()
    for _ in range(_TRIES):
        ports = {
            kind.name: running.ports.choose(kind.name, refuse=frozenset(refused))
            for kind in kinds
            if kind.name in supervisor.SERVING
        }
        now = _addresses(running.data, ports, database_url, redis_url)
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
                    supervisor.start(kind, cwd=cwd, logs=running.data / "logs", env=env, port=ports.get(kind.name))
                    for kind in some
                ]
                running.processes += started
                running.note_children()
                for process in started:
                    supervisor.wait(process, signals.check)
        except supervisor.PortLostError as lost:
            # The addresses are in everybody's environment, so everybody starts again.
            refused.add(lost.port)
            supervisor.stop_all(running.processes)
            running.processes.clear()
            continue
        return now
    raise CliError("Other programs keep taking the ports that the bus was to use. Try again.")


def _addresses(data: Path, ports: dict[str, int], database_url: str, redis_url: str) -> runtime.Runtime:
    """The addresses that cards and links will name: the user's, else those of the chosen ports."""
    chosen_public = _from_env("PUBLIC_URL").rstrip("/")
    chosen_mcp = _from_env("MCP_URL").rstrip("/")
    local_gateway = f"http://127.0.0.1:{ports.get('gateway', DEFAULTS['gateway'])}/mcp"
    return runtime.Runtime(
        database_url=database_url,
        redis_url=redis_url,
        public_url=chosen_public or f"http://127.0.0.1:{ports.get('web', DEFAULTS['web'])}",
        mcp_url=chosen_mcp or (f"{chosen_public}/mcp" if chosen_public else local_gateway),
        web="web" in ports,
        data=str(data),
        ports=ports,
    )


def _watch(running: Running, signals: Signals) -> None:
    """Bring back what ends by itself and keep the logs bounded, until somebody asks us to end."""
    next_check = time.monotonic() + _LOG_CHECK_SECONDS
    while True:
        signals.check()
        _revive_servers(running, signals)
        restarted = [process for process in running.processes if supervisor.revive(process, _say)]
        if restarted:
            running.note_children()
        if time.monotonic() > next_check:
            for log in (running.data / "logs").glob("*.log"):
                bound_log(log)
            next_check = time.monotonic() + _LOG_CHECK_SECONDS
        signals.wait(1.0)


def _revive_servers(running: Running, signals: Signals) -> None:
    """Start a server of ours that ended again, on its port.

    Raises:
        StartFailedError: it does not come back; without it there is no bus.
    """
    server, queue = running.database, running.queue
    if server is not None and (code := server.process.poll()) is not None:
        _say(f"PostgreSQL ended with code {code}; starting it again. Log: {server.log}")
        signals.wait(1.0)
        running.database = _launch_postgres(running, server.port)
        postgres.wait(running.database, signals.check)
    if queue is not None and (code := queue.process.poll()) is not None:
        _say(f"Redis ended with code {code}; starting it again. Log: {queue.log}")
        signals.wait(1.0)
        running.queue = _launch_redis(running, queue.port)
        running.note_children()
        redis.wait(running.queue, signals.check)


def _already_running(data: Path, *, as_json: bool) -> int:
    other = runtime.find(data)
    if other is None:
        _say(f"llm-bus: another `llm-bus up` is starting or stopping in {data}.")
        return Exit.RUNNING
    web = f", web {other.public_url}" if other.web else ""
    _say(f"llm-bus: already running in {data}: gateway {other.mcp_url}{web}.")
    if as_json:
        _print(json.dumps(other.addresses() | {"agents": []}))
    return Exit.RUNNING


def _answers(redis_url: str) -> bool:
    from redis import Redis, RedisError

    try:
        with Redis.from_url(redis_url, socket_connect_timeout=2, socket_timeout=2) as client:
            return bool(client.ping())
    except (RedisError, ValueError):
        return False


def _from_env(name: str) -> str:
    return os.environ.get(name, "").strip()


def _say(message: str) -> None:
    """To stderr: standard output belongs to the one JSON line, or the screen."""
    with contextlib.suppress(OSError):
        print(message, file=sys.stderr, flush=True)


def _print(text: str) -> None:
    # Whoever read our output may be gone; the bus goes on.
    with contextlib.suppress(OSError):
        print(text, flush=True)
