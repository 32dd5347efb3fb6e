"""What is said of many latencies."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class LatencySummary:
    """Latencies in milliseconds."""

    count: int
    p50: float
    p95: float
    p99: float
    max: float


def summarize_latencies(latencies: Sequence[float]) -> LatencySummary:
    """The percentiles of latencies given in seconds; nearest rank, so each is one that was measured."""
    ordered = sorted(latencies)
    if not ordered:
        return LatencySummary(0, 0.0, 0.0, 0.0, 0.0)
    return LatencySummary(
        count=len(ordered),
        p50=_percentile_ms(ordered, 0.50),
        p95=_percentile_ms(ordered, 0.95),
        p99=_percentile_ms(ordered, 0.99),
        max=round(ordered[-1] * 1000, 3),
    )


def lower_median(values: Sequence[float]) -> float:
    """The middle value, the lower one of two; 0 for none."""
    return sorted(values)[(len(values) - 1) // 2] if values else 0.0


def _percentile_ms(ordered: Sequence[float], fraction: float) -> float:
    return round(ordered[min(len(ordered) - 1, int(len(ordered) * fraction))] * 1000, 3)
