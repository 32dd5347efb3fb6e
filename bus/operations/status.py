"""How the service is: everything that its operator looks at first, in one read that costs little at any size.

Each part is bounded: counts are capped, lists have a limit, the ledger itself is not read. The rate of events comes
from samples of the project clocks, which every process that reports itself takes in turn.
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
from bus.errors import BusError
from bus.operations import jobs, process_registry
from bus.operations.process_registry import Process

MAX_UNREAD_COUNT = 10_000
# A job whose last run is older than so many of its own intervals is late.
LATE_AFTER_INTERVALS = 3
# A scrape that comes sooner is answered with what the one before found.
CACHE_TTL_SECONDS = 15.0
_SAMPLE_INTERVAL_SECONDS = 9.0
_MAX_TABLES = 60
_MAX_UNMETERED_PROJECTS = 500
_REDIS_TIMEOUT_SECONDS = 0.5
_MIN_LATE_SECONDS = 60.0
# Any constant that no other advisory lock of the bus has.
_SAMPLE_LOCK_KEY = 0x11B5_0003


@dataclass(frozen=True, slots=True)
class DatabaseStatus:
    """PostgreSQL, as it answers.

    Attributes:
        migration, expected: the schema that was found and the one that this code expects.
        seconds: a round trip.
    """

    server_version: str
    schema_version: str | None
    expected_schema_version: str
    round_trip_seconds: float

    @property
    def is_schema_current(self) -> bool:
        """Whether the schema is the one that this code expects."""
        return self.schema_version == self.expected_schema_version


@dataclass(frozen=True, slots=True)
class QueueStatus:
    """Redis, as it answers.

    Attributes:
        seconds: a round trip.
        depth: messages that say that a job is due and that no worker has taken yet.
    """

    round_trip_seconds: float
    depth: int


@dataclass(frozen=True, slots=True)
class TableSize:
    """A table with its indexes on disk; the rows are PostgreSQL's estimate."""

    name: str
    size_bytes: int
    rows: int


@dataclass(frozen=True, slots=True)
class LedgerGrowth:
    """How fast the ledgers of all projects grow together.

    Attributes:
        written: events that were ever written, as of the last sample; never falls.
        last_minute, last_hour: events in that time, from samples; None before there are two.
    """

    events_total: int
    events_last_minute: float | None
    events_last_hour: float | None


@dataclass(frozen=True, slots=True)
class JobStatus:
    """A job and its last run.

    Attributes:
        outcome: running, ok, failed or alarm; None where it never ran.
        age_seconds: since its last run began.
        every_seconds: its schedule, as a worker said it last; None where none ever did.
        is_late: nothing was heard of it for three times as long.
    """

    name: str
    last_outcome: str | None
    age_seconds: float | None
    interval_seconds: float | None
    is_late: bool


@dataclass(frozen=True, slots=True)
class ServiceDetails:
    """What PostgreSQL knows of the service.

    Attributes:
        processes: all that were seen within the last day; see `Process.is_gone`.
        tables: the largest first.
        metering: whether events are billed.
        unmetered_seconds: the age of the oldest event that is not billed yet; None while metering is off, and 0 where
            all are.
        unread: deliveries that nobody has acked; UNREAD_CAP means as many or more.
        waiting, streams: calls and streams that all gateways together hold open.
        heartbeat_seconds: since scheduler, queue and a worker last worked together; None where they never did.
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


@dataclass(frozen=True, slots=True)
class ServiceStatus:
    """How the service is at one moment.

    Attributes:
        postgres: None where it does not answer.
        has_redis: whether one is configured.
        queue: None where there is none, or it does not answer.
        contents: None where PostgreSQL does not answer, or its schema is older than this code.
    """

    database: DatabaseStatus | None
    has_redis: bool
    queue: QueueStatus | None
    details: ServiceDetails | None


class RedisProbe:
    """Asks Redis how it is, and never for long.

    Args:
        url: Redis, or None where there is none.
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
                # Whoever asks wants to know now; the next look asks again.
                retry=Retry(NoBackoff(), 0),
            )
        )

    def check_queue(self) -> QueueStatus | None:
        """The queue; None where it does not answer within half a second."""
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
    """How the service is. Never fails: what is away is None."""
    queue = probe.check_queue()
    try:
        with db.transaction() as conn:
            started = time.perf_counter()
            (version,) = conn.fetch_one("SHOW server_version")
            taken = time.perf_counter() - started
            found = schema_version.find_schema_version(conn.raw)
            postgres = DatabaseStatus(str(version), found, schema_version.EXPECTED_SCHEMA_VERSION, taken)
            contents = (
                get_details(conn) if found is not None and found >= schema_version.EXPECTED_SCHEMA_VERSION else None
            )
    except BusError:
        return ServiceStatus(None, probe.url is not None, queue, None)
    return ServiceStatus(postgres, probe.url is not None, queue, contents)


class CachedStatus:
    """The condition of the service for those who ask often: looked at anew only when it is too old.

    Args:
        seconds: how old an answer may be.
    """

    def __init__(self, db: Database, probe: RedisProbe, *, max_age_seconds: float = CACHE_TTL_SECONDS) -> None:
        self._db = db
        self._probe = probe
        self._max_age_seconds = max_age_seconds
        self._lock = Lock()
        self._cached: tuple[float, ServiceStatus] | None = None

    def get(self) -> ServiceStatus:
        """How the service is, or was a moment ago. Whoever asks while somebody looks waits for that look."""
        with self._lock:
            if self._cached is None or time.monotonic() - self._cached[0] >= self._max_age_seconds:
                self._cached = (time.monotonic(), get_status(self._db, self._probe))
            return self._cached[1]


