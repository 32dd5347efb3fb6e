"""`commit`: what the kit's hook adds to a commit, with the bus there and away.

Each round makes one commit of each kind, so that other load of the machine affects all kinds alike.
"""

import os
import resource
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from bench.checks import require
from bench.environment import free_port
from bench.fixtures import make_teams
from bench.requests import Address, build_tool_call
from bench.scenario import Harness, Result
from bench.stats import lower_median, summarize_latencies

ROUNDS = 20
_INSTALLER = Path(__file__).resolve().parents[2] / "kit" / "install.py"
_HISTORY_FILES = 200
_WITHOUT_HOOK = "without the hook"
_SEEDED_NUMBER = 100
_MAX_RESPONSE_BYTES = 65536


@dataclass
class Repository:
    """A repository with the kit, and the seconds and CPU seconds of its commits by kind."""

    root: Path
    env: dict[str, str]
    seconds: dict[str, list[float]] = field(default_factory=dict)
    cpu_seconds: dict[str, list[float]] = field(default_factory=dict)
    _next_number: int = _SEEDED_NUMBER + 1

    def run(self, *arguments: str) -> str:
        """Run a command, which must succeed. Returns its messages."""
        done = subprocess.run(arguments, cwd=self.root, env=self.env, capture_output=True, text=True, check=False)
        require(done.returncode == 0, f"{arguments} ended with {done.returncode}: {done.stderr}")
        return done.stderr

    def commit(self, kind: str, name: str, *options: str) -> str:
        """Commit a new file and record the time. Returns the messages of the hook."""
        path = self.root / name
        path.write_text(f"{kind}\n", "utf-8")
        self.run("git", "add", "--", name)
        started_at, cpu_before = time.perf_counter(), children_cpu_seconds()
        messages = self.run("git", *options, "commit", "-q", "-m", kind)
        self.seconds.setdefault(kind, []).append(time.perf_counter() - started_at)
        self.cpu_seconds.setdefault(kind, []).append(children_cpu_seconds() - cpu_before)
        return messages

    def take_number(self) -> int:
        """Return the next number of its files."""
        number, self._next_number = self._next_number, self._next_number + 1
        return number


def run(harness: Harness) -> Result:
    """The time that the kit's pre-commit hook adds to a commit, with the bus there and away."""
    result = Result()
    (team,) = make_teams(harness.environment.database, 1, 2)
    address = harness.environment.addresses[0]
    with tempfile.TemporaryDirectory(prefix="llm-bus-bench-commit-") as folder:
        connected = make_repository(
            Path(folder, "connected"), f"http://127.0.0.1:{address.port}/mcp", team.agents[0].token
        )
        away = make_repository(Path(folder, "away"), f"http://127.0.0.1:{free_port()}/mcp", team.agents[0].token)
        for index in range(ROUNDS):
            connected.commit(_WITHOUT_HOOK, f"plain-{index}.txt", "-c", "core.hooksPath=/dev/null")
            messages = connected.commit("other files", f"other-{index}.txt")
            require(messages == "", f"the hook reported: {messages}")
            messages = connected.commit("a new number", f"docs/adr/{connected.take_number():04}-free-{index}.md")
            require("is now claimed for you" in messages, f"the hook reported: {messages}")
            number = connected.take_number()
            _claim(address, team.agents[0].token)
            messages = connected.commit("a claimed number", f"docs/adr/{number:04}-mine-{index}.md")
            require(messages == "", f"the hook reported: {messages}")
            messages = away.commit("bus away", f"docs/adr/{away.take_number():04}-a-{index}.md")
            require("Continuing without the bus" in messages, f"the hook reported: {messages}")
    seconds = {**connected.seconds, **away.seconds}
    base = lower_median(seconds[_WITHOUT_HOOK])
    summaries = {kind: summarize_latencies(values) for kind, values in seconds.items()}
    added = {kind: round((lower_median(values) - base) * 1000, 1) for kind, values in seconds.items()}
    result.figures |= {"base_ms": round(base * 1000, 1), "away_ms": added["bus away"]}
    result.figures["there_ms"] = max(added[kind] for kind in ("other files", "a new number", "a claimed number"))
    cpu_seconds = {**connected.cpu_seconds, **away.cpu_seconds}
    cpu = {kind: lower_median(values) * 1000 for kind, values in cpu_seconds.items()}
    result.figures["cpu_ms"] = {kind: round(value, 1) for kind, value in cpu.items()}
    rows = [
        [kind, f"{summary.p50:.0f}", f"{summary.p95:.0f}", f"{added[kind]:+.0f}", f"{cpu[kind]:.0f}"]
        for kind, summary in summaries.items()
    ]
    result.tables.append((["commit", "p50 ms", "p95 ms", "added ms", "CPU ms"], rows))
    result.checked.append(f"commit: {ROUNDS} commits of each kind reported what the hook had to find")
    return result


def children_cpu_seconds() -> float:
    """Return the CPU seconds of the processes that this one has started and that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def make_repository(root: Path, endpoint: str, token: str, clients: str = "none") -> Repository:
    """Create a repository with history and numbered files, and install the kit, which seeds the sequence.

    Args:
        clients: the clients that the kit configures.
    """
    (root / "docs" / "adr").mkdir(parents=True)
    (root / "home").mkdir()
    # The interpreter itself: a version manager's wrapper would take longer than the hook.
    programs = Path(os.path.realpath(sys.executable)).parent
    env = {
        "PATH": os.pathsep.join([str(programs), os.environ["PATH"]]),
        "HOME": str(root / "home"),
        "GIT_CONFIG_NOSYSTEM": "1",
        **{f"GIT_{role}_{part}": "bench@example.org" for role in ("AUTHOR", "COMMITTER") for part in ("NAME", "EMAIL")},
        "LLM_BUS_TOKEN": token,
    }
    repository = Repository(root, env)
    repository.run("git", "init", "-q")
    (root / ".git" / "info" / "exclude").write_text("/home\n", "utf-8")
    for number in range(1, _HISTORY_FILES + 1):
        Path(root, f"file-{number}.txt").write_text("text\n", "utf-8")
    for number in range(1, _SEEDED_NUMBER + 1):
        Path(root, "docs", "adr", f"{number:04}-record.md").write_text(f"{number}\n", "utf-8")
    repository.run("git", "add", "-A")
    repository.run("git", "commit", "-q", "-m", "history")
    repository.run(sys.executable, str(_INSTALLER), "--endpoint", endpoint, "--client", clients)
    repository.run("git", "add", "-A")
    repository.run("git", "commit", "-q", "--no-verify", "-m", "kit")
    return repository


def _claim(address: Address, token: str) -> None:
    """Claim the next number, as an agent does before it names a file."""
    with socket.create_connection((address.host, address.port), timeout=10) as connection:
        connection.sendall(build_tool_call(address, token, "claim", "modern", sequence="adr"))
        require(b'"number"' in connection.recv(_MAX_RESPONSE_BYTES), "the claim was refused")
