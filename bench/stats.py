"""Summaries of latencies."""

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
    """Return the percentiles of latencies in seconds, by nearest rank, so that each is a measured value."""
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
    """Return the median, or the lower of two middle values; 0 for no values."""
    return sorted(values)[(len(values) - 1) // 2] if values else 0.0


def _percentile_ms(ordered: Sequence[float], fraction: float) -> float:
    return round(ordered[min(len(ordered) - 1, int(len(ordered) * fraction))] * 1000, 3)
