"""`solo`: one agent alone, on one connection: what a call costs when nothing can be shared with another."""

from statistics import median
from typing import Any

from bench import synthetic_history
from bench.checks import verify_ledgers
from bench.environment import checkpoint_and_pause
from bench.fixtures import make_teams
from bench.load import Window
from bench.scenario import Harness, Result, make_row
from bench.stats import summarize_latencies
from bench.workloads import RotatingWorkload

_EVENT_COUNT = 1_000
_SURFACE_COUNT = 100
_Calls = list[tuple[str, str, dict[str, Any]]]


def run(harness: Harness) -> Result:
    """One agent calls one tool after the other, in several windows in turn; the median window counts."""
    result = Result()
    (team,) = make_teams(harness.environment.database, 1, 5)
    synthetic_history.write(harness.environment.database, team, _EVENT_COUNT)
    calls_by_tool: dict[str, _Calls] = {
        "claim": [("claim", "claim", {"sequence": "seq-1"})],
        "post": [
            ("post", "post", {"body": "Please look at this one.", "to_actor": team.agents[1].label, "ref": "PR 1"})
        ],
        "lease": [
            (tool, tool, {"surface": f"src/alone_{number}.py"})
            for number in range(_SURFACE_COUNT)
            for tool in ("lease", "release")
        ],
        "whats_new": [("whats_new", "whats_new", {"since": 100, "limit": 100})],
    }
    windows: dict[str, list[Window]] = {tool: [] for tool in calls_by_tool}
    checkpoint_and_pause(harness.environment)
    # One round of all tools after the other, so that other load of the machine affects all of them alike.
    for _ in range(harness.effort.solo_windows):
        for tool, calls in calls_by_tool.items():
            workload = RotatingWorkload([team.agents[0]], calls)
            load_result = harness.run_workload(
                workload, 1, warmup=harness.effort.warmup, windows=1, seconds=harness.effort.solo_seconds
            )
            windows[tool] += load_result.windows
    for tool, tool_windows in windows.items():
        result.rows.append(make_row("solo", tool, 1, tool_windows))
        result.figures[tool] = median(
            summarize_latencies(window.latencies[tool]).p50 for window in tool_windows if window.latencies.get(tool)
        )
    events = verify_ledgers(harness.environment.database, [team.project_id])
    result.checked.append(f"{events} events contiguous")
    return result
