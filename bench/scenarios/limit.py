"""`limit`: the rates of PostgreSQL on this machine without HTTP, the reference for the other scenarios."""

from dataclasses import dataclass

from bench import database_baseline
from bench.checks import verify_claims, verify_ledgers, verify_posts
from bench.fixtures import Team, make_teams
from bench.scenario import Harness, Result, Row
from bench.stats import summarize_latencies

TEAM_COUNT, SEQUENCE_COUNT = 5, 20
_MODES = (database_baseline.ENGINE, database_baseline.RAW_SQL)


def run(harness: Harness) -> Result:
    """Search for the best number of connections and client processes for each mode and operation."""
    result = Result()
    teams = make_teams(harness.environment.database, TEAM_COUNT, 8)
    for mode in _MODES:
        measurements = [
            _measure(harness, mode, database_baseline.CLAIM, teams, *configuration)
            for configuration in harness.effort.limit_configurations
        ]
        claims = max(measurements, key=lambda measurement: measurement.best_rate)
        # Posts use the best configuration of claims; a separate search found the same one.
        posts = _measure(harness, mode, database_baseline.POST, teams, claims.connections, claims.processes)
        for best in (claims, posts):
            result.rows.append(_make_row(best))
            result.figures[f"{best.operation}_{mode}"] = round(best.best_rate, 1)
            result.figures[f"{best.operation}_{mode}_cost"] = round(sum(best.cpu.values()), 1)
        result.figures[f"from_{mode}"] = {"connections": claims.connections, "processes": claims.processes}
        result.figures[f"tried_{mode}"] = {
            f"{measurement.connections}x{measurement.processes}": round(measurement.best_rate, 1)
            for measurement in measurements
        }
    result.figures["best_mode"] = max(_MODES, key=lambda mode: float(result.figures[f"claim_{mode}"]))
    single = _measure(harness, database_baseline.RAW_SQL, database_baseline.CLAIM, teams, 1, 1)
    result.rows.append(_make_row(single))
    result.figures["commit_latency_ms"] = summarize_latencies(single.latencies).p50
    one_project = _measure(harness, database_baseline.RAW_SQL, database_baseline.CLAIM, teams[:1], 16, 1)
    result.rows.append(_make_row(one_project, "one project, "))
    result.figures["claim_one_project"] = round(one_project.best_rate, 1)
    for operation in (database_baseline.CLAIM, database_baseline.POST):
        # The best of both modes, which makes every ratio harder to reach.
        result.figures[operation] = max(result.figures[f"{operation}_{mode}"] for mode in _MODES)
        result.figures[f"{operation}_cost"] = min(result.figures[f"{operation}_{mode}_cost"] for mode in _MODES)
    events = verify_ledgers(harness.environment.database, [team.project_id for team in teams])
    result.checked.append(f"{events} events contiguous")
    result.lines.append(
        f"commit latency of one connection: {result.figures['commit_latency_ms']:.2f} ms;"
        f" one project alone, whose commits are serial: {result.figures['claim_one_project']:.0f} claims per second"
    )
    return result


@dataclass(frozen=True)
class LimitSample:
    """The claim limit at one moment: claims per second, and microseconds of CPU per claim."""

    rate: float
    cost: float

    def mean(self, other: "LimitSample") -> "LimitSample":
        """Return the mean of two samples."""
        return LimitSample((self.rate + other.rate) / 2, (self.cost + other.cost) / 2)


def sample_claim_limit(harness: Harness) -> LimitSample | None:
    """Measure the claim limit again in its best configuration. Returns None if `limit` was not run.

    The machine's speed changes from minute to minute, so each ratio uses samples right before and after a measurement.
    """
    if "limit" not in harness.figures:
        return None
    figures = harness.figures["limit"]
    mode = figures["best_mode"]
    best = figures[f"from_{mode}"]
    teams = make_teams(harness.environment.database, TEAM_COUNT, 8)
    measurement = _measure(harness, mode, database_baseline.CLAIM, teams, best["connections"], best["processes"])
    return LimitSample(measurement.best_rate, sum(measurement.cpu.values()))


def _measure(
    harness: Harness, mode: str, operation: str, teams: list[Team], connections: int, processes: int
) -> database_baseline.Measurement:
    """Measure and check one configuration, with new sequences, so that the numbers begin at 1."""
    prefix = f"{mode}-{operation}-{len(teams)}-{connections}-{processes}"
    tasks = []
    for number in range(connections):
        team = teams[number % len(teams)]
        agent = team.agents[number // len(teams) % len(team.agents)]
        recipient = team.agents[(number // len(teams) + 1) % len(team.agents)]
        sequence = f"{prefix}-{number % SEQUENCE_COUNT}"
        tasks.append(database_baseline.ConnectionTask(agent, sequence, recipient.label))
    database = harness.environment.database
    with database.connection() as conn:
        # Posts of earlier measurements were checked there.
        existing_posts = set(
            conn.fetch_all(
                "SELECT project_id, id FROM post WHERE project_id = ANY (%s)", ([team.project_id for team in teams],)
            )
        )
    measurement = database_baseline.measure(
        harness.environment.database_url,
        mode,
        operation,
        tasks,
        processes=processes,
        windows=harness.effort.windows,
        seconds=harness.effort.seconds / 2,
        postmaster=harness.environment.postgres.process.pid,
    )
    verify_claims(database, measurement.claimed_numbers)
    if operation == database_baseline.POST:
        verify_posts(database, measurement.recipients_by_post, set(), existing_posts=existing_posts)
    return measurement


def _make_row(measurement: database_baseline.Measurement, prefix: str = "") -> Row:
    variant = f"{prefix}{measurement.operation} {measurement.mode}, {measurement.processes} proc"
    rates = [round(rate, 1) for rate in measurement.rates]
    latency = summarize_latencies(measurement.latencies)
    return Row(
        "limit", variant, measurement.connections, max(rates), rates, latency, measurement.cpu, measurement.others
    )
