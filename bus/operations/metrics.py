"""What a process shows to Prometheus: a registry of its own, read by whoever has the token.

Names and labels are those of docs/observability; a test holds the dashboard and the alert rules to what is shown here.
Label values come from small sets that we know: tools, routes, jobs, outcomes, tables; never a name of somebody.
"""

import hmac
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from bus import __version__
from bus.db import Database
from bus.operations.counters import Counter, Histogram
from bus.operations.status import CachedStatus, ServiceDetails, ServiceStatus

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_BEARER_PREFIX = "bearer "
MetricSource = Callable[[], Iterable[Metric]]


class MetricsEndpoint:
    """What one process shows.

    Args:
        kind: of process, as in bus/operations/process_registry.py.
        token: what a reader must show as a bearer token; None shows nothing to anybody.
    """

    def __init__(self, process_kind: str, token: str | None) -> None:
        self._token = token
        self._sources: list[MetricSource] = []
        self._registry = CollectorRegistry(auto_describe=False)
        ProcessCollector(registry=self._registry)
        self._registry.register(_MergingCollector(self._sources))
        self.add_source(
            lambda: [
                gauge("build_info", "The version of this process.", {(process_kind, __version__): 1}, BUILD_INFO_LABELS)
            ]
        )

    def add_source(self, source: MetricSource) -> None:
        """Show what this yields whenever somebody reads. Any thread may call it."""
        self._sources.append(source)

    def authorize(self, authorization: str | None) -> int:
        """What a reader is answered: 200, 401 without the right token, and 404 where nothing is shown to anybody."""
        if self._token is None:
            return 404
        sent = authorization or ""
        shown = sent[len(_BEARER_PREFIX) :].strip() if sent[: len(_BEARER_PREFIX)].lower() == _BEARER_PREFIX else ""
        return 200 if hmac.compare_digest(shown.encode("utf-8", "replace"), self._token.encode()) else 401

    def render(self) -> bytes:
        """Everything, in the text format of Prometheus."""
        return generate_latest(self._registry)


BUILD_INFO_LABELS = ("kind", "version")


class _MergingCollector(Collector):
    """All parts, with what two of them show under one name in one place, as the format wants it."""

    def __init__(self, sources: Sequence[MetricSource]) -> None:
        self._sources = sources

    def collect(self) -> Iterable[Metric]:
        found: dict[str, Metric] = {}
        for collect in list(self._sources):
            for family in collect():
                if family.name in found:
                    found[family.name].samples.extend(family.samples)
                else:
                    found[family.name] = family
        return found.values()


MetricValue = int | float | bool
# By tuples of label values; a mapping is not generous about the length of its keys.
LabeledValues = Mapping[Any, MetricValue]


def gauge(name: str, description: str, values: MetricValue | LabeledValues, labels: Sequence[str] = ()) -> Metric:
    """What is the case at the moment: one number, or one for each of some label values."""
    family = GaugeMetricFamily(f"llm_bus_{name}", description, labels=labels)
    for found, value in values.items() if isinstance(values, Mapping) else [((), values)]:
        family.add_metric(found, float(value))
    return family


def counter(name: str, description: str, values: MetricValue | LabeledValues, labels: Sequence[str] = ()) -> Metric:
    """What only rises; its name ends in _total where it is read."""
    family = CounterMetricFamily(f"llm_bus_{name}", description, labels=labels)
    for found, value in values.items() if isinstance(values, Mapping) else [((), values)]:
        family.add_metric(found, float(value))
    return family


def histogram(name: str, description: str, durations: Histogram, labels: Sequence[str]) -> Metric:
    """Durations in seconds."""
    family = HistogramMetricFamily(f"llm_bus_{name}", description, labels=labels)
    edges = [*(str(bound) for bound in durations.bounds), "+Inf"]
    for found, (counts, total) in durations.snapshot().items():
        seen = 0
        buckets = []
        for edge, count in zip(edges, counts, strict=True):
            seen += count
            buckets.append((edge, float(seen)))
        family.add_metric(found, buckets, total)
    return family


