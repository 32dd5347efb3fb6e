"""Service status for the operator overview, read in bounded queries.

Counts are capped, lists have a limit, and no ledger is read. The rate of events comes from periodic samples of the
project clocks, which the processes take in turn with their heartbeats.
Source: docs/decisions/0022-observability.md
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from threading import Lock

from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from bus.db import Connection, Database, schema_version
from bus.db.capped_count import capped_count
from bus.errors import BusError
from bus.notifications import circuit_breaker
from bus.notifications.circuit_breaker import OpenBreaker
from bus.operations import jobs, process_registry
from bus.operations.process_registry import Process

MAX_UNREAD_COUNT = 10_000
# A job is late if its last run is older than this many of its intervals.
LATE_AFTER_INTERVALS = 3
# More frequent readers get the cached status.
CACHE_TTL_SECONDS = 15.0
_SAMPLE_INTERVAL_SECONDS = 9.0
_MAX_TABLES = 60
_MAX_UNMETERED_PROJECTS = 500
_REDIS_TIMEOUT_SECONDS = 0.5
_MIN_LATE_SECONDS = 60.0
# Any constant that no other advisory lock uses.
_SAMPLE_LOCK_KEY = 0x11B5_0003


@dataclass(frozen=True, slots=True)
class DatabaseStatus:
    """Status of PostgreSQL.

    Attributes:
        schema_version: migration revision of the database; None without a schema.
        expected_schema_version: revision that this code expects.
    """

    server_version: str
    schema_version: str | None
    expected_schema_version: str
    round_trip_seconds: float

    @property
    def is_schema_current(self) -> bool:
        """Whether the database has the schema that this code expects."""
        return self.schema_version == self.expected_schema_version


@dataclass(frozen=True, slots=True)
class QueueStatus:
    """Status of Redis and of the job queue.

    Attributes:
        depth: number of queued messages that no worker has taken yet.
    """

    round_trip_seconds: float
    depth: int


@dataclass(frozen=True, slots=True)
class TableSize:
    """Size of a table on disk with its indexes; `rows` is PostgreSQL's estimate."""

    name: str
    size_bytes: int
    rows: int


@dataclass(frozen=True, slots=True)
class LedgerGrowth:
    """Growth of all ledgers together.

    Attributes:
        events_total: events ever written, as of the last sample; never decreases.
        events_last_minute, events_last_hour: estimated from samples; None before there are two. At most `events_total`.
    """

    events_total: int
    events_last_minute: float | None
    events_last_hour: float | None


@dataclass(frozen=True, slots=True)
class JobStatus:
    """A job and its last run.

    Attributes:
        last_outcome: running, ok, failed or alarm; None if it never ran.
        age_seconds: since its last run began; None if it never ran.
        interval_seconds: its schedule as last stored by a worker; None if none ever did.
        is_late: the last run is more than LATE_AFTER_INTERVALS intervals ago.
    """

    name: str
    last_outcome: str | None
    age_seconds: float | None
    interval_seconds: float | None
    is_late: bool


@dataclass(frozen=True, slots=True)
class ServiceDetails:
    """The part of the service status that PostgreSQL stores.

    Attributes:
        processes: processes seen within the last day, including stale ones (`Process.is_stale`).
        jobs: by name.
        tables: largest first.
        metering_enabled: whether events are billed.
        oldest_unmetered_seconds: age of the oldest unbilled event; None while metering is off, 0 if all are billed.
        unread_deliveries: unacknowledged deliveries, capped at MAX_UNREAD_COUNT.
        waiting_calls, open_streams: long polls and streams that all gateways hold open.
        heartbeat_age_seconds: since the last run of the job `heartbeat`, which proves that scheduler, queue and worker
            work together; None if it never ran.
        open_breakers: destinations of webhooks and mail that do not answer, at most 20.
    """

    processes: tuple[Process, ...]
    jobs: tuple[JobStatus, ...]
    ledger_growth: LedgerGrowth
    tables: tuple[TableSize, ...]
    metering_enabled: bool
    oldest_unmetered_seconds: float | None
    unread_deliveries: int
    waiting_calls: int
    open_streams: int
    heartbeat_age_seconds: float | None
    open_breakers: tuple[OpenBreaker, ...] = ()


@dataclass(frozen=True, slots=True)
class ServiceStatus:
    """Status of the service at one moment.

    Attributes:
        database: None if PostgreSQL does not answer.
        has_redis: whether Redis is configured.
        queue: None if Redis is not configured or does not answer.
        details: None if PostgreSQL does not answer or its schema is older than this code.
    """

    database: DatabaseStatus | None
    has_redis: bool
    queue: QueueStatus | None
    details: ServiceDetails | None


