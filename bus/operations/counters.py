"""Counters and histograms of one process, in the client library of Prometheus.

They are in no registry of the library: a process may have two gateways or none, and its endpoint
(bus/operations/metrics.py) collects those that it serves. Any thread may update them.
"""

import prometheus_client
from prometheus_client import Counter as Counter
from prometheus_client import Histogram

# Seconds: from a fast tool call to the longest long poll.
DURATION_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)

# A second sample with the time of creation for each counter; nothing here reads it.
prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]


def make_counter(name: str, description: str, labels: tuple[str, ...]) -> Counter:
    """Create a counter, whose exposed name is llm_bus_{name}_total."""
    return Counter(f"llm_bus_{name}", description, labels, registry=None)


def make_histogram(name: str, description: str, labels: tuple[str, ...]) -> Histogram:
    """Create a histogram of durations in seconds, whose exposed name is llm_bus_{name}."""
    return Histogram(f"llm_bus_{name}", description, labels, buckets=DURATION_BUCKETS, registry=None)


def read_counts(counter: Counter) -> dict[tuple[str, ...], int]:
    """Return the counts of a counter by label values."""
    (metric,) = counter.collect()
    return {tuple(sample.labels.values()): int(sample.value) for sample in metric.samples}
