"""`mixed` and `read`: what agents do all day, and what they look at."""

from bench.checks import check_claims, check_ledgers, check_posts
from bench.environment import settle
from bench.fixtures import dealt, make_teams
from bench.requests import ERAS, MODERN
from bench.scenario import Result, Stage, row
from bench.scenarios import limit
from bench.scenarios.claims import compare
from bench.workloads import Mixed, Reads

TEAMS, SIZE = 4, 8
CONNECTIONS = TEAMS * SIZE


def run_mixed(stage: Stage) -> Result:
    """32 agents in four projects, one connection each, in both eras; and all 32 in one project."""
    result = Result()
    before = limit.at_this_moment(stage)
    for variant, era, teams_count in (*((era, era, TEAMS) for era in ERAS), ("one project", MODERN, 1)):
        teams = make_teams(stage.bed.database, teams_count, CONNECTIONS // teams_count)
        settle(stage.bed)
        with stage.profiled(f"mixed-{variant}"):
            outcome = stage.play(Mixed(dealt(teams, CONNECTIONS), era=era), CONNECTIONS)
        line = row("mixed", variant, CONNECTIONS, outcome.windows)
        result.rows.append(line)
        result.figures[f"rate_{variant}"] = line.rate
        result.figures[f"cost_{variant}"] = line.cost
        result.figures[f"tail_{variant}"] = round(line.latency.p99 / line.latency.p50, 2)
        before = compare(stage, result, variant, before)
        found = outcome.collected
        numbers = check_claims(stage.bed.database, found["numbers"])
        posts = check_posts(stage.bed.database, found["posted"], found["acked"])
        events = check_ledgers(stage.bed.database, [team.project_id for team in teams])
        result.checked.append(
            f"{posts} posts and {len(found['acked'])} acks there, {numbers} numbers gap-free,"
            f" {events} events contiguous"
        )
    result.figures["rate"] = result.figures[f"rate_{MODERN}"]
    return result


def run_read(stage: Stage) -> Result:
    """32 agents only look: eight kinds of read in turn, in projects with some history."""
    result = Result()
    teams = make_teams(stage.bed.database, TEAMS, SIZE)
    agents = dealt(teams, CONNECTIONS)
    # Something to look at: what a minute of work leaves.
    stage.play(Mixed(agents), CONNECTIONS, warmup=0.0, windows=1, seconds=min(2.0, stage.effort.seconds))
    for era in ERAS:
        settle(stage.bed)
        outcome = stage.play(Reads(agents, era), CONNECTIONS)
        line = row("read", era, CONNECTIONS, outcome.windows)
        result.rows.append(line)
        result.figures[f"rate_{era}"] = line.rate
        result.figures[f"tail_{era}"] = round(line.latency.p99 / line.latency.p50, 2)
    result.figures["rate"] = result.figures[f"rate_{MODERN}"]
    events = check_ledgers(stage.bed.database, [team.project_id for team in teams])
    result.checked.append(f"{events} events contiguous")
    return result
