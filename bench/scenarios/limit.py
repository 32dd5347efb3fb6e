"""`limit`: what PostgreSQL can do on this machine without any HTTP, and so what everything else is compared with."""

from dataclasses import dataclass

from bench import database_baseline
from bench.checks import check_claims, check_ledgers, check_posts
from bench.fixtures import Team, make_teams
from bench.scenario import Result, Row, Stage
from bench.stats import summarise

TEAMS, SEQUENCES = 5, 20


def run(stage: Stage) -> Result:
    """Search for the best number of connections and client processes, for each way and verb."""
    result = Result()
    teams = make_teams(stage.bed.database, TEAMS, 8)
    for way in (database_baseline.ENGINE, database_baseline.BARE):
        found = [_measure(stage, way, database_baseline.CLAIM, teams, *tried) for tried in stage.effort.limit_tries]
        claims = max(found, key=lambda measured: measured.best)
        # Posts are measured where claims were best; a search of their own found nothing else.
        sent = _measure(stage, way, database_baseline.POST, teams, claims.connections, claims.processes)
        for best in (claims, sent):
            result.rows.append(_row(best))
            result.figures[f"{best.verb}_{way}"] = round(best.best, 1)
            result.figures[f"{best.verb}_{way}_cost"] = round(sum(best.cpu.values()), 1)
        result.figures[f"from_{way}"] = {"connections": claims.connections, "processes": claims.processes}
        result.figures[f"tried_{way}"] = {f"{one.connections}x{one.processes}": round(one.best, 1) for one in found}
    best_way = max(
        (database_baseline.ENGINE, database_baseline.BARE), key=lambda way: float(result.figures[f"claim_{way}"])
    )
    result.figures["best_way"] = best_way
    alone = _measure(stage, database_baseline.BARE, database_baseline.CLAIM, teams, 1, 1)
    result.rows.append(_row(alone))
    result.figures["commit_latency_ms"] = summarise(alone.latencies).p50
    one_project = _measure(stage, database_baseline.BARE, database_baseline.CLAIM, teams[:1], 16, 1)
    result.rows.append(_row(one_project, "one project, "))
    result.figures["claim_one_project"] = round(one_project.best, 1)
    for verb in (database_baseline.CLAIM, database_baseline.POST):
        # The most that PostgreSQL did, whoever asked: the higher this is, the harder every ratio.
        figures = [result.figures[f"{verb}_{way}"] for way in (database_baseline.ENGINE, database_baseline.BARE)]
        result.figures[verb] = max(figures)
        costs = [result.figures[f"{verb}_{way}_cost"] for way in (database_baseline.ENGINE, database_baseline.BARE)]
        result.figures[f"{verb}_cost"] = min(costs)
    events = check_ledgers(stage.bed.database, [team.project_id for team in teams])
    result.checked.append(f"{events} events contiguous")
    result.lines.append(
        f"commit latency of one connection: {result.figures['commit_latency_ms']:.2f} ms;"
        f" one project alone, which is serial by commit: {result.figures['claim_one_project']:.0f} claims a second"
    )
    return result


@dataclass(frozen=True)
class Moment:
    """What PostgreSQL did at one moment: claims a second, and microseconds of CPU for each."""

    rate: float
    cost: float

    def mean(self, other: "Moment") -> "Moment":
        """The mean of two moments."""
        return Moment((self.rate + other.rate) / 2, (self.cost + other.cost) / 2)


def at_this_moment(stage: Stage) -> Moment | None:
    """The claim limit again, in the way that was best, right before or after something that is compared with it.

    The machine's speed changes from minute to minute, so a ratio is taken of neighbours. None where `limit` was not
    run.
    """
    if "limit" not in stage.figures:
        return None
    figures = stage.figures["limit"]
    way = figures["best_way"]
    best = figures[f"from_{way}"]
    teams = make_teams(stage.bed.database, TEAMS, 8)
    measured = _measure(stage, way, database_baseline.CLAIM, teams, best["connections"], best["processes"])
    return Moment(measured.best, sum(measured.cpu.values()))


def _measure(
    stage: Stage, way: str, verb: str, teams: list[Team], connections: int, processes: int
) -> database_baseline.Measurement:
    """Measure and check; each measurement has sequences of its own, so that its numbers begin at 1."""
    mark = f"{way}-{verb}-{len(teams)}-{connections}-{processes}"
    work = []
    for number in range(connections):
        team = teams[number % len(teams)]
        agent = team.agents[number // len(teams) % len(team.agents)]
        to = team.agents[(number // len(teams) + 1) % len(team.agents)]
        work.append(database_baseline.Work(agent, f"{mark}-{number % SEQUENCES}", to.label))
    database = stage.bed.database
    with database.call() as conn:
        # Posts of earlier measurements are checked already, and are not answers of this one.
        before = set(
            conn.all("SELECT project_id, id FROM post WHERE project_id = ANY (%s)", ([t.project_id for t in teams],))
        )
    measured = database_baseline.measure(
        stage.bed.url,
        way,
        verb,
        work,
        processes=processes,
        windows=stage.effort.windows,
        seconds=stage.effort.seconds / 2,
        postmaster=stage.bed.postgres.process.pid,
    )
    check_claims(database, measured.numbers)
    if verb == database_baseline.POST:
        check_posts(database, measured.posted, set(), earlier=before)
    return measured


def _row(measured: database_baseline.Measurement, prefix: str = "") -> Row:
    variant = f"{prefix}{measured.verb} {measured.way}, {measured.processes} proc"
    rates = [round(rate, 1) for rate in measured.rates]
    latency = summarise(measured.latencies)
    return Row("limit", variant, measured.connections, max(rates), rates, latency, measured.cpu, measured.others)