def counter_metric(name: str, description: str, counts: Counter, labels: Sequence[str]) -> Metric:
    """The counts of a tally."""
    return counter(name, description, counts.snapshot(), labels)


def pool_metrics(db: Database, pool_name: str) -> Iterator[Metric]:
    """A pool of connections to PostgreSQL; `door` says whose, since one process may have two."""
    in_use, idle, most = db.pool_usage()
    states = {(pool_name, "in_use"): in_use, (pool_name, "idle"): idle}
    yield gauge("db_connections", "Connections of this process.", states, ("door", "state"))
    yield gauge("db_connections_max", "Connections that this process may hold.", {(pool_name,): most}, ("door",))
    yield counter(
        "db_pool_timeouts", "Times that no connection became free.", {(pool_name,): db.pool_timeouts}, ("door",)
    )


def service_metrics(cached_status: CachedStatus) -> Iterator[Metric]:
    """The service as a whole; shown by the web, since it is the same for all."""
    found = cached_status.get()
    yield from _backend_metrics(found)
    if found.details is not None:
        yield from _detail_metrics(found.details)


def _backend_metrics(status: ServiceStatus) -> Iterator[Metric]:
    yield gauge("postgres_up", "Whether PostgreSQL answers.", status.database is not None)
    if status.database is not None:
        yield gauge("postgres_round_trip_seconds", "A round trip to PostgreSQL.", status.database.round_trip_seconds)
        yield gauge("schema_current", "Whether the schema is the expected one.", status.database.is_schema_current)
    if status.has_redis:
        yield gauge("redis_up", "Whether Redis answers.", status.queue is not None)
    if status.queue is not None:
        yield gauge("redis_round_trip_seconds", "A round trip to Redis.", status.queue.round_trip_seconds)
        yield gauge("queue_depth", "Messages that no worker has taken yet.", status.queue.depth)


def _detail_metrics(details: ServiceDetails) -> Iterator[Metric]:
    yield counter("ledger_events", "Events written to all ledgers, as sampled.", details.ledger_growth.events_total)
    yield gauge(
        "unread_deliveries", "Handoffs that nobody has acked, counted up to a limit.", details.unread_deliveries
    )
    yield gauge("metering_running", "Whether events are billed.", details.metering_enabled)
    if details.oldest_unmetered_seconds is not None:
        yield gauge(
            "oldest_unmetered_seconds", "The age of the oldest unbilled event.", details.oldest_unmetered_seconds
        )
    yield gauge(
        "table_bytes",
        "A table with its indexes on disk.",
        {(table.name,): table.size_bytes for table in details.tables},
        ("table",),
    )
    yield gauge(
        "table_rows", "Rows of a table, estimated.", {(table.name,): table.rows for table in details.tables}, ("table",)
    )
    kinds = {one.kind for one in details.processes}
    for name, about, gone in (
        ("processes", "Processes that were seen within a minute.", False),
        ("processes_gone", "Processes that ended without a word within a day.", True),
    ):
        seen = {(kind,): sum(one.kind == kind and one.is_stale is gone for one in details.processes) for kind in kinds}
        yield gauge(name, about, seen, ("kind",))
    ran = [one for one in details.jobs if one.age_seconds is not None]
    yield gauge("job_late", "Whether a job is late.", {(one.name,): one.is_late for one in details.jobs}, ("job",))
    yield gauge(
        "job_last_run_age_seconds",
        "Since the last run of a job began.",
        {(one.name,): one.age_seconds or 0.0 for one in ran},
        ("job",),
    )
    yield gauge(
        "job_last_run_outcome",
        "1 for the outcome of the last run of a job.",
        {(one.name, one.last_outcome or ""): 1 for one in ran},
        ("job", "outcome"),
    )
