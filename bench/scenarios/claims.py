"""`claim500`, `claim_hot`, `claim_spread`: claims through both gateways, from one sequence and from many."""

from bench.checks import ClaimedNumbers, verify_claims, verify_ledgers
from bench.environment import checkpoint_and_pause
from bench.fixtures import Team, assign_round_robin, make_teams
from bench.load import LoadResult, Workload
from bench.requests import ERAS, MODERN
from bench.scenario import Harness, Result, make_row
from bench.scenarios import limit
from bench.stats import lower_median
from bench.workloads import ClaimWorkload, ReadWorkload, RefusalWorkload

SPREAD_TEAM_COUNT, SPREAD_SEQUENCE_COUNT = 5, 20
BURST_SIZE = 500


def run_spread(harness: Harness) -> Result:
    """32 connections, 20 sequences in five projects, in both eras."""
    result = Result()
    before = limit.sample_claim_limit(harness)
    for era in ERAS:
        teams = make_teams(harness.environment.database, SPREAD_TEAM_COUNT, 8)
        workload = ClaimWorkload(
            assign_round_robin(teams, 32), [f"seq-{number}" for number in range(SPREAD_SEQUENCE_COUNT)], era
        )
        load_result = _measure(harness, result, "claim_spread", era, workload, 32)
        _verify(harness, result, load_result, teams)
        before = record_claim_limit(harness, result, era, before)
    return result


def record_claim_limit(
    harness: Harness, result: Result, variant: str, before: limit.LimitSample | None
) -> limit.LimitSample | None:
    """Record the mean of the claim limit before and after a variant. Returns the limit after it."""
    after = limit.sample_claim_limit(harness)
    if before is not None and after is not None:
        mean = before.mean(after)
        result.figures[f"limit_{variant}"] = {"rate": round(mean.rate, 1), "cost": round(mean.cost, 1)}
    return after


def run_hot(harness: Harness) -> Result:
    """One sequence of one project, claimed from by 32 and by 128 connections."""
    result = Result()
    for connections in (32, 128):
        teams = make_teams(harness.environment.database, 1, 32)
        workload = ClaimWorkload(assign_round_robin(teams, connections), ["adr"])
        load_result = _measure(harness, result, "claim_hot", str(connections), workload, connections)
        _verify(harness, result, load_result, teams)
    if "limit" in harness.figures:
        # Commits of one project are serial, so the reference is the limit of one project.
        limit_figures = harness.figures["limit"]
        limit_rate, rate = limit_figures["claim_one_project"], result.figures["rate_32"]
        result.lines.append(
            f"one project: {rate:.0f} of the {limit_rate:.0f} claims per second of one project without HTTP"
            f" ({rate / limit_rate:.2f}); its commits are serial, and a single call takes"
            f" {limit_figures['commit_latency_ms']:.2f} ms"
        )
    return result


def run_refusals(harness: Harness) -> Result:
    """Claims of 32 connections, and the same with every fifth call refused: a batch with a refusal is sent again."""
    result = Result()
    for variant in ("none refused", "every fifth refused"):
        teams = make_teams(harness.environment.database, SPREAD_TEAM_COUNT, 8)
        agents = assign_round_robin(teams, 32)
        sequences = [f"seq-{number}" for number in range(SPREAD_SEQUENCE_COUNT)]
        workload = RefusalWorkload(agents) if "fifth" in variant else ClaimWorkload(agents, sequences)
        _measure(harness, result, "refusals", variant, workload, 32)
        event_count = verify_ledgers(harness.environment.database, [team.project_id for team in teams])
        result.checked.append(f"{event_count} events contiguous ({variant})")
    costs = [result.figures[f"cost_{variant}"] for variant in ("none refused", "every fifth refused")]
    result.lines.append(f"with every fifth call refused a call costs {costs[1] / costs[0]:.2f} times as much CPU")
    return result


def run_burst(harness: Harness) -> Result:
    """500 open connections claim from one sequence at the same moment, in several rounds."""
    result = Result()
    teams = make_teams(harness.environment.database, 1, 50)
    agents = assign_round_robin(teams, BURST_SIZE)
    checkpoint_and_pause(harness.environment)
    # A gateway looks up each new token once; that is not part of the measurement.
    harness.run_workload(ReadWorkload(agents[:50]), 100, warmup=0.0, windows=1, seconds=1.0)
    workload = ClaimWorkload(agents, ["adr"])
    before = limit.sample_claim_limit(harness)
    load_result = harness.run_workload(workload, BURST_SIZE, warmup=0.5, burst=harness.effort.burst_rounds)
    record_claim_limit(harness, result, "at once", before)
    result.rows.append(make_row("claim500", "at once", BURST_SIZE, load_result.windows))
    seconds = [window.seconds for window in load_result.windows]
    result.figures |= {"best_seconds": min(seconds), "median_seconds": lower_median(seconds)}
    call_counts = {window.calls for window in load_result.windows}
    result.lines.append(
        f"500 concurrent claims took {min(seconds) * 1000:.0f} ms at best, median {lower_median(seconds) * 1000:.0f},"
        f" in {len(seconds)} rounds"
    )
    assert call_counts == {BURST_SIZE}, call_counts
    _verify(harness, result, load_result, teams)
    return result


def _measure(
    harness: Harness, result: Result, name: str, variant: str, workload: Workload, connections: int
) -> LoadResult:
    checkpoint_and_pause(harness.environment)
    with harness.record_profile(f"{name}-{variant}"):
        load_result = harness.run_workload(workload, connections)
    row = make_row(name, variant, connections, load_result.windows)
    result.rows.append(row)
    result.figures[f"rate_{variant}"] = row.rate
    result.figures[f"cost_{variant}"] = row.cost
    result.figures[f"tail_{variant}"] = round(row.latency.p99 / row.latency.p50, 2)
    if variant == MODERN:
        result.figures["rate"] = row.rate
    return load_result


def _verify(harness: Harness, result: Result, load_result: LoadResult, teams: list[Team]) -> None:
    numbers: ClaimedNumbers = load_result.workload_results["numbers"]
    checked = verify_claims(harness.environment.database, numbers)
    verify_ledgers(harness.environment.database, [team.project_id for team in teams])
    result.checked.append(f"{checked} numbers distinct and gap-free")
