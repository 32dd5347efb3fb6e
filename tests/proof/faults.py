"""The faults of a run: each acts on the processes of a running `llm-bus up`, or on its database."""

import random
import signal
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from typing import LiteralString

import psutil
import psycopg

from tests.child_processes import find_children, find_processes

_HOLD_SQL = "SELECT pg_sleep(3)"
_EXHAUSTION_SECONDS = 3.0
_GATEWAYS = 2
_START_SECONDS = 5.0


class FaultInjector:
    """Injects faults into a bus.

    Args:
        supervisor_pid: the process id of `llm-bus up`.
        database_url: as the role of the processes, which may end its own connections.
        redis_away_seconds: how long Redis does not respond.
    """

    def __init__(self, supervisor_pid: int, database_url: str, seed: int, redis_away_seconds: float) -> None:
        self._supervisor = psutil.Process(supervisor_pid)
        self._database_url = database_url
        self._random = random.Random(seed)
        self._redis_away_seconds = redis_away_seconds
        self._frozen: tuple[psutil.Process, float] | None = None
        self.counts: Counter[str] = Counter()

    def plan_restarts(self, count: int) -> list[str]:
        """A random order of orderly ends, so many of each process, which are to cost no call."""
        planned = [name for name in _RESTARTS for _ in range(count)]
        self._random.shuffle(planned)
        return planned

    def plan_faults(self, gateway_kills: int, postgres_stops: int) -> list[str]:
        """A random order of faults, with the given numbers of the two worst and some of every other kind."""
        others = _FAULTS.keys() - {"kill_gateway", "stop_postgres", "freeze_redis"}
        planned = ["kill_gateway"] * gateway_kills + ["stop_postgres"] * postgres_stops
        planned += [name for name in sorted(others) for _ in range(max(1, gateway_kills // 7))]
        self._random.shuffle(planned)
        return ["freeze_redis", *planned]

    def inject(self, name: str) -> bool:
        """Inject one fault and return whether it met its target, which may be away because of another fault.

        What it held is released again when this returns, except a frozen Redis.
        """
        has_acted = _FAULTS[name](self)
        self.counts[name] += has_acted
        return has_acted

    def release_frozen(self, *, now: bool = False) -> None:
        """Let a frozen Redis continue, once it has been away for its time."""
        if self._frozen is not None and (now or time.monotonic() > self._frozen[1]):
            with suppress(psutil.NoSuchProcess):
                self._frozen[0].resume()
            self._frozen = None

    def _find(self, *words: str) -> list[psutil.Process]:
        """The processes of the bus whose command line has all these words."""
        return find_children(
            self._supervisor, lambda process: all(word in process.cmdline() for word in words), recursive=True
        )

    def _find_servers(self, name: str) -> list[psutil.Process]:
        return find_children(self._supervisor, lambda process: name in process.name())

    def _find_gateways(self) -> tuple[list[psutil.Process], list[psutil.Process]]:
        """The parents of the gateway processes, and the processes themselves."""
        gateways = self._find("mcp_gateway")
        pids = {process.pid for process in gateways}
        children = find_processes(gateways, lambda process: process.ppid() in pids)
        return [process for process in gateways if process not in children], children

    def _signal_one(self, candidates: list[psutil.Process], number: signal.Signals) -> bool:
        if not candidates:
            return False
        try:
            self._random.choice(candidates).send_signal(number)
        except psutil.NoSuchProcess:
            return False
        return True

    def kill_gateway(self) -> bool:
        """Kill one of the gateway processes, as the out-of-memory killer does."""
        return self._signal_one(self._find_gateways()[1], signal.SIGKILL)

    def terminate_gateway(self) -> bool:
        """Terminate one of the gateway processes, which finishes the calls in progress, while another one serves."""
        return self._serving_gateways() >= _GATEWAYS and self._signal_one(self._find_gateways()[1], signal.SIGTERM)

    def restart_gateways(self) -> bool:
        """Replace the gateway processes in turn."""
        return self._serving_gateways() >= _GATEWAYS and self._signal_one(self._find_gateways()[0], signal.SIGHUP)

    def _serving_gateways(self) -> int:
        """The number of gateway processes that have had the time to start."""
        serving = 0
        for process in self._find_gateways()[1]:
            with suppress(psutil.NoSuchProcess):
                serving += time.time() - process.create_time() > _START_SECONDS
        return serving

    def kill_worker(self) -> bool:
        """Kill the worker."""
        return self._signal_one(self._find("workers"), signal.SIGKILL)

    def terminate_web(self) -> bool:
        """Terminate the web process."""
        return self._signal_one(self._find("webapp"), signal.SIGTERM)

    def kill_beat(self) -> bool:
        """Kill the scheduler."""
        return self._signal_one(self._find("workers", "beat"), signal.SIGKILL)

    def terminate_worker(self) -> bool:
        """Terminate the worker or the scheduler."""
        return self._signal_one(self._find("workers"), signal.SIGTERM)

    def stop_postgres(self) -> bool:
        """Stop PostgreSQL as `pg_ctl stop -m immediate` does: it recovers from its log at the next start."""
        return self._signal_one(self._find_servers("postgres"), signal.SIGQUIT)

    def kill_redis(self) -> bool:
        """Kill Redis; what was in it is lost."""
        return self._frozen is None and self._signal_one(self._find_servers("valkey"), signal.SIGKILL)

    def freeze_redis(self) -> bool:
        """Let Redis accept connections and never answer."""
        servers = self._find_servers("valkey")
        for server in servers:
            with suppress(psutil.NoSuchProcess):
                server.suspend()
                self._frozen = (server, time.monotonic() + self._redis_away_seconds)
        return self._frozen is not None

    def terminate_backends(self) -> bool:
        """End half of the database connections, in whatever they are doing."""
        return self._execute(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
            " WHERE datname = current_database() AND usename = current_user AND pid <> pg_backend_pid()"
            " AND random() < 0.5"
        )

    def hold_clocks(self) -> bool:
        """Hold the clocks of all projects, so that every write waits."""
        return self._execute("SELECT FROM project_clock FOR UPDATE", _HOLD_SQL)

    def exhaust_connections(self) -> bool:
        """Take all connections that PostgreSQL has left."""
        held: list[psycopg.Connection[tuple[object, ...]]] = []
        with suppress(psycopg.Error):
            while True:
                held.append(psycopg.connect(self._database_url, connect_timeout=2))
        time.sleep(_EXHAUSTION_SECONDS if held else 0)
        for connection in held:
            connection.close()
        return bool(held)

    def _execute(self, *statements: LiteralString) -> bool:
        """Execute the statements in one transaction; False if PostgreSQL is away."""
        try:
            with psycopg.connect(self._database_url, connect_timeout=2) as conn:
                for statement in statements:
                    conn.execute(statement)
        except psycopg.Error:
            return False
        return True


_FAULTS: dict[str, Callable[[FaultInjector], bool]] = {
    function.__name__: function
    for function in (
        FaultInjector.kill_gateway,
        FaultInjector.terminate_gateway,
        FaultInjector.restart_gateways,
        FaultInjector.kill_worker,
        FaultInjector.terminate_web,
        FaultInjector.kill_beat,
        FaultInjector.terminate_worker,
        FaultInjector.stop_postgres,
        FaultInjector.kill_redis,
        FaultInjector.freeze_redis,
        FaultInjector.terminate_backends,
        FaultInjector.hold_clocks,
        FaultInjector.exhaust_connections,
    )
}
# Orderly ends, which no client is to notice.
_RESTARTS = ("terminate_gateway", "terminate_web", "terminate_worker", "restart_gateways")