class RedisProbe:
    """Checks Redis with a short timeout.

    Args:
        url: URL of Redis; None if it is not configured.
    """

    def __init__(self, url: str | None) -> None:
        self.url = url
        self._client = (
            None
            if url is None
            else Redis.from_url(
                url,
                socket_connect_timeout=_REDIS_TIMEOUT_SECONDS,
                socket_timeout=_REDIS_TIMEOUT_SECONDS,
                # The caller needs the answer now; the next check tries again.
                retry=Retry(NoBackoff(), 0),
            )
        )

    def check_queue(self) -> QueueStatus | None:
        """Return the status of the queue; None if Redis does not answer within half a second."""
        if self._client is None:
            return None
        started = time.perf_counter()
        try:
            depth = self._client.llen(jobs.QUEUE_NAME)
        except (RedisError, OSError):
            return None
        return QueueStatus(time.perf_counter() - started, int(depth))

    def close(self) -> None:
        """Close the connection."""
        if self._client is not None:
            self._client.close()


def get_status(db: Database, probe: RedisProbe) -> ServiceStatus:
    """Return the status of the service. Never raises for unavailable backends: their parts are None."""
    queue = probe.check_queue()
    try:
        with db.transaction() as conn:
            started = time.perf_counter()
            (version,) = conn.fetch_one("SHOW server_version")
            round_trip_seconds = time.perf_counter() - started
            found_version = schema_version.find_schema_version(conn.raw)
            database = DatabaseStatus(
                server_version=str(version),
                schema_version=found_version,
                expected_schema_version=schema_version.EXPECTED_SCHEMA_VERSION,
                round_trip_seconds=round_trip_seconds,
            )
            has_tables = found_version is not None and found_version >= schema_version.EXPECTED_SCHEMA_VERSION
            details = get_details(conn) if has_tables else None
    except BusError:
        return ServiceStatus(database=None, has_redis=probe.url is not None, queue=queue, details=None)
    return ServiceStatus(database=database, has_redis=probe.url is not None, queue=queue, details=details)


class CachedStatus:
    """Service status for frequent readers, refreshed only when it is too old.

    Args:
        max_age_seconds: maximum age of a returned status.
    """

    def __init__(self, db: Database, probe: RedisProbe, *, max_age_seconds: float = CACHE_TTL_SECONDS) -> None:
        self._db = db
        self._probe = probe
        self._max_age_seconds = max_age_seconds
        self._lock = Lock()
        self._cached: tuple[float, ServiceStatus] | None = None

    def get(self) -> ServiceStatus:
        """Return a status that is recent enough. Concurrent callers share one refresh."""
        with self._lock:
            if self._cached is None or time.monotonic() - self._cached[0] >= self._max_age_seconds:
                self._cached = (time.monotonic(), get_status(self._db, self._probe))
            return self._cached[1]


def get_details(conn: Connection) -> ServiceDetails:
    """Return the details from PostgreSQL; call it inside a transaction, since it may record a sample."""
    record_sample(conn)
    processes = process_registry.list_processes(conn, include_stale=True)
    live = [process for process in processes if not process.is_stale]
    job_statuses = _list_job_statuses(conn, processes)
    (metering_enabled,) = conn.fetch_one("SELECT coalesce((SELECT running FROM metering), false)")
    return ServiceDetails(
        processes=tuple(processes),
        jobs=job_statuses,
        ledger_growth=_get_ledger_growth(conn),
        tables=_list_table_sizes(conn),
        metering_enabled=metering_enabled,
        oldest_unmetered_seconds=_get_oldest_unmetered_seconds(conn) if metering_enabled else None,
        unread_deliveries=_count_unread_deliveries(conn),
        waiting_calls=sum(int(process.metrics.get("waiting", 0)) for process in live),
        open_streams=sum(int(process.metrics.get("streams", 0)) for process in live),
        heartbeat_age_seconds=next((job.age_seconds for job in job_statuses if job.name == "heartbeat"), None),
        open_breakers=tuple(circuit_breaker.list_open_breakers(conn)),
    )


def record_sample(conn: Connection) -> None:
    """Record the total length of the ledgers unless the last sample is recent; call it inside a transaction.

    Locks: an advisory lock until the transaction ends, in the caller that samples; concurrent callers do nothing. The
        previous sample is read under the lock, so that `written` never decreases.
    """
    (is_recent,) = conn.fetch_one(
        "SELECT coalesce(max(at) > clock_timestamp() - make_interval(secs => %s), false) FROM service_sample",
        (_SAMPLE_INTERVAL_SECONDS,),
    )
    if is_recent or not conn.fetch_one("SELECT pg_try_advisory_xact_lock(%s)", (_SAMPLE_LOCK_KEY,))[0]:
        return
    # A purge deletes a project's clock, so `standing` may decrease while `written` does not. The WHERE clause checks
    # the age again, since the previous holder of the lock may have recorded a sample in between.
    conn.execute(
        "INSERT INTO service_sample (standing, written)"
        " SELECT now.standing, coalesce(before.written + greatest(now.standing - before.standing, 0), now.standing)"
        " FROM (SELECT coalesce(sum(last_seq), 0)::bigint AS standing FROM project_clock) AS now"
        " LEFT JOIN LATERAL (SELECT * FROM service_sample ORDER BY at DESC LIMIT 1) AS before ON true"
        " WHERE before.at IS NULL OR before.at <= clock_timestamp() - make_interval(secs => %s)",
        (_SAMPLE_INTERVAL_SECONDS,),
    )


