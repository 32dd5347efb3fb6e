"""The targets of the benchmark: ratios and limits, each computed within one run."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

BURST_SIZE = 500
_MAX_GROWTH = 1.10
# Milliseconds; whats_new returns 100 events.
_SOLO_LIMITS = {"claim": 1.2, "post": 1.4, "lease": 1.6, "whats_new": 1.5}
# Fewer windows are too short a time for a change of the rate.
_MIN_SOAK_WINDOWS = 10
Figures = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Target:
    """A target and its measured value.

    Attributes:
        at_most: whether the limit is an upper bound.
        detail: the numbers behind the value.
    """

    name: str
    at_most: bool
    limit: float
    value: float
    detail: str

    @property
    def reached(self) -> bool:
        """Whether the value is within the limit."""
        return self.value <= self.limit if self.at_most else self.value >= self.limit


def evaluate(figures: Figures) -> list[Target]:
    """Evaluate every target whose scenario was run.

    Args:
        figures: the figures of the scenarios that were run, by name.
    """
    return [
        *_claim_limit_targets(figures),
        *_burst_targets(figures),
        *_tail_latency_targets(figures),
        *_solo_targets(figures),
        *_growth_targets(figures),
        *_memory_targets(figures),
        *_protocol_era_targets(figures),
        *_push_targets(figures),
        *_fairness_targets(figures),
        *_page_targets(figures),
        *_board_targets(figures),
        *_commit_targets(figures),
        *_tool_hook_targets(figures),
    ]


def _claim_limit_targets(figures: Figures) -> list[Target]:
    targets = []
    for name, min_ratio in (("claim_spread", 0.60), ("mixed", 0.40)):
        limit = figures.get(name, {}).get("limit_modern")
        if limit is not None:
            rate, cost = figures[name]["rate"], figures[name]["cost_modern"]
            legacy_ratio = figures[name]["rate_legacy"] / figures[name]["limit_legacy"]["rate"]
            detail = (
                f"{rate:.0f} of {limit['rate']:.0f} per second; by CPU alone {limit['cost'] / cost:.2f}"
                f" ({limit['cost']:.0f} of {cost:.0f} us); legacy {legacy_ratio:.2f}"
            )
            targets.append(Target(f"{name} / claim limit", False, min_ratio, rate / limit["rate"], detail))
    return targets


def _burst_targets(figures: Figures) -> list[Target]:
    limit = figures.get("claim500", {}).get("limit_at once")
    if limit is None:
        return []
    ideal = BURST_SIZE / limit["rate"]
    best, median = figures["claim500"]["best_seconds"], figures["claim500"]["median_seconds"]
    detail = f"best {best * 1000:.0f} ms, median {median * 1000:.0f}; 500 / limit is {ideal * 1000:.0f}"
    return [
        Target("claim500 / (500 / claim limit)", True, 2.5, best / ideal, detail),
        Target("claim500: best round in s", True, 0.2, best, detail),
    ]


def _tail_latency_targets(figures: Figures) -> list[Target]:
    targets = []
    for name, variants in (
        ("claim_spread", ("modern", "legacy")),
        ("claim_hot", ("32",)),
        ("mixed", ("modern", "legacy")),
        ("read", ("modern", "legacy")),
    ):
        if name in figures:
            tails = {variant: figures[name][f"tail_{variant}"] for variant in variants}
            detail = ", ".join(f"{variant} {value}" for variant, value in tails.items())
            targets.append(Target(f"{name} p99 / p50 at 32", True, 2.5, max(tails.values()), detail))
    return targets


def _growth_targets(figures: Figures) -> list[Target]:
    if "growth" not in figures:
        return []
    growth = figures["growth"]
    ratios: dict[str, float] = growth["ratios"]
    worst = max(ratios, key=lambda tool: ratios[tool])
    over = sorted(tool for tool, ratio in ratios.items() if ratio > _MAX_GROWTH)
    detail = f"worst {worst}; over the limit: {', '.join(over) or 'none'}"
    name = f"growth: p50 at {growth['sizes'][-1]:,} events / at {growth['sizes'][0]:,}"
    return [Target(name, True, _MAX_GROWTH, ratios[worst], detail)]


def _page_targets(figures: Figures) -> list[Target]:
    if "pages" not in figures:
        return []
    pages = figures["pages"]
    detail = f"slowest {pages['slowest']}; over the limit: {', '.join(pages['over']) or 'none'}"
    return [
        Target("pages: p50 of the slowest, ms", True, 50.0, pages["slowest_ms"], detail),
        Target("pages: first load, KB", True, 120.0, pages["first_load"] / 1000, "the inbox and its assets"),
    ]


def _memory_targets(figures: Figures) -> list[Target]:
    if "soak" not in figures:
        return []
    soak = figures["soak"]
    detail = (
        f"{soak['calls']:,} calls; {soak['middle_mib']:.1f} MiB in the middle, {soak['end_mib']:.1f} at the end,"
        f" {soak['bare_mib']:.1f} for the imports alone"
    )
    # Memory is allocated in larger pieces than a call needs, so growth of one hundredth is tolerated.
    targets = [Target("gateway memory, end / middle", True, 1.01, soak["end_mib"] / soak["middle_mib"], detail)]
    if len(soak["rates"]) >= _MIN_SOAK_WINDOWS:
        rates, costs = soak["rates"], soak["costs"]
        rate_detail = f"{rates[0]:.0f} and {rates[-1]:.0f} per second; CPU {costs[0]:.0f} and {costs[-1]:.0f} us"
        name = f"mixed: last {soak['window_seconds']:.0f} s / first"
        targets.append(Target(name, False, 0.95, soak["last_to_first"], rate_detail))
    return targets


def _solo_targets(figures: Figures) -> list[Target]:
    return [
        Target(f"one agent alone: p50 of {tool} in ms", True, limit, figures["solo"][tool], "median window")
        for tool, limit in _SOLO_LIMITS.items()
        if "solo" in figures
    ]


def _protocol_era_targets(figures: Figures) -> list[Target]:
    targets = []
    for name in ("claim_spread", "mixed", "read"):
        if name in figures:
            modern, legacy = figures[name]["rate_modern"], figures[name]["rate_legacy"]
            difference = abs(modern - legacy) / max(modern, legacy)
            detail = f"modern {modern:.0f}, legacy {legacy:.0f} per second"
            targets.append(Target(f"{name}: eras apart", True, 0.15, difference, detail))
    return targets


def _push_targets(figures: Figures) -> list[Target]:
    if "push" not in figures:
        return []
    push = figures["push"]
    targets = []
    for variant, limit in (("idle", 200.0), ("without Redis", 2_500.0)):
        latency = push[variant]
        detail = f"p50 {latency['p50']:.1f} ms, max {latency['max']:.1f}, {latency['rounds']} rounds"
        targets.append(Target(f"push {variant}: p99 in ms", True, limit, latency["p99"], detail))
    detail = f"{push['streams']:,} streams"
    targets.append(Target("an open stream in KiB", True, 80.0, push["kib_each_stream"], detail))
    return targets


def _fairness_targets(figures: Figures) -> list[Target]:
    if "fair" not in figures:
        return []
    fair = figures["fair"]
    detail = (
        f"{fair['alone_p99']:.1f} ms alone, {fair['beside_p99']:.1f} beside; p50 {fair['alone_p50']:.1f} and"
        f" {fair['beside_p50']:.1f}"
    )
    project_detail = f"200 connections of eight tokens of another owner's project; p50 {fair['project_p50']:.1f} ms"
    return [
        Target("a quiet agent beside a noisy one: p99", True, 2.0, fair["beside_p99"] / fair["alone_p99"], detail),
        Target("a claim beside a noisy project: p99 in ms", True, 50.0, fair["project_p99"], project_detail),
    ]


def _board_targets(figures: Figures) -> list[Target]:
    if "boards" not in figures:
        return []
    boards = figures["boards"]
    detail = f"p50 {boards['late_p50']:.0f} ms, at most {boards['late_max']:.0f}"
    return [Target("a post on a live board: p99 in s", True, 2.0, boards["late_p99"] / 1000, detail)]


def _tool_hook_targets(figures: Figures) -> list[Target]:
    if "tool-hooks" not in figures:
        return []
    p95 = figures["tool-hooks"]["p95_ms"]
    detail = f"starting Python takes {p95['Python alone']:.0f} ms (p95)"
    kinds = ("no look", "a look")
    return [Target(f"hook after a tool, {kind}: p95 ms", True, 60.0, p95[kind], detail) for kind in kinds]


def _commit_targets(figures: Figures) -> list[Target]:
    if "commit" not in figures:
        return []
    commit = figures["commit"]
    detail = f"a commit without the hook takes {commit['base_ms']:.0f} ms"
    return [
        Target("commit with the bus away: added ms", True, 300.0, commit["away_ms"], detail),
        Target("commit with the bus there: added ms", True, 150.0, commit["there_ms"], detail),
    ]
