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
from bus.operations.counters import Tally, Timings
from bus.operations.status import Condition, Contents, Watch

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_SCHEME = "bearer "
Collect = Callable[[], Iterable[Metric]]


class Metrics:
    """What one process shows.

    Args:
        kind: of process, as in bus/operations/process_registry.py.
        token: what a reader must show as a bearer token; None shows nothing to anybody.
    """

    def __init__(self, kind: str, token: str | None) -> None:
        self._token = token
        self._parts: list[Collect] = []
        self._registry = CollectorRegistry(auto_describe=False)
        ProcessCollector(registry=self._registry)
        self._registry.register(_Together(self._parts))
        self.add(lambda: [gauge("build_info", "The version of this process.", {(kind, __version__): 1}, KIND_VERSION)])

    def add(self, collect: Collect) -> None:
        """Show what this yields whenever somebody reads. Any thread may call it."""
        self._parts.append(collect)

    def status(self, authorization: str | None) -> int:
        """What a reader is answered: 200, 401 without the right token, and 404 where nothing is shown to anybody."""
        if self._token is None:
            return 404
        sent = authorization or ""
        shown = sent[len(_SCHEME) :].strip() if sent[: len(_SCHEME)].lower() == _SCHEME else ""
        return 200 if hmac.compare_digest(shown.encode("utf-8", "replace"), self._token.encode()) else 401

    def text(self) -> bytes:
        """Everything, in the text format of Prometheus."""
        return generate_latest(self._registry)


KIND_VERSION = ("kind", "version")


class _Together(Collector):
    """All parts, with what two of them show under one name in one place, as the format wants it."""

    def __init__(self, parts: Sequence[Collect]) -> None:
        self._parts = parts

    def collect(self) -> Iterable[Metric]:
        found: dict[str, Metric] = {}
        for collect in list(self._parts):
            for family in collect():
                if family.name in found:
                    found[family.name].samples.extend(family.samples)
                else:
                    found[family.name] = family
        return found.values()


Value = int | float | bool
# By tuples of label values; a mapping is not generous about the length of its keys.
Values = Mapping[Any, Value]


def gauge(name: str, about: str, values: Value | Values, labels: Sequence[str] = ()) -> Metric:
    """What is the case at the moment: one number, or one for each of some label values."""
    family = GaugeMetricFamily(f"llm_bus_{name}", about, labels=labels)
    for found, value in values.items() if isinstance(values, Mapping) else [((), values)]:
        family.add_metric(found, float(value))
    return family


def counter(name: str, about: str, values: Value | Values, labels: Sequence[str] = ()) -> Metric:
    """What only rises; its name ends in _total where it is read."""
    family = CounterMetricFamily(f"llm_bus_{name}", about, labels=labels)
    for found, value in values.items() if isinstance(values, Mapping) else [((), values)]:
        family.add_metric(found, float(value))
    return family


def histogram(name: str, about: str, timings: Timings, labels: Sequence[str]) -> Metric:
    """Durations in seconds."""
    family = HistogramMetricFamily(f"llm_bus_{name}", about, labels=labels)
    edges = [*(str(bound) for bound in timings.bounds), "+Inf"]
    for found, (counts, total) in timings.read().items():
        seen = 0
        buckets = []
        for edge, count in zip(edges, counts, strict=True):
            seen += count
            buckets.append((edge, float(seen)))
        family.add_metric(found, buckets, total)
    return family


def of_tally(name: str, about: str, tally: Tally, labels: Sequence[str]) -> Metric:
    """The counts of a tally."""
    return counter(name, about, tally.read(), labels)


def pool(db: Database, door: str) -> Iterator[Metric]:
    """A pool of connections to PostgreSQL; `door` says whose, since one process may have two."""
    in_use, idle, most = db.usage()
    states = {(door, "in_use"): in_use, (door, "idle"): idle}
    yield gauge("db_connections", "Connections of this process.", states, ("door", "state"))
    yield gauge("db_connections_max", "Connections that this process may hold.", {(door,): most}, ("door",))
    yield counter("db_pool_timeouts", "Times that no connection became free.", {(door,): db.exhausted}, ("door",))


def service(watch: Watch) -> Iterator[Metric]:
    """The service as a whole; shown by the web, since it is the same for all."""
    found = watch.look()
    yield from _servers(found)
    if found.contents is not None:
        yield from _contents(found.contents)


def _servers(found: Condition) -> Iterator[Metric]:
    yield gauge("postgres_up", "Whether PostgreSQL answers.", found.postgres is not None)
    if found.postgres is not None:
        yield gauge("postgres_round_trip_seconds", "A round trip to PostgreSQL.", found.postgres.seconds)
        yield gauge("schema_current", "Whether the schema is the expected one.", found.postgres.is_migrated)
    if found.has_redis:
        yield gauge("redis_up", "Whether Redis answers.", found.queue is not None)
    if found.queue is not None:
        yield gauge("redis_round_trip_seconds", "A round trip to Redis.", found.queue.seconds)
        yield gauge("queue_depth", "Messages that no worker has taken yet.", found.queue.depth)


def _contents(found: Contents) -> Iterator[Metric]:
    yield counter("ledger_events", "Events written to all ledgers, as sampled.", found.growth.written)
    yield gauge("unread_deliveries", "Handoffs that nobody has acked, counted up to a limit.", found.unread)
    yield gauge("metering_running", "Whether events are billed.", found.metering)
    if found.unmetered_seconds is not None:
        yield gauge("oldest_unmetered_seconds", "The age of the oldest unbilled event.", found.unmetered_seconds)
    yield gauge(
        "table_bytes",
        "A table with its indexes on disk.",
        {(table.name,): table.size_bytes for table in found.tables},
        ("table",),
    )
    yield gauge(
        "table_rows", "Rows of a table, estimated.", {(table.name,): table.rows for table in found.tables}, ("table",)
    )
    kinds = {one.kind for one in found.processes}
    for name, about, gone in (
        ("processes", "Processes that were seen within a minute.", False),
        ("processes_gone", "Processes that ended without a word within a day.", True),
    ):
        seen = {(kind,): sum(one.kind == kind and one.is_gone is gone for one in found.processes) for kind in kinds}
        yield gauge(name, about, seen, ("kind",))
    ran = [one for one in found.jobs if one.age_seconds is not None]
    yield gauge("job_late", "Whether a job is late.", {(one.name,): one.is_late for one in found.jobs}, ("job",))
    yield gauge(
        "job_last_run_age_seconds",
        "Since the last run of a job began.",
        {(one.name,): one.age_seconds or 0.0 for one in ran},
        ("job",),
    )
    yield gauge(
        "job_last_run_outcome",
        "1 for the outcome of the last run of a job.",
        {(one.name, one.outcome or ""): 1 for one in ran},
        ("job", "outcome"),
    )