def get_details(conn: Connection) -> ServiceDetails:
    """What PostgreSQL knows of the service. Call it inside a transaction, since it may take a sample."""
    record_sample(conn)
    found = process_registry.list_processes(conn, include_stale=True)
    here = [one for one in found if not one.is_stale]
    states = _list_job_statuses(conn, found)
    beats = next((one.age_seconds for one in states if one.name == "heartbeat"), None)
    (running,) = conn.fetch_one("SELECT coalesce((SELECT running FROM metering), false)")
    return ServiceDetails(
        processes=tuple(found),
        jobs=states,
        ledger_growth=_get_ledger_growth(conn),
        tables=_list_table_sizes(conn),
        metering_enabled=running,
        oldest_unmetered_seconds=_get_oldest_unmetered_seconds(conn) if running else None,
        unread_deliveries=_count_unread_deliveries(conn),
        waiting_calls=sum(int(one.metrics.get("waiting", 0)) for one in here),
        open_streams=sum(int(one.metrics.get("streams", 0)) for one in here),
        heartbeat_age_seconds=beats,
    )


def record_sample(conn: Connection) -> None:
    """Write down how far the ledgers are, if nobody did within the last seconds. Call it inside a transaction.

    Locks: an advisory one until the transaction ends, if this call is the one that samples; whoever comes meanwhile
        does nothing. The sample before is read under it, so that `written` never falls.
    """
    (fresh,) = conn.fetch_one(
        "SELECT coalesce(max(at) > clock_timestamp() - make_interval(secs => %s), false) FROM service_sample",
        (_SAMPLE_INTERVAL_SECONDS,),
    )
    if fresh or not conn.fetch_one("SELECT pg_try_advisory_xact_lock(%s)", (_SAMPLE_LOCK_KEY,))[0]:
        return
    # A purge takes a project's clock away: what was written stays written. Whoever had the lock before may have
    # sampled since this call looked.
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
        "WITH newest AS (SELECT at, written FROM service_sample ORDER BY at DESC LIMIT 1)"
        " SELECT n.written, s.seconds * (n.written - b.written)"
        "  / nullif(extract(epoch FROM n.at - b.at)::float8, 0)"
        " FROM newest n CROSS JOIN (VALUES (60), (3600)) AS s (seconds)"
        " LEFT JOIN LATERAL (SELECT * FROM ("
        "  (SELECT at, written FROM service_sample WHERE at <= n.at - make_interval(secs => s.seconds)"
        "   ORDER BY at DESC LIMIT 1)"
        "  UNION ALL (SELECT at, written FROM service_sample ORDER BY at LIMIT 1)) AS older LIMIT 1) AS b ON true"
        " ORDER BY s.seconds"
    )
    if not rows:
        return LedgerGrowth(0, None, None)
    (written, minute), (_, hour) = rows
    return LedgerGrowth(written, minute, hour)


def _list_table_sizes(conn: Connection) -> tuple[TableSize, ...]:
    rows = conn.fetch_all(
        "SELECT c.relname, pg_total_relation_size(c.oid),"
        " CASE WHEN coalesce(s.n_live_tup, 0) > 0 THEN s.n_live_tup ELSE greatest(c.reltuples, 0)::bigint END"
        " FROM pg_class c LEFT JOIN pg_stat_user_tables s ON s.relid = c.oid"
        " WHERE c.relnamespace = 'public'::regnamespace AND c.relkind = 'r'"
        " ORDER BY 2 DESC, 1 LIMIT %s",
        (_MAX_TABLES,),
    )
    return tuple(TableSize(*row) for row in rows)


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
    (count,) = conn.fetch_one(
        "SELECT count(*) FROM (SELECT FROM delivery WHERE acked_at IS NULL LIMIT %s) AS unread", (MAX_UNREAD_COUNT,)
    )
    return int(count)


def _list_job_statuses(conn: Connection, recent_processes: Sequence[Process]) -> tuple[JobStatus, ...]:
    """Every job that ever ran or that a worker has on its schedule, by name."""
    latest = {run.name: run for run in jobs.list_latest_runs(conn)}
    # What workers said last, also when none is left to say it; then what those that are there say.
    schedule = {one.name: one.period_seconds for one in jobs.list_definitions(conn)}
    up = 0.0
    for one in sorted(recent_processes, key=lambda one: one.seen_at):
        schedule.update(one.metrics.get("schedule", {}))
        up = max(up, one.uptime_seconds if one.kind == "worker" else 0.0)
    states = []
    for name in sorted(latest.keys() | schedule.keys()):
        run, every = latest.get(name), schedule.get(name)
        quiet = up if run is None else run.age_seconds
        is_late = every is not None and quiet > max(LATE_AFTER_INTERVALS * every, _MIN_LATE_SECONDS)
        states.append(
            JobStatus(
                name,
                None if run is None else run.outcome,
                None if run is None else run.age_seconds,
                every,
                is_late,
            )
        )
    return tuple(states)
