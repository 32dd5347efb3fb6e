"""What is said of many latencies."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Summary:
    """Latencies in milliseconds."""

    count: int
    p50: float
    p95: float
    p99: float
    max: float


def summarise(seconds: Sequence[float]) -> Summary:
    """The percentiles of latencies given in seconds; nearest rank, so each is one that was measured."""
    ordered = sorted(seconds)
    if not ordered:
        return Summary(0, 0.0, 0.0, 0.0, 0.0)
    return Summary(
        count=len(ordered),
        p50=_milliseconds(ordered, 0.50),
        p95=_milliseconds(ordered, 0.95),
        p99=_milliseconds(ordered, 0.99),
        max=round(ordered[-1] * 1000, 3),
    )


def median(values: Sequence[float]) -> float:
    """The middle value, the lower one of two; 0 for none."""
    return sorted(values)[(len(values) - 1) // 2] if values else 0.0


def _milliseconds(ordered: Sequence[float], rank: float) -> float:
    return round(ordered[min(len(ordered) - 1, int(len(ordered) * rank))] * 1000, 3)
