"""`claim500`, `claim_hot`, `claim_spread`: numbers through both gateways, from one sequence and from many."""

from bench.checks import Numbers, check_claims, check_ledgers
from bench.environment import settle
from bench.fixtures import Team, dealt, make_teams
from bench.load import Outcome
from bench.requests import ERAS, MODERN
from bench.scenario import Result, Stage, row
from bench.scenarios import limit
from bench.stats import median
from bench.workloads import Claims, Reads

SPREAD_TEAMS, SPREAD_SEQUENCES = 5, 20
AT_ONCE = 500


def run_spread(stage: Stage) -> Result:
    """32 connections, 20 sequences in five projects, in both eras."""
    result = Result()
    before = limit.at_this_moment(stage)
    for era in ERAS:
        teams = make_teams(stage.bed.database, SPREAD_TEAMS, 8)
        script = Claims(dealt(teams, 32), [f"seq-{number}" for number in range(SPREAD_SEQUENCES)], era)
        outcome = _play(stage, result, "claim_spread", era, script, 32)
        _check(stage, result, outcome, teams)
        before = compare(stage, result, era, before)
    return result


def compare(stage: Stage, result: Result, variant: str, before: limit.Moment | None) -> limit.Moment | None:
    """Note what a variant is of the claim limit right before and after it; returns the one after."""
    after = limit.at_this_moment(stage)
    if before is not None and after is not None:
        around = before.mean(after)
        result.figures[f"limit_{variant}"] = {"rate": round(around.rate, 1), "cost": round(around.cost, 1)}
    return after


def run_hot(stage: Stage) -> Result:
    """One sequence of one project, asked by 32 and by 128 connections."""
    result = Result()
    for connections in (32, 128):
        teams = make_teams(stage.bed.database, 1, 32)
        script = Claims(dealt(teams, connections), ["adr"])
        outcome = _play(stage, result, "claim_hot", str(connections), script, connections)
        _check(stage, result, outcome, teams)
    if "limit" in stage.figures:
        # One project is serial by commit, so it is compared with itself.
        known = stage.figures["limit"]
        alone, rate = known["claim_one_project"], result.figures["rate_32"]
        result.lines.append(
            f"one project: {rate:.0f} of the {alone:.0f} claims a second of one project without HTTP"
            f" ({rate / alone:.2f}); its commits take turns, {known['commit_latency_ms']:.2f} ms for one call alone"
        )
    return result


def run_500(stage: Stage) -> Result:
    """500 connections that are open already claim from one sequence at the same moment, in several rounds."""
    result = Result()
    teams = make_teams(stage.bed.database, 1, 50)
    agents = dealt(teams, AT_ONCE)
    settle(stage.bed)
    # A gateway asks the database once for each token that it has not met; that is not what is measured here.
    stage.play(Reads(agents[:50]), 100, warmup=0.0, windows=1, seconds=1.0)
    script = Claims(agents, ["adr"])
    before = limit.at_this_moment(stage)
    outcome = stage.play(script, AT_ONCE, warmup=0.5, burst=stage.effort.bursts)
    compare(stage, result, "at once", before)
    result.rows.append(row("claim500", "at once", AT_ONCE, outcome.windows))
    seconds = [window.seconds for window in outcome.windows]
    result.figures |= {"best_seconds": min(seconds), "median_seconds": median(seconds)}
    answered = [window.calls for window in outcome.windows]
    result.lines.append(
        f"500 at once: answered within {min(seconds) * 1000:.0f} ms at best, {median(seconds) * 1000:.0f} in the median"
        f" of {len(seconds)} rounds"
    )
    assert set(answered) == {AT_ONCE}, answered
    _check(stage, result, outcome, teams)
    return result


def _play(stage: Stage, result: Result, name: str, variant: str, script: Claims, connections: int) -> Outcome:
    settle(stage.bed)
    with stage.profiled(f"{name}-{variant}"):
        outcome = stage.play(script, connections)
    line = row(name, variant, connections, outcome.windows)
    result.rows.append(line)
    result.figures[f"rate_{variant}"] = line.rate
    result.figures[f"cost_{variant}"] = line.cost
    result.figures[f"tail_{variant}"] = round(line.latency.p99 / line.latency.p50, 2)
    if variant == MODERN:
        result.figures["rate"] = line.rate
    return outcome


def _check(stage: Stage, result: Result, outcome: Outcome, teams: list[Team]) -> None:
    numbers: Numbers = outcome.collected["numbers"]
    checked = check_claims(stage.bed.database, numbers)
    check_ledgers(stage.bed.database, [team.project_id for team in teams])
    result.checked.append(f"{checked} numbers distinct and gap-free")
