"""The input and the output of a scenario: its harness, and its rows and figures."""

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
    """The size of a run: quick for daily use, or full.

    Attributes:
        windows, seconds: the number of windows of each measurement and their length; the best one counts.
        warmup: seconds before the first window.
        limit_configurations: the numbers of connections and client processes that `limit` tries.
        sizes: the numbers of events in the projects of `growth`.
        samples: the calls of each tool at each size in `growth`.
        idle_agents: the connected agents in `idle`.
        snapshot_seconds: how long `old-snapshot` keeps its transaction open.
        soak_calls, soak_seconds: the calls of `soak`, and its time limit.
        solo_windows, solo_seconds: the windows of each tool in `solo`, and their length.
        layer_calls: the calls of each layer in `layers`.
        burst_rounds: the rounds of `claim500`.
        push_rounds, push_seconds: the posts in `push`, and the duration of the load beside them.
        push_waiters, push_streams: the concurrent waiting calls and subscriptions in `push`.
        page_projects, page_samples: the projects of the owner in `pages`, and the requests per page.
        board_seconds: the duration of each phase of `boards`.
        storage_events: the events of the history in `storage`.
        search_posts, search_samples: the posts of the project in `search`, and the queries.
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
    solo_windows: int
    solo_seconds: float
    layer_calls: int
    burst_rounds: int
    push_rounds: int
    push_seconds: float
    push_waiters: int
    push_streams: int
    page_projects: int
    page_samples: int
    board_seconds: float
    storage_events: int
    search_posts: int
    search_samples: int


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
    solo_windows=5,
    solo_seconds=2.0,
    layer_calls=20_000,
    burst_rounds=7,
    push_rounds=1_000,
    push_seconds=60.0,
    push_waiters=10_000,
    push_streams=2_000,
    page_projects=200,
    page_samples=30,
    board_seconds=20.0,
    storage_events=100_000,
    search_posts=1_000_000,
    search_samples=500,
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
    solo_windows=5,
    solo_seconds=0.4,
    layer_calls=5_000,
    burst_rounds=3,
    push_rounds=100,
    push_seconds=6.0,
    push_waiters=500,
    push_streams=100,
    page_projects=20,
    page_samples=8,
    board_seconds=4.0,
    storage_events=10_000,
    search_posts=20_000,
    search_samples=100,
)


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        rate: calls per second in the best window; `rates` has all windows.
        latency: of the best window.
        cpu: microseconds per call in the best window, by process group.
        others: cores that all other processes of the machine kept busy meanwhile.
        kinds: latency by kind of call, if there is more than one.
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
        """CPU microseconds per call of all groups; it hardly depends on other load of the machine."""
        return round(sum(self.cpu.values()), 1)

    @property
    def spread(self) -> float:
        """The range of the windows' rates relative to the best one."""
        return (max(self.rates) - min(self.rates)) / max(self.rates) if max(self.rates) else 0.0


@dataclass
class Result:
    """The result of a scenario.

    Attributes:
        figures: named numbers, for the targets and the report.
        checked: descriptions of the checks against the database.
        lines: further lines of the text report.
        tables: further tables of the text report: titles and rows of cells.
    """

    rows: list[Row] = field(default_factory=list)
    figures: dict[str, Any] = field(default_factory=dict)
    checked: list[str] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    tables: list[tuple[list[str], list[list[str]]]] = field(default_factory=list)


@dataclass
class Harness:
    """The environment of a scenario; `figures` has those of the previous scenarios, by scenario."""

    environment: Environment
    effort: Effort
    figures: dict[str, dict[str, Any]] = field(default_factory=dict)
    record_profile: Callable[[str], AbstractContextManager[None]] = lambda name: nullcontext()

    def run_workload(self, workload: Workload, connections: int, **options: Any) -> LoadResult:
        """Run a workload against both gateways.

        Args:
            options: fields of LoadSpec that differ from those of the effort.
        """
        settings = {
            "warmup": self.effort.warmup,
            "windows": self.effort.windows,
            "seconds": self.effort.seconds,
            **options,
        }
        load_result = run_in_subprocess(
            LoadSpec(
                workload,
                self.environment.addresses,
                connections,
                process_groups=self.environment.process_groups,
                **settings,
            )
        )
        require(not load_result.failures, "\n".join([*load_result.failures, *self.environment.recent_log_errors()]))
        return load_result


def make_row(scenario: str, variant: str, connections: int, windows: list[Window]) -> Row:
    """Create the row of a measurement from its windows."""
    best = max(windows, key=lambda window: window.rate)
    kinds = {kind: summarize_latencies(latencies) for kind, latencies in sorted(best.latencies.items())}
    all_latencies = [latency for latencies in best.latencies.values() for latency in latencies]
    return Row(
        scenario,
        variant,
        connections,
        round(best.rate, 1),
        [round(window.rate, 1) for window in windows],
        summarize_latencies(all_latencies),
        {group: round(used / max(1, best.calls) * 1e6, 1) for group, used in best.cpu.items() if group != OTHERS},
        round(best.cpu[OTHERS] / best.seconds, 2),
        kinds if len(kinds) > 1 else {},
    )
