"""`mixed` and `read`: what agents do all day, and what they look at."""

from bench.checks import verify_claims, verify_ledgers, verify_posts
from bench.environment import checkpoint_and_pause
from bench.fixtures import assign_round_robin, make_teams
from bench.requests import ERAS, MODERN
from bench.scenario import Harness, Result, make_row
from bench.scenarios import limit
from bench.scenarios.claims import record_claim_limit
from bench.workloads import MixedWorkload, ReadWorkload

TEAM_COUNT, TEAM_SIZE = 4, 8
CONNECTION_COUNT = TEAM_COUNT * TEAM_SIZE


def run_mixed(harness: Harness) -> Result:
    """32 agents in four projects, one connection each, in both eras; and all 32 in one project."""
    result = Result()
    before = limit.sample_claim_limit(harness)
    for variant, era, teams_count in (*((era, era, TEAM_COUNT) for era in ERAS), ("one project", MODERN, 1)):
        teams = make_teams(harness.environment.database, teams_count, CONNECTION_COUNT // teams_count)
        checkpoint_and_pause(harness.environment)
        with harness.record_profile(f"mixed-{variant}"):
            outcome = harness.run_workload(
                MixedWorkload(assign_round_robin(teams, CONNECTION_COUNT), era=era), CONNECTION_COUNT
            )
        line = make_row("mixed", variant, CONNECTION_COUNT, outcome.windows)
        result.rows.append(line)
        result.figures[f"rate_{variant}"] = line.rate
        result.figures[f"cost_{variant}"] = line.cost
        result.figures[f"tail_{variant}"] = round(line.latency.p99 / line.latency.p50, 2)
        before = record_claim_limit(harness, result, variant, before)
        found = outcome.workload_results
        numbers = verify_claims(harness.environment.database, found["numbers"])
        posts = verify_posts(harness.environment.database, found["posted"], found["acked"])
        events = verify_ledgers(harness.environment.database, [team.project_id for team in teams])
        result.checked.append(
            f"{posts} posts and {len(found['acked'])} acks there, {numbers} numbers gap-free,"
            f" {events} events contiguous"
        )
    result.figures["rate"] = result.figures[f"rate_{MODERN}"]
    return result


def run_read(harness: Harness) -> Result:
    """32 agents only look: eight kinds of read in turn, in projects with some history."""
    result = Result()
    teams = make_teams(harness.environment.database, TEAM_COUNT, TEAM_SIZE)
    agents = assign_round_robin(teams, CONNECTION_COUNT)
    # Something to look at: what a minute of work leaves.
    harness.run_workload(
        MixedWorkload(agents), CONNECTION_COUNT, warmup=0.0, windows=1, seconds=min(2.0, harness.effort.seconds)
    )
    for era in ERAS:
        checkpoint_and_pause(harness.environment)
        outcome = harness.run_workload(ReadWorkload(agents, era), CONNECTION_COUNT)
        line = make_row("read", era, CONNECTION_COUNT, outcome.windows)
        result.rows.append(line)
        result.figures[f"rate_{era}"] = line.rate
        result.figures[f"tail_{era}"] = round(line.latency.p99 / line.latency.p50, 2)
    result.figures["rate"] = result.figures[f"rate_{MODERN}"]
    events = verify_ledgers(harness.environment.database, [team.project_id for team in teams])
    result.checked.append(f"{events} events contiguous")
    return result