def _get_ledger_growth(conn: Connection) -> LedgerGrowth:
    rows = conn.fetch_all(
        # For 60 and 3600 seconds: the growth since the newest sample that is at least as old, else since the oldest.
        # The growth of a shorter time is not scaled up: a burst within a minute is not a rate per hour.
        "WITH newest AS (SELECT at, written FROM service_sample ORDER BY at DESC LIMIT 1)"
        " SELECT n.written, CASE WHEN b.at < n.at THEN (n.written - b.written)"
        "  * least(1, s.seconds / extract(epoch FROM n.at - b.at)::float8) END"
        " FROM newest n CROSS JOIN (VALUES (60), (3600)) AS s (seconds)"
        " LEFT JOIN LATERAL (SELECT * FROM ("
        "  (SELECT at, written FROM service_sample WHERE at <= n.at - make_interval(secs => s.seconds)"
        "   ORDER BY at DESC LIMIT 1)"
        "  UNION ALL (SELECT at, written FROM service_sample ORDER BY at LIMIT 1)) AS older LIMIT 1) AS b ON true"
        " ORDER BY s.seconds"
    )
    if not rows:
        return LedgerGrowth(events_total=0, events_last_minute=None, events_last_hour=None)
    (total, last_minute), (_, last_hour) = rows
    return LedgerGrowth(events_total=total, events_last_minute=last_minute, events_last_hour=last_hour)


def _list_table_sizes(conn: Connection) -> tuple[TableSize, ...]:
    sizes = conn.fetch_all_as(
        TableSize,
        "SELECT c.relname AS name, pg_total_relation_size(c.oid) AS size_bytes,"
        " CASE WHEN coalesce(s.n_live_tup, 0) > 0 THEN s.n_live_tup ELSE greatest(c.reltuples, 0)::bigint END AS rows"
        " FROM pg_class c LEFT JOIN pg_stat_user_tables s ON s.relid = c.oid"
        " WHERE c.relnamespace = 'public'::regnamespace AND c.relkind = 'r'"
        " ORDER BY 2 DESC, 1 LIMIT %s",
        (_MAX_TABLES,),
    )
    return tuple(sizes)


def _get_oldest_unmetered_seconds(conn: Connection) -> float:
    (age,) = conn.fetch_one(
        "SELECT coalesce(extract(epoch FROM clock_timestamp() - min(e.at))::float8, 0) FROM ("
        "  SELECT c.project_id, coalesce(m.metered_seq, 0) AS seq FROM project_clock c"
        "  LEFT JOIN meter_mark m ON m.project_id = c.project_id"
        "  WHERE c.last_seq > coalesce(m.metered_seq, 0) LIMIT %s) AS behind"
        " JOIN event e ON e.project_id = behind.project_id AND e.seq = behind.seq + 1",
        (_MAX_UNMETERED_PROJECTS,),
    )
    return float(age)


def _count_unread_deliveries(conn: Connection) -> int:
    (count,) = conn.fetch_one(f"SELECT {capped_count('FROM delivery d WHERE d.acked_at IS NULL', MAX_UNREAD_COUNT)}")
    return int(count)


def _list_job_statuses(conn: Connection, recent_processes: Sequence[Process]) -> tuple[JobStatus, ...]:
    """Return every job that ever ran or that a worker schedules, by name."""
    latest_runs = {run.name: run for run in jobs.list_latest_runs(conn)}
    # The stored definitions, overridden by the schedules in the heartbeats of the workers, the latest heartbeat last.
    intervals = {definition.name: definition.period_seconds for definition in jobs.list_definitions(conn)}
    longest_worker_uptime = 0.0
    for process in sorted(recent_processes, key=lambda process: process.seen_at):
        intervals.update(process.metrics.get("schedule", {}))
        if process.kind == "worker":
            longest_worker_uptime = max(longest_worker_uptime, process.uptime_seconds)
    statuses = []
    for name in sorted(latest_runs.keys() | intervals.keys()):
        run, interval = latest_runs.get(name), intervals.get(name)
        seconds_without_run = longest_worker_uptime if run is None else run.age_seconds
        is_late = interval is not None and seconds_without_run > max(LATE_AFTER_INTERVALS * interval, _MIN_LATE_SECONDS)
        statuses.append(
            JobStatus(
                name=name,
                last_outcome=None if run is None else run.outcome,
                age_seconds=None if run is None else run.age_seconds,
                interval_seconds=interval,
                is_late=is_late,
            )
        )
    return tuple(statuses)
