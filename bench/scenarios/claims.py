"""`claim500`, `claim_hot`, `claim_spread`: numbers through both gateways, from one sequence and from many."""

from bench.checks import ClaimedNumbers, verify_claims, verify_ledgers
from bench.environment import checkpoint_and_pause
from bench.fixtures import Team, assign_round_robin, make_teams
from bench.load import LoadResult
from bench.requests import ERAS, MODERN
from bench.scenario import Harness, Result, make_row
from bench.scenarios import limit
from bench.stats import lower_median
from bench.workloads import ClaimWorkload, ReadWorkload

SPREAD_TEAM_COUNT, SPREAD_SEQUENCE_COUNT = 5, 20
BURST_SIZE = 500


def run_spread(harness: Harness) -> Result:
    """32 connections, 20 sequences in five projects, in both eras."""
    result = Result()
    before = limit.sample_claim_limit(harness)
    for era in ERAS:
        teams = make_teams(harness.environment.database, SPREAD_TEAM_COUNT, 8)
        script = ClaimWorkload(
            assign_round_robin(teams, 32), [f"seq-{number}" for number in range(SPREAD_SEQUENCE_COUNT)], era
        )
        outcome = _measure(harness, result, "claim_spread", era, script, 32)
        _verify(harness, result, outcome, teams)
        before = record_claim_limit(harness, result, era, before)
    return result


def record_claim_limit(
    harness: Harness, result: Result, variant: str, before: limit.LimitSample | None
) -> limit.LimitSample | None:
    """Note what a variant is of the claim limit right before and after it; returns the one after."""
    after = limit.sample_claim_limit(harness)
    if before is not None and after is not None:
        around = before.mean(after)
        result.figures[f"limit_{variant}"] = {"rate": round(around.rate, 1), "cost": round(around.cost, 1)}
    return after


def run_hot(harness: Harness) -> Result:
    """One sequence of one project, asked by 32 and by 128 connections."""
    result = Result()
    for connections in (32, 128):
        teams = make_teams(harness.environment.database, 1, 32)
        script = ClaimWorkload(assign_round_robin(teams, connections), ["adr"])
        outcome = _measure(harness, result, "claim_hot", str(connections), script, connections)
        _verify(harness, result, outcome, teams)
    if "limit" in harness.figures:
        # One project is serial by commit, so it is compared with itself.
        known = harness.figures["limit"]
        alone, rate = known["claim_one_project"], result.figures["rate_32"]
        result.lines.append(
            f"one project: {rate:.0f} of the {alone:.0f} claims a second of one project without HTTP"
            f" ({rate / alone:.2f}); its commits take turns, {known['commit_latency_ms']:.2f} ms for one call alone"
        )
    return result


def run_burst(harness: Harness) -> Result:
    """500 connections that are open already claim from one sequence at the same moment, in several rounds."""
    result = Result()
    teams = make_teams(harness.environment.database, 1, 50)
    agents = assign_round_robin(teams, BURST_SIZE)
    checkpoint_and_pause(harness.environment)
    # A gateway asks the database once for each token that it has not met; that is not what is measured here.
    harness.run_workload(ReadWorkload(agents[:50]), 100, warmup=0.0, windows=1, seconds=1.0)
    script = ClaimWorkload(agents, ["adr"])
    before = limit.sample_claim_limit(harness)
    outcome = harness.run_workload(script, BURST_SIZE, warmup=0.5, burst=harness.effort.burst_rounds)
    record_claim_limit(harness, result, "at once", before)
    result.rows.append(make_row("claim500", "at once", BURST_SIZE, outcome.windows))
    seconds = [window.seconds for window in outcome.windows]
    result.figures |= {"best_seconds": min(seconds), "median_seconds": lower_median(seconds)}
    answered = [window.calls for window in outcome.windows]
    result.lines.append(
        f"500 at once: answered within {min(seconds) * 1000:.0f} ms at best, {lower_median(seconds) * 1000:.0f} in the median"
        f" of {len(seconds)} rounds"
    )
    assert set(answered) == {BURST_SIZE}, answered
    _verify(harness, result, outcome, teams)
    return result


def _measure(
    harness: Harness, result: Result, name: str, variant: str, workload: ClaimWorkload, connections: int
) -> LoadResult:
    checkpoint_and_pause(harness.environment)
    with harness.record_profile(f"{name}-{variant}"):
        outcome = harness.run_workload(workload, connections)
    line = make_row(name, variant, connections, outcome.windows)
    result.rows.append(line)
    result.figures[f"rate_{variant}"] = line.rate
    result.figures[f"cost_{variant}"] = line.cost
    result.figures[f"tail_{variant}"] = round(line.latency.p99 / line.latency.p50, 2)
    if variant == MODERN:
        result.figures["rate"] = line.rate
    return outcome


def _verify(harness: Harness, result: Result, load_result: LoadResult, teams: list[Team]) -> None:
    numbers: ClaimedNumbers = load_result.workload_results["numbers"]
    checked = verify_claims(harness.environment.database, numbers)
    verify_ledgers(harness.environment.database, [team.project_id for team in teams])
    result.checked.append(f"{checked} numbers distinct and gap-free")
