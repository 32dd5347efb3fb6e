"""In-process counters and histograms."""

import threading

import pytest

from bus.operations.counters import SharedCounter, SharedHistogram


def test_shared_counters_and_histograms_lose_no_update() -> None:
    counter, histogram = SharedCounter(), SharedHistogram((0.1, 1.0))

    def update() -> None:
        for _ in range(2000):
            counter.increment("a")
            counter.increment("b", "c")
            for seconds in (0.1, 0.5, 3.0):
                histogram.observe(seconds, "a")

    threads = [threading.Thread(target=update) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counter.snapshot() == {("a",): 8000, ("b", "c"): 8000}
    ((labels, (buckets, total_seconds)),) = histogram.snapshot().items()
    # A bound belongs to its bucket.
    assert (labels, buckets) == (("a",), [8000, 8000, 8000])
    assert total_seconds == pytest.approx(8000 * 3.6)
