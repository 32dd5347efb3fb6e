"""What a scenario is given and what it gives: rows of the table, and figures that ratios are taken of."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

from bench.checks import require
from bench.cpu import OTHERS
from bench.environment import Environment
from bench.load import LoadResult, LoadSpec, Window, Workload, run_in_subprocess
from bench.stats import LatencySummary, summarize_latencies


@dataclass(frozen=True)
class Effort:
    """How much is measured: a quick run for every day, or a full one.

    Attributes:
        windows, seconds: windows of each measurement and their length; the best one counts.
        limit_tries: connections and client processes that `limit` tries.
        sizes: events in the projects of `growth`.
        samples: calls of each tool at each size in `growth`.
        snapshot_seconds: how long `old-snapshot` keeps its transaction open.
        push_rounds, push_seconds: news in `push`, and how long the load beside it plays.
        push_waiters, push_streams: how many wait and watch in it at once.
        page_projects, page_samples: projects of the owner in `pages`, and how often each page is asked for.
        board_seconds: how long each phase of `boards` is.
        soak_calls, soak_seconds: calls of `soak`, and how long it may take for them.
    """

    name: str
    windows: int
    seconds: float
    warmup: float
    limit_configurations: tuple[tuple[int, int], ...]
    sizes: tuple[int, ...]
    samples: int
    idle_agents: int
    snapshot_seconds: float
    soak_calls: int
    soak_seconds: float
    burst_rounds: int
    push_rounds: int
    push_seconds: float
    push_waiters: int
    push_streams: int
    page_projects: int
    page_samples: int
    board_seconds: float


FULL = Effort(
    "full",
    windows=3,
    seconds=4.0,
    warmup=1.0,
    limit_configurations=((8, 1), (16, 1), (32, 1), (8, 2), (16, 2), (32, 2)),
    sizes=(1_000, 100_000, 1_000_000),
    samples=200,
    idle_agents=500,
    snapshot_seconds=60.0,
    soak_calls=100_000,
    soak_seconds=120.0,
    burst_rounds=7,
    push_rounds=1_000,
    push_seconds=60.0,
    push_waiters=10_000,
    push_streams=2_000,
    page_projects=200,
    page_samples=30,
    board_seconds=20.0,
)
QUICK = Effort(
    "quick",
    windows=2,
    seconds=1.0,
    warmup=0.4,
    limit_configurations=((16, 1), (32, 1)),
    sizes=(1_000, 50_000),
    samples=12,
    idle_agents=100,
    snapshot_seconds=5.0,
    soak_calls=3_000,
    soak_seconds=10.0,
    burst_rounds=3,
    push_rounds=100,
    push_seconds=6.0,
    push_waiters=500,
    push_streams=100,
    page_projects=20,
    page_samples=8,
    board_seconds=4.0,
)


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        rate: calls a second in the best window; `rates` has all windows.
        latency: of the best window.
        cpu: microseconds for each call, by party, in the best window.
        others: how many cores everybody else on the machine kept busy meanwhile.
    """

    scenario: str
    variant: str
    connections: int
    rate: float
    rates: list[float]
    latency: LatencySummary
    cpu: dict[str, float]
    others: float
    kinds: dict[str, LatencySummary] = field(default_factory=dict)

    @property
    def cost(self) -> float:
        """CPU microseconds that one call takes of the whole machine: a busy machine hardly changes it."""
        return round(sum(self.cpu.values()), 1)

    @property
    def spread(self) -> float:
        """How far the windows lie apart, as a part of the best one."""
        return (max(self.rates) - min(self.rates)) / max(self.rates) if max(self.rates) else 0.0


@dataclass
class Result:
    """What a scenario gave.

    Attributes:
        figures: named numbers, for ratios and for the report.
        checked: what was compared with the database, in words.
        lines: further lines for the readable report.
        tables: further tables for it: titles and rows of cells.
    """

    rows: list[Row] = field(default_factory=list)
    figures: dict[str, Any] = field(default_factory=dict)
    checked: list[str] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    tables: list[tuple[list[str], list[list[str]]]] = field(default_factory=list)


@dataclass
class Harness:
    """What a scenario works with. `figures` has those of the scenarios before it, by scenario."""

    environment: Environment
    effort: Effort
    figures: dict[str, dict[str, Any]] = field(default_factory=dict)
    record_profile: Callable[[str], AbstractContextManager[None]] = lambda name: nullcontext()

    def run_workload(self, workload: Workload, connections: int, **job: Any) -> LoadResult:
        """Play a script against both gateways in the usual windows."""
        settings = {
            "warmup": self.effort.warmup,
            "windows": self.effort.windows,
            "seconds": self.effort.seconds,
            **job,
        }
        outcome = run_in_subprocess(
            LoadSpec(
                workload,
                self.environment.addresses,
                connections,
                process_groups=self.environment.process_groups,
                **settings,
            )
        )
        require(not outcome.failures, "\n".join([*outcome.failures, *self.environment.recent_log_errors()]))
        return outcome


def make_row(scenario: str, variant: str, connections: int, windows: list[Window]) -> Row:
    """The line of the table for some windows of one measurement."""
    best = max(windows, key=lambda window: window.rate)
    kinds = {kind: summarize_latencies(latencies) for kind, latencies in sorted(best.latencies.items())}
    together = [one for latencies in best.latencies.values() for one in latencies]
    return Row(
        scenario,
        variant,
        connections,
        round(best.rate, 1),
        [round(window.rate, 1) for window in windows],
        summarize_latencies(together),
        {party: round(spent / max(1, best.calls) * 1e6, 1) for party, spent in best.cpu.items() if party != OTHERS},
        round(best.cpu[OTHERS] / best.seconds, 2),
        kinds if len(kinds) > 1 else {},
    )
