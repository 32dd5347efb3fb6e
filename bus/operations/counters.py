"""In-process counters and histograms by label, cheap enough for the path of every call.

An update costs a fifth of one in the Prometheus client, which reads these only when it is scraped
(bus/operations/metrics.py). `Counter` and `Histogram` need no lock, since only one thread updates them, such as the
event loop of a gateway; a concurrent reader may miss the latest updates. Several threads update the `Shared` classes.
"""

from bisect import bisect_left
from collections.abc import Sequence
from threading import Lock

Labels = tuple[str, ...]

# Seconds: from a fast tool call to the longest long poll.
DEFAULT_BUCKET_BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


class Counter:
    """Counts by label values, which come from a small set. One thread updates; any thread may read."""

    def __init__(self) -> None:
        self._counts: dict[Labels, int] = {}

    def increment(self, *labels: str) -> None:
        """Add one to the count of these label values."""
        counts = self._counts
        if labels in counts:
            counts[labels] += 1
        else:
            # A new dictionary, so that a concurrent reader never iterates over a dictionary that grows.
            self._counts = {**counts, labels: 1}

    def snapshot(self) -> dict[Labels, int]:
        """Return a copy of the counts."""
        return dict(self._counts)


class SharedCounter(Counter):
    """A counter that any thread may update."""

    def __init__(self) -> None:
        super().__init__()
        self._lock = Lock()

    def increment(self, *labels: str) -> None:
        """Add one to the count of these label values."""
        with self._lock:
            super().increment(*labels)


class Histogram:
    """Histograms of durations by label values, which come from a small set. One thread updates; any thread may read.

    Args:
        bounds: upper bounds of the buckets in seconds, ascending.
    """

    def __init__(self, bounds: Sequence[float] = DEFAULT_BUCKET_BOUNDS) -> None:
        self.bounds = tuple(bounds)
        # The bucket counts, last the one above all bounds, followed by the sum in seconds.
        self._buckets: dict[Labels, list[float]] = {}

    def observe(self, seconds: float, *labels: str) -> None:
        """Add one duration."""
        buckets = self._buckets.get(labels)
        if buckets is None:
            buckets = [0] * (len(self.bounds) + 2)
            self._buckets = {**self._buckets, labels: buckets}
        buckets[bisect_left(self.bounds, seconds)] += 1
        buckets[-1] += seconds

    def snapshot(self) -> dict[Labels, tuple[list[int], float]]:
        """Return by label values the bucket counts, last the one above all bounds, and the sum in seconds."""
        return {
            labels: ([int(count) for count in buckets[:-1]], buckets[-1]) for labels, buckets in self._buckets.items()
        }


class SharedHistogram(Histogram):
    """A histogram that any thread may update."""

    def __init__(self, bounds: Sequence[float] = DEFAULT_BUCKET_BOUNDS) -> None:
        super().__init__(bounds)
        self._lock = Lock()

    def observe(self, seconds: float, *labels: str) -> None:
        """Add one duration."""
        with self._lock:
            super().observe(seconds, *labels)

    def snapshot(self) -> dict[Labels, tuple[list[int], float]]:
        """Return by label values the bucket counts, last the one above all bounds, and the sum in seconds."""
        with self._lock:
            return super().snapshot()
