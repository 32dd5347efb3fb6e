"""Prometheus metrics of a process, in a registry of its own, readable with a token.

docs/observability documents names and labels; a test compares the dashboard and the alert rules with these metrics.
Label values come from small fixed sets: tools, routes, jobs, outcomes, tables; never the name of an owner, project or
participant.
"""

import hmac
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from pydantic import SecretStr

from bus import __version__
from bus.db import Database
from bus.operations.status import CachedStatus, ServiceDetails, ServiceStatus

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_BEARER_PREFIX = "bearer "
MetricSource = Callable[[], Iterable[Metric]]


class MetricsEndpoint:
    """The /metrics endpoint of one process.

    Args:
        process_kind: one of PROCESS_KINDS (bus/rules/enums.py).
        token: bearer token that readers must send; None disables the endpoint.
    """

    def __init__(self, process_kind: str, token: SecretStr | None) -> None:
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
        """Add metrics that are collected at each scrape. Any thread may call this."""
        self._sources.append(source)

    def authorize(self, authorization: str | None) -> int:
        """Return the HTTP status for a reader: 200, 401 without the right token, or 404 if the endpoint is disabled."""
        if self._token is None:
            return 404
        header = authorization or ""
        is_bearer = header[: len(_BEARER_PREFIX)].lower() == _BEARER_PREFIX
        token = header[len(_BEARER_PREFIX) :].strip() if is_bearer else ""
        expected = self._token.get_secret_value().encode()
        return 200 if hmac.compare_digest(token.encode("utf-8", "replace"), expected) else 401

    def render(self) -> bytes:
        """Return all metrics in the text format of Prometheus."""
        return generate_latest(self._registry)


BUILD_INFO_LABELS = ("kind", "version")


class _MergingCollector(Collector):
    """Collects all sources and merges families of the same name, as the text format requires."""

    def __init__(self, sources: Sequence[MetricSource]) -> None:
        self._sources = sources

    def collect(self) -> Iterable[Metric]:
        families: dict[str, Metric] = {}
        for source in list(self._sources):
            for family in source():
                if family.name in families:
                    families[family.name].samples.extend(family.samples)
                else:
                    families[family.name] = family
        return families.values()


MetricValue = int | float | bool
# Keys are tuples of label values. Mapping is invariant in its key, so tuples of a fixed length need Any.
LabeledValues = Mapping[Any, MetricValue]


def gauge(name: str, description: str, values: MetricValue | LabeledValues, labels: Sequence[str] = ()) -> Metric:
    """Build a gauge: one value, or one for each tuple of label values."""
    family = GaugeMetricFamily(f"llm_bus_{name}", description, labels=labels)
    for label_values, value in values.items() if isinstance(values, Mapping) else [((), values)]:
        family.add_metric(label_values, float(value))
    return family


def counter(name: str, description: str, values: MetricValue | LabeledValues, labels: Sequence[str] = ()) -> Metric:
    """Build a counter: one value, or one for each tuple of label values. Its exposed name ends in _total."""
    family = CounterMetricFamily(f"llm_bus_{name}", description, labels=labels)
    for label_values, value in values.items() if isinstance(values, Mapping) else [((), values)]:
        family.add_metric(label_values, float(value))
    return family


def pool_metrics(db: Database, pool_name: str) -> Iterator[Metric]:
    """Yield the metrics of a connection pool; the label `door` names its user, since one process may have two."""
    in_use, idle, maximum = db.pool_usage()
    states = {(pool_name, "in_use"): in_use, (pool_name, "idle"): idle}
    yield gauge("db_connections", "Connections of this process.", states, ("door", "state"))
    yield gauge("db_connections_max", "Connections that this process may hold.", {(pool_name,): maximum}, ("door",))
    yield counter(
        "db_pool_timeouts", "Times that no connection became free.", {(pool_name,): db.pool_timeouts}, ("door",)
    )


def service_metrics(cached_status: CachedStatus) -> Iterator[Metric]:
    """Yield the metrics of the whole service, which only the web exposes."""
    status = cached_status.get()
    yield from _backend_metrics(status)
    if status.details is not None:
        yield from _detail_metrics(status.details)


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
    yield gauge("unread_deliveries", "Unacknowledged deliveries, counted up to a limit.", details.unread_deliveries)
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
    kinds = {process.kind for process in details.processes}
    live, gone = (
        {(kind,): sum(each.kind == kind and each.is_stale is is_stale for each in details.processes) for kind in kinds}
        for is_stale in (False, True)
    )
    yield gauge("processes", "Processes that were seen within a minute.", live, ("kind",))
    yield gauge("processes_gone", "Processes that stopped without signing off within a day.", gone, ("kind",))
    ran = [job for job in details.jobs if job.age_seconds is not None]
    yield gauge("job_late", "Whether a job is late.", {(job.name,): job.is_late for job in details.jobs}, ("job",))
    yield gauge(
        "job_last_run_age_seconds",
        "Seconds since the last run of a job began.",
        {(job.name,): job.age_seconds or 0.0 for job in ran},
        ("job",),
    )
    yield gauge(
        "job_last_run_outcome",
        "1 for the outcome of the last run of a job.",
        {(job.name, job.last_outcome or ""): 1 for job in ran},
        ("job", "outcome"),
    )
