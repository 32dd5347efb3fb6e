"""`fair`: what a quiet agent feels of a noisy one."""

import threading
import time

from bench.client import Client
from bench.environment import checkpoint_and_pause
from bench.fixtures import Agent, make_teams
from bench.load import LoadResult, LoadSpec, run_load
from bench.scenario import Harness, Result, Row
from bench.stats import summarize_latencies
from bench.workloads import ReadWorkload

_NOISY_CONNECTION_COUNT = 200
_ROUND_COUNT = 400
_PAUSE_SECONDS = 0.005


def run(harness: Harness) -> Result:
    """A quiet agent calls now and then, alone and beside 200 connections of one token of another project."""
    result = Result()
    quiet, noisy = make_teams(harness.environment.database, 2, 2)
    checkpoint_and_pause(harness.environment)
    _measure_quiet_agent(harness, quiet.agents[0], _ROUND_COUNT // 4)
    alone = summarize_latencies(_measure_quiet_agent(harness, quiet.agents[0], _ROUND_COUNT))
    script = ReadWorkload([noisy.agents[0]])
    job = LoadSpec(
        script,
        harness.environment.addresses,
        _NOISY_CONNECTION_COUNT,
        warmup=0.5,
        windows=1,
        seconds=2 * harness.effort.seconds + 4,
    )
    outcomes: list[LoadResult] = []
    playing = threading.Thread(target=lambda: outcomes.append(run_load(job)))
    playing.start()
    time.sleep(1.5)
    beside = summarize_latencies(_measure_quiet_agent(harness, quiet.agents[0], _ROUND_COUNT, load_thread=playing))
    playing.join()
    for variant, summary in (("alone", alone), ("beside 200", beside)):
        result.rows.append(Row("fair", variant, 1, 0.0, [0.0], summary, {}, 0.0))
    result.figures |= {
        "alone_p99": alone.p99,
        "beside_p99": beside.p99,
        "alone_p50": alone.p50,
        "beside_p50": beside.p50,
        "noisy_rate": round(outcomes[0].best_window.rate, 1),
    }
    result.lines.append(
        f"a quiet agent's p99 is {alone.p99:.1f} ms alone and {beside.p99:.1f} beside {_NOISY_CONNECTION_COUNT} connections of"
        f" another token, which make {outcomes[0].best_window.rate:.0f} calls a second"
    )
    return result


def _measure_quiet_agent(
    harness: Harness, agent: Agent, round_count: int, load_thread: threading.Thread | None = None
) -> list[float]:
    taken = []
    with Client(harness.environment.addresses[0], agent.token) as client:
        client.call("whoami")
        for _ in range(round_count):
            if load_thread is not None and not load_thread.is_alive():
                break
            answer = client.call("whats_new", advance_cursor=False)
            answer.structured_content  # noqa: B018 - checks the answer
            taken.append(answer.seconds)
            time.sleep(_PAUSE_SECONDS)
    return taken
