"""`mixed` and `read`: the calls of working agents, and reads alone."""

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
    for variant, era, team_count in (*((era, era, TEAM_COUNT) for era in ERAS), ("one project", MODERN, 1)):
        teams = make_teams(harness.environment.database, team_count, CONNECTION_COUNT // team_count)
        checkpoint_and_pause(harness.environment)
        with harness.record_profile(f"mixed-{variant}"):
            load_result = harness.run_workload(
                MixedWorkload(assign_round_robin(teams, CONNECTION_COUNT), era=era), CONNECTION_COUNT
            )
        row = make_row("mixed", variant, CONNECTION_COUNT, load_result.windows)
        result.rows.append(row)
        result.figures[f"rate_{variant}"] = row.rate
        result.figures[f"cost_{variant}"] = row.cost
        result.figures[f"tail_{variant}"] = round(row.latency.p99 / row.latency.p50, 2)
        before = record_claim_limit(harness, result, variant, before)
        workload_results = load_result.workload_results
        database = harness.environment.database
        number_count = verify_claims(database, workload_results["numbers"])
        post_count = verify_posts(database, workload_results["posted"], workload_results["acked"])
        event_count = verify_ledgers(database, [team.project_id for team in teams])
        result.checked.append(
            f"{post_count} posts and {len(workload_results['acked'])} acks stored, {number_count} numbers gap-free,"
            f" {event_count} events contiguous"
        )
    result.figures["rate"] = result.figures[f"rate_{MODERN}"]
    return result


def run_read(harness: Harness) -> Result:
    """32 agents only read: eight kinds of calls in turn, in projects with some history."""
    result = Result()
    teams = make_teams(harness.environment.database, TEAM_COUNT, TEAM_SIZE)
    agents = assign_round_robin(teams, CONNECTION_COUNT)
    # Some history to read.
    harness.run_workload(
        MixedWorkload(agents), CONNECTION_COUNT, warmup=0.0, windows=1, seconds=min(2.0, harness.effort.seconds)
    )
    for era in ERAS:
        checkpoint_and_pause(harness.environment)
        load_result = harness.run_workload(ReadWorkload(agents, era), CONNECTION_COUNT)
        row = make_row("read", era, CONNECTION_COUNT, load_result.windows)
        result.rows.append(row)
        result.figures[f"rate_{era}"] = row.rate
        result.figures[f"tail_{era}"] = round(row.latency.p99 / row.latency.p50, 2)
    result.figures["rate"] = result.figures[f"rate_{MODERN}"]
    events = verify_ledgers(harness.environment.database, [team.project_id for team in teams])
    result.checked.append(f"{events} events contiguous")
    return result
