"""`fair`: what a quiet agent feels of a noisy one."""

import threading
import time

from bench.client import Client
from bench.environment import settle
from bench.fixtures import Agent, make_teams
from bench.load import Job, Outcome, play
from bench.scenario import Result, Row, Stage
from bench.stats import summarise
from bench.workloads import Reads

_CONNECTIONS = 200
_ROUNDS = 400
_PAUSE_SECONDS = 0.005


def run(stage: Stage) -> Result:
    """A quiet agent calls now and then, alone and beside 200 connections of one token of another project."""
    result = Result()
    quiet, noisy = make_teams(stage.bed.database, 2, 2)
    settle(stage.bed)
    _quiet(stage, quiet.agents[0], _ROUNDS // 4)
    alone = summarise(_quiet(stage, quiet.agents[0], _ROUNDS))
    script = Reads([noisy.agents[0]])
    job = Job(script, stage.bed.addresses, _CONNECTIONS, warmup=0.5, windows=1, seconds=2 * stage.effort.seconds + 4)
    outcomes: list[Outcome] = []
    playing = threading.Thread(target=lambda: outcomes.append(play(job)))
    playing.start()
    time.sleep(1.5)
    beside = summarise(_quiet(stage, quiet.agents[0], _ROUNDS, until=playing))
    playing.join()
    for variant, summary in (("alone", alone), ("beside 200", beside)):
        result.rows.append(Row("fair", variant, 1, 0.0, [0.0], summary, {}, 0.0))
    result.figures |= {
        "alone_p99": alone.p99,
        "beside_p99": beside.p99,
        "alone_p50": alone.p50,
        "beside_p50": beside.p50,
        "noisy_rate": round(outcomes[0].best.rate, 1),
    }
    result.lines.append(
        f"a quiet agent's p99 is {alone.p99:.1f} ms alone and {beside.p99:.1f} beside {_CONNECTIONS} connections of"
        f" another token, which make {outcomes[0].best.rate:.0f} calls a second"
    )
    return result


def _quiet(stage: Stage, agent: Agent, rounds: int, until: threading.Thread | None = None) -> list[float]:
    taken = []
    with Client(stage.bed.addresses[0], agent.token) as client:
        client.call("whoami")
        for _ in range(rounds):
            if until is not None and not until.is_alive():
                break
            answer = client.call("whats_new", advance_cursor=False)
            answer.content  # noqa: B018 - checks the answer
            taken.append(answer.seconds)
            time.sleep(_PAUSE_SECONDS)
    return taken
