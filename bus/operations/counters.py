"""Counting inside a process, cheaply enough for the path of every call: tallies and timings by label.

An entry costs a fifth of what the Prometheus client takes for it; that reads them only when somebody asks
(bus/operations/metrics.py). Where one thread alone counts, as the event loop of a gateway does, no lock is needed to count, and
whoever reads meanwhile may miss the latest; where several count, take those that are `Shared`.
"""

from bisect import bisect_left
from collections.abc import Sequence
from threading import Lock

Labels = tuple[str, ...]

# Seconds. From a hot verb to the longest wait.
DEFAULT_BUCKET_BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


class Counter:
    """Counts by label values, which come from a small set. One thread counts; any may read."""

    def __init__(self) -> None:
        self._counts: dict[Labels, int] = {}

    def increment(self, *labels: str) -> None:
        """Count one with these label values."""
        counts = self._counts
        if labels in counts:
            counts[labels] += 1
        else:
            # A new dictionary, so that whoever reads the old one is not disturbed.
            self._counts = {**counts, labels: 1}

    def snapshot(self) -> dict[Labels, int]:
        """The counts as they are now."""
        return dict(self._counts)


class SharedCounter(Counter):
    """A tally in which any thread may count."""

    def __init__(self) -> None:
        super().__init__()
        self._lock = Lock()

    def increment(self, *labels: str) -> None:
        with self._lock:
            super().increment(*labels)


class Histogram:
    """Histograms of durations by label values, which come from a small set. One thread adds; any may read.

    Args:
        bounds: upper bounds of the buckets, in seconds, rising.
    """

    def __init__(self, bounds: Sequence[float] = DEFAULT_BUCKET_BOUNDS) -> None:
        self.bounds = tuple(bounds)
        # The buckets, the last one for what is above all bounds, and then the sum.
        self._buckets: dict[Labels, list[float]] = {}

    def observe(self, seconds: float, *labels: str) -> None:
        """Note one duration."""
        found = self._buckets.get(labels)
        if found is None:
            found = [0] * (len(self.bounds) + 2)
            self._buckets = {**self._buckets, labels: found}
        found[bisect_left(self.bounds, seconds)] += 1
        found[-1] += seconds

    def snapshot(self) -> dict[Labels, tuple[list[int], float]]:
        """For each label values the counts of the buckets, the one above all bounds last, and the sum in seconds."""
        return {labels: ([int(count) for count in found[:-1]], found[-1]) for labels, found in self._buckets.items()}


class SharedHistogram(Histogram):
    """Timings to which any thread may add."""

    def __init__(self, bounds: Sequence[float] = DEFAULT_BUCKET_BOUNDS) -> None:
        super().__init__(bounds)
        self._lock = Lock()

    def observe(self, seconds: float, *labels: str) -> None:
        with self._lock:
            super().observe(seconds, *labels)

    def snapshot(self) -> dict[Labels, tuple[list[int], float]]:
        with self._lock:
            return super().snapshot()
