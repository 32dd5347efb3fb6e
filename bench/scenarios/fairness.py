"""`fair`: the effect of noisy agents on the latency of a quiet one."""

import threading
import time

from bench.client import Client
from bench.environment import checkpoint_and_pause
from bench.fixtures import Agent, make_teams
from bench.load import LoadResult, LoadSpec, Workload, run_load
from bench.scenario import Harness, Result, Row
from bench.stats import LatencySummary, summarize_latencies
from bench.workloads import MixedWorkload, ReadWorkload

_NOISY_CONNECTION_COUNT = 200
_ROUND_COUNT = 400
_PAUSE_SECONDS = 0.005


def run(harness: Harness) -> Result:
    """A quiet agent reads beside 200 connections of one token, and claims beside those of eight tokens of a project."""
    result = Result()
    quiet, noisy = make_teams(harness.environment.database, 2, 8)
    checkpoint_and_pause(harness.environment)
    _measure_quiet_agent(harness, quiet.agents[0], _ROUND_COUNT // 4)
    alone = summarize_latencies(_measure_quiet_agent(harness, quiet.agents[0], _ROUND_COUNT))
    beside, noisy_rate = _measure_beside(harness, ReadWorkload([noisy.agents[0]]), quiet.agents[0], "whats_new")
    for variant, summary in (("alone", alone), ("beside 200", beside)):
        result.rows.append(Row("fair", variant, 1, 0.0, [0.0], summary, {}, 0.0))
    result.figures |= {
        "alone_p99": alone.p99,
        "beside_p99": beside.p99,
        "alone_p50": alone.p50,
        "beside_p50": beside.p50,
        "noisy_rate": round(noisy_rate, 1),
    }
    result.lines.append(
        f"a quiet agent's p99 is {alone.p99:.1f} ms alone and {beside.p99:.1f} beside {_NOISY_CONNECTION_COUNT}"
        f" connections of another token, which make {noisy_rate:.0f} calls per second"
    )
    _measure_claims_beside_a_project(harness, result)
    return result


def _measure_claims_beside_a_project(harness: Harness, result: Result) -> None:
    (quiet,) = make_teams(harness.environment.database, 1, 2)
    (noisy,) = make_teams(harness.environment.database, 1, 8)
    workload = MixedWorkload(noisy.agents * (_NOISY_CONNECTION_COUNT // len(noisy.agents)))
    beside, noisy_rate = _measure_beside(harness, workload, quiet.agents[0], "claim")
    result.rows.append(Row("fair", "claim beside 8", 1, 0.0, [0.0], beside, {}, 0.0))
    result.figures |= {"project_p99": beside.p99, "project_p50": beside.p50}
    result.lines.append(
        f"a claim's p99 is {beside.p99:.1f} ms beside {_NOISY_CONNECTION_COUNT} connections of eight tokens of another"
        f" owner's project, which make {noisy_rate:.0f} calls per second"
    )


def _measure_beside(harness: Harness, workload: Workload, agent: Agent, tool: str) -> tuple[LatencySummary, float]:
    """Measure the calls of a quiet agent beside a load; return their latencies and the load's calls per second."""
    spec = LoadSpec(
        workload,
        harness.environment.addresses,
        _NOISY_CONNECTION_COUNT,
        warmup=0.5,
        windows=1,
        seconds=2 * harness.effort.seconds + 4,
    )
    load_results: list[LoadResult] = []
    load_thread = threading.Thread(target=lambda: load_results.append(run_load(spec)))
    load_thread.start()
    time.sleep(1.5)
    latencies = _measure_quiet_agent(harness, agent, _ROUND_COUNT, load_thread=load_thread, tool=tool)
    load_thread.join()
    return summarize_latencies(latencies), load_results[0].best_window.rate


def _measure_quiet_agent(
    harness: Harness,
    agent: Agent,
    round_count: int,
    load_thread: threading.Thread | None = None,
    tool: str = "whats_new",
) -> list[float]:
    arguments = {"sequence": "adr"} if tool == "claim" else {"advance_cursor": False}
    latencies = []
    with Client(harness.environment.addresses[0], agent.token) as client:
        client.call("whoami")
        for _ in range(round_count):
            if load_thread is not None and not load_thread.is_alive():
                break
            response = client.call(tool, **arguments)
            response.structured_content  # noqa: B018 - checks the response
            latencies.append(response.seconds)
            time.sleep(_PAUSE_SECONDS)
    return latencies
