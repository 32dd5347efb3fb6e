"""A run: a bus from `llm-bus up` with several gateway processes, clients, faults, and the judgement of the history."""

import time
from collections import Counter
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from itertools import pairwise

from bench.requests import Address
from bus.db import Database
from bus.operations import integrity_checks
from tests.cli import bus_process
from tests.factories import make_agent, make_owner, make_project
from tests.proof.checker import Violation, check
from tests.proof.clients import Client, Identity
from tests.proof.faults import FaultInjector
from tests.proof.final_state import read_final_state
from tests.proof.history import Outcome, Recorder
from tests.proof.network import FaultyProxy

_LANES = ("build", "review", "docs")


@dataclass(frozen=True, slots=True)
class Plan:
    """The size of a run.

    Attributes:
        restarts: with a number, each process is ended in order so many times instead of any other fault, and a call
            without an answer is a violation.
    """

    operations: int
    clients_per_project: int = 8
    gateway_kills: int = 20
    postgres_stops: int = 5
    redis_away_seconds: float = 300.0
    restarts: int = 0
    seed: int = 1
    max_seconds: float = 1800.0


@dataclass(slots=True)
class Report:
    """What a run did and found."""

    seconds: float = 0.0
    outcomes: Counter[str] = field(default_factory=Counter)
    tools: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    refused_connections: int = 0
    proxy_cuts: int = 0
    events: int = 0
    longest_pause_seconds: float = 0.0
    violations: list[Violation] = field(default_factory=list)


def run(plan: Plan) -> Report:
    """Run the plan against a new bus and judge its history."""
    with ExitStack() as stack:
        folder = stack.enter_context(bus_process.temporary_data_folder())
        folder.mkdir(mode=0o711)
        bus_process.reserve_ports(folder)
        bus = stack.enter_context(
            bus_process.running_bus(folder, WEB_CONCURRENCY="2", METERING="1", TRIAL_CREDITS="1000000000")
        )
        database_url = bus.startup_info["database_url"]
        gateway = _parse_address(bus.startup_info["gateway_url"])
        proxy = FaultyProxy(gateway, plan.seed)
        stack.callback(proxy.stop)
        with closing(Database(database_url, pool_size=1)) as database:
            teams, project_ids = _create_teams(database, plan.clients_per_project)
        recorder = Recorder()
        addresses = [gateway] if plan.restarts else [gateway, proxy.address]
        clients = _create_clients(teams, addresses, recorder, plan.seed)
        faults = FaultInjector(bus.process.pid, database_url, plan.seed, plan.redis_away_seconds)
        stack.callback(faults.release_frozen, now=True)
        started_at = time.monotonic()
        for client in clients:
            client.start()
        _inject_until_done(plan, clients, recorder, faults)
        for client in clients:
            client.stop()
        for client in clients:
            client.join()
        faults.release_frozen(now=True)
        report = Report(seconds=time.monotonic() - started_at, faults=faults.counts, proxy_cuts=proxy.cuts)
        for client in clients:
            if client.failure is not None:
                raise client.failure
            report.refused_connections += client.refused_connections
            client.read_to_the_end()
        # New connections: the run ended those of before.
        with closing(Database(database_url, pool_size=1)) as database:
            _judge(report, database, teams, project_ids, recorder, str(folder))
        if plan.restarts and (report.outcomes["unknown"] or report.refused_connections):
            report.violations.append(Violation("restarts", "calls failed while processes were restarted in order"))
        return report


def _create_teams(database: Database, size: int) -> tuple[dict[str, list[Identity]], dict[str, int]]:
    """Two projects of different owners with agents of the same labels, so that a mistaken scope shows."""
    teams: dict[str, list[Identity]] = {}
    project_ids: dict[str, int] = {}
    with database.transaction() as conn:
        for handle in ("ann", "bob"):
            project = make_project(conn, "site", make_owner(conn, f"proof-{handle}"))
            name = f"{handle}-site"
            project_ids[name] = project.id
            teams[name] = [
                Identity(name, agent.actor, agent.label, lane, agent.token)
                for number in range(size)
                for lane in [_LANES[number % len(_LANES)]]
                for agent in [make_agent(conn, project, f"agent-{number}", lane=lane)]
            ]
    return teams, project_ids


def _create_clients(
    teams: dict[str, list[Identity]], addresses: list[Address], recorder: Recorder, seed: int
) -> list[Client]:
    clients: list[Client] = []
    for team in teams.values():
        for identity in team:
            peers = [peer for peer in team if peer is not identity]
            clients.append(Client(identity, peers, addresses, recorder, seed + len(clients)))
    return clients


def _inject_until_done(plan: Plan, clients: list[Client], recorder: Recorder, faults: FaultInjector) -> None:
    """Spread the faults over the operations, and return when all are done."""
    if plan.restarts:
        planned = faults.plan_restarts(plan.restarts)
    else:
        planned = faults.plan_faults(plan.gateway_kills, plan.postgres_stops)
    deadline = time.monotonic() + plan.max_seconds
    done = 0
    while len(recorder) < plan.operations or done < len(planned):
        if time.monotonic() > deadline:
            raise AssertionError(f"after {plan.max_seconds:.0f} s only {len(recorder)} operations and {done} faults")
        if all(not client.is_alive() for client in clients):
            return
        if done < len(planned) and len(recorder) >= plan.operations * done // len(planned):
            done += faults.inject(planned[done])
        faults.release_frozen()
        time.sleep(0.05)


def _judge(
    report: Report,
    database: Database,
    teams: dict[str, list[Identity]],
    project_ids: dict[str, int],
    recorder: Recorder,
    data: str,
) -> None:
    operations = recorder.operations()
    report.outcomes = Counter(operation.outcome.value for operation in operations)
    report.tools = Counter(operation.tool for operation in operations if operation.outcome is Outcome.OK)
    answered_at = sorted(operation.completed_at for operation in operations if operation.outcome is Outcome.OK)
    report.longest_pause_seconds = max(later - earlier for earlier, later in pairwise(answered_at))
    for name, team in teams.items():
        lanes = {identity.actor: identity.lane for identity in team}
        state = read_final_state(database, name, project_ids[name], lanes)
        report.events += len(state.events)
        report.violations += check(operations, state)
    _bill(data)
    report.violations += [
        Violation("integrity", f"{discrepancy.check}, {discrepancy.subject}: {discrepancy.detail}")
        for discrepancy in integrity_checks.check_all(database)
    ]
    with database.transaction() as conn:
        (unbilled,) = conn.fetch_one(
            "SELECT coalesce(sum(c.last_seq - m.metered_seq), 0)::bigint FROM meter_mark m"
            " JOIN project_clock c USING (project_id)"
        )
    if unbilled:
        report.violations.append(Violation("billing", f"{unbilled} events are not billed"))


def _bill(data: str) -> None:
    """Bill what is left, whether or not the scheduler has recovered already."""
    result = bus_process.run_command("job", "run", "meter_credits", "--data", data)
    if result.returncode:
        raise AssertionError(f"the metering job failed: {result.stderr}")


def _parse_address(url: str) -> Address:
    host, _, port = url.removeprefix("http://").partition("/")[0].partition(":")
    return Address(host, int(port))
