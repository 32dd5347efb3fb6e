"""`tool-hooks`: what the kit's hook after a tool costs a call of a tool, in which it has nothing to show.

Each round runs each kind once, so that other load of the machine affects all kinds alike.
"""

import json
import os
import subprocess
import tempfile
import time
from pathlib import Path

from bench.checks import require
from bench.environment import free_port
from bench.fixtures import make_teams
from bench.scenario import Harness, Result
from bench.scenarios.commit import Repository, children_cpu_seconds, make_repository
from bench.stats import lower_median, summarize_latencies

ROUNDS = 60
_PYTHON = "Python alone"
_HOOK_INPUT = {"hook_event_name": "PostToolUse", "tool_name": "Bash", "tool_input": {"command": "true"}}
_NO_LOOK, _LOOK = {"LLM_BUS_LOOK_SECONDS": "3600"}, {"LLM_BUS_LOOK_SECONDS": "0"}


class _Hook:
    """The hook of Claude Code after a tool, in one session of a repository."""

    def __init__(self, repository: Repository) -> None:
        self._repository = repository
        settings = json.loads((repository.root / ".claude" / "settings.json").read_text("utf-8"))
        self._command = settings["hooks"]["PostToolUse"][0]["hooks"][0]["command"]
        self._input = json.dumps({"session_id": "bench", "cwd": str(repository.root), **_HOOK_INPUT})

    def start_session(self) -> None:
        """Run the hook at the start of a session, which writes what the others read."""
        command = self._command.replace("tool after claude", "wake start claude")
        require(self._run(command, {})[0] != "", "the session was not greeted")

    def run(self, variables: dict[str, str]) -> tuple[float, float]:
        """Run the hook, which has nothing to show. Returns its seconds and its CPU seconds."""
        output, seconds, cpu_seconds = self._run(self._command, variables)
        require(output == "", f"the hook printed {output}")
        return seconds, cpu_seconds

    def run_python(self) -> tuple[float, float]:
        """Start Python as the hook does, and nothing else."""
        _, seconds, cpu_seconds = self._run("python3 -ISc pass", {})
        return seconds, cpu_seconds

    def _run(self, command: str, variables: dict[str, str]) -> tuple[str, float, float]:
        env = {**self._repository.env, "CLAUDE_PID": str(os.getpid()), **variables}
        started_at, cpu_before = time.perf_counter(), children_cpu_seconds()
        done = subprocess.run(
            ["sh", "-c", command],
            cwd=self._repository.root,
            env=env,
            input=self._input,
            capture_output=True,
            text=True,
            check=False,
        )
        seconds, cpu_seconds = time.perf_counter() - started_at, children_cpu_seconds() - cpu_before
        require(done.returncode == 0 and done.stderr == "", f"the hook ended with {done}")
        return done.stdout, seconds, cpu_seconds


def run(harness: Harness) -> Result:
    """The time of the kit's hook after a tool that has nothing to show, with the bus there and away."""
    result = Result()
    (team,) = make_teams(harness.environment.database, 1, 2)
    token, address = team.agents[0].token, harness.environment.addresses[0]
    samples: dict[str, list[tuple[float, float]]] = {}
    # A hook leaves a look at a slow bus in the background, which may still write into the folder.
    with tempfile.TemporaryDirectory(prefix="llm-bus-bench-hooks-", ignore_cleanup_errors=True) as folder:
        there = _Hook(make_repository(Path(folder, "there"), f"http://127.0.0.1:{address.port}/mcp", token, "claude"))
        away = _Hook(make_repository(Path(folder, "away"), f"http://127.0.0.1:{free_port()}/mcp", token, "claude"))
        there.start_session()
        away.start_session()
        for _ in range(ROUNDS):
            samples.setdefault(_PYTHON, []).append(there.run_python())
            samples.setdefault("no look", []).append(there.run(_NO_LOOK))
            samples.setdefault("a look", []).append(there.run(_LOOK))
            samples.setdefault("a look, bus away", []).append(away.run(_LOOK))
    summaries = {kind: summarize_latencies([seconds for seconds, _ in values]) for kind, values in samples.items()}
    cpu = {kind: lower_median([seconds for _, seconds in values]) * 1000 for kind, values in samples.items()}
    result.figures = {
        "p50_ms": {kind: round(summary.p50, 1) for kind, summary in summaries.items()},
        "p95_ms": {kind: round(summary.p95, 1) for kind, summary in summaries.items()},
        "cpu_ms": {kind: round(value, 1) for kind, value in cpu.items()},
    }
    rows = [
        [kind, f"{summary.p50:.0f}", f"{summary.p95:.0f}", f"{cpu[kind]:.0f}"] for kind, summary in summaries.items()
    ]
    result.tables.append((["hook after a tool", "p50 ms", "p95 ms", "CPU ms"], rows))
    result.checked.append(f"tool-hooks: {ROUNDS} hooks of each kind printed nothing")
    return result
