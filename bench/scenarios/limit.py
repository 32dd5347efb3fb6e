"""`limit`: what PostgreSQL can do on this machine without any HTTP, and so what everything else is compared with."""

from dataclasses import dataclass

from bench import database_baseline
from bench.checks import verify_claims, verify_ledgers, verify_posts
from bench.fixtures import Team, make_teams
from bench.scenario import Harness, Result, Row
from bench.stats import summarize_latencies

TEAM_COUNT, SEQUENCE_COUNT = 5, 20


def run(harness: Harness) -> Result:
    """Search for the best number of connections and client processes, for each way and verb."""
    result = Result()
    teams = make_teams(harness.environment.database, TEAM_COUNT, 8)
    for way in (database_baseline.ENGINE, database_baseline.RAW_SQL):
        found = [
            _measure(harness, way, database_baseline.CLAIM, teams, *tried)
            for tried in harness.effort.limit_configurations
        ]
        claims = max(found, key=lambda measured: measured.best_rate)
        # Posts are measured where claims were best; a search of their own found nothing else.
        sent = _measure(harness, way, database_baseline.POST, teams, claims.connections, claims.processes)
        for best in (claims, sent):
            result.rows.append(_make_row(best))
            result.figures[f"{best.operation}_{way}"] = round(best.best_rate, 1)
            result.figures[f"{best.operation}_{way}_cost"] = round(sum(best.cpu.values()), 1)
        result.figures[f"from_{way}"] = {"connections": claims.connections, "processes": claims.processes}
        result.figures[f"tried_{way}"] = {
            f"{one.connections}x{one.processes}": round(one.best_rate, 1) for one in found
        }
    best_way = max(
        (database_baseline.ENGINE, database_baseline.RAW_SQL), key=lambda way: float(result.figures[f"claim_{way}"])
    )
    result.figures["best_way"] = best_way
    alone = _measure(harness, database_baseline.RAW_SQL, database_baseline.CLAIM, teams, 1, 1)
    result.rows.append(_make_row(alone))
    result.figures["commit_latency_ms"] = summarize_latencies(alone.latencies).p50
    one_project = _measure(harness, database_baseline.RAW_SQL, database_baseline.CLAIM, teams[:1], 16, 1)
    result.rows.append(_make_row(one_project, "one project, "))
    result.figures["claim_one_project"] = round(one_project.best_rate, 1)
    for verb in (database_baseline.CLAIM, database_baseline.POST):
        # The most that PostgreSQL did, whoever asked: the higher this is, the harder every ratio.
        figures = [result.figures[f"{verb}_{way}"] for way in (database_baseline.ENGINE, database_baseline.RAW_SQL)]
        result.figures[verb] = max(figures)
        costs = [result.figures[f"{verb}_{way}_cost"] for way in (database_baseline.ENGINE, database_baseline.RAW_SQL)]
        result.figures[f"{verb}_cost"] = min(costs)
    events = verify_ledgers(harness.environment.database, [team.project_id for team in teams])
    result.checked.append(f"{events} events contiguous")
    result.lines.append(
        f"commit latency of one connection: {result.figures['commit_latency_ms']:.2f} ms;"
        f" one project alone, which is serial by commit: {result.figures['claim_one_project']:.0f} claims a second"
    )
    return result


@dataclass(frozen=True)
class LimitSample:
    """What PostgreSQL did at one moment: claims a second, and microseconds of CPU for each."""

    rate: float
    cost: float

    def mean(self, other: "LimitSample") -> "LimitSample":
        """The mean of two moments."""
        return LimitSample((self.rate + other.rate) / 2, (self.cost + other.cost) / 2)


def sample_claim_limit(harness: Harness) -> LimitSample | None:
    """The claim limit again, in the way that was best, right before or after something that is compared with it.

    The machine's speed changes from minute to minute, so a ratio is taken of neighbours. None where `limit` was not
    run.
    """
    if "limit" not in harness.figures:
        return None
    figures = harness.figures["limit"]
    way = figures["best_way"]
    best = figures[f"from_{way}"]
    teams = make_teams(harness.environment.database, TEAM_COUNT, 8)
    measured = _measure(harness, way, database_baseline.CLAIM, teams, best["connections"], best["processes"])
    return LimitSample(measured.best_rate, sum(measured.cpu.values()))


def _measure(
    harness: Harness, mode: str, operation: str, teams: list[Team], connections: int, processes: int
) -> database_baseline.Measurement:
    """Measure and check; each measurement has sequences of its own, so that its numbers begin at 1."""
    mark = f"{mode}-{operation}-{len(teams)}-{connections}-{processes}"
    work = []
    for number in range(connections):
        team = teams[number % len(teams)]
        agent = team.agents[number // len(teams) % len(team.agents)]
        to = team.agents[(number // len(teams) + 1) % len(team.agents)]
        work.append(database_baseline.ConnectionTask(agent, f"{mark}-{number % SEQUENCE_COUNT}", to.label))
    database = harness.environment.database
    with database.connection() as conn:
        # Posts of earlier measurements are checked already, and are not answers of this one.
        before = set(
            conn.fetch_all(
                "SELECT project_id, id FROM post WHERE project_id = ANY (%s)", ([t.project_id for t in teams],)
            )
        )
    measured = database_baseline.measure(
        harness.environment.database_url,
        mode,
        operation,
        work,
        processes=processes,
        windows=harness.effort.windows,
        seconds=harness.effort.seconds / 2,
        postmaster=harness.environment.postgres.process.pid,
    )
    verify_claims(database, measured.claimed_numbers)
    if operation == database_baseline.POST:
        verify_posts(database, measured.recipients_by_post, set(), existing_posts=before)
    return measured


def _make_row(measurement: database_baseline.Measurement, prefix: str = "") -> Row:
    variant = f"{prefix}{measurement.operation} {measurement.mode}, {measurement.processes} proc"
    rates = [round(rate, 1) for rate in measurement.rates]
    latency = summarize_latencies(measurement.latencies)
    return Row(
        "limit", variant, measurement.connections, max(rates), rates, latency, measurement.cpu, measurement.others
    )
