"""Jobs: their definitions, runs and requested runs, for the operator console and the command line."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from psycopg.types.json import Jsonb

from bus.db import Connection
from bus.errors import InvalidArgument, NotFound
from bus.operations.tables import JOB_OUTCOMES
from bus.rules import validation
from bus.tenancy import audit

# Redis list of the messages that a job is due.
QUEUE_NAME = "llm-bus"
_MAX_ERROR_LENGTH = 2000


@dataclass(frozen=True, slots=True)
class JobRun:
    """One run of a job.

    Attributes:
        outcome: running, ok, failed, or alarm (it ran and found a violated invariant).
        counts: numbers of things done, by name, without zeros.
        age_seconds: since it started.
        asked_by: handle of the operator who requested the run; None for a scheduled one.
    """

    id: int
    name: str
    started_at: datetime
    finished_at: datetime | None
    outcome: str
    counts: dict[str, int]
    error: str | None
    age_seconds: float
    asked_by: str | None = None


@dataclass(frozen=True, slots=True)
class JobDefinition:
    """A job of the workers.

    Attributes:
        description: one sentence for the operator.
        interval_seconds: between two scheduled starts.
        min_interval_seconds: least time from a successful run to the next; earlier starts are skipped.
    """

    name: str
    description: str
    interval_seconds: float
    min_interval_seconds: float

    @property
    def period_seconds(self) -> float:
        """Longest regular time between two runs, in seconds."""
        return self.interval_seconds + self.min_interval_seconds


@dataclass(frozen=True, slots=True)
class RunRequest:
    """A run that an operator requested and no worker has begun."""

    name: str
    requested_by: str
    requested_at: datetime
    age_seconds: float


def register_jobs(conn: Connection, definitions: Sequence[JobDefinition], *, update_schedule: bool = True) -> None:
    """Store the definitions of the jobs for processes that cannot query the workers; writes only changes.

    Definitions that no worker has stored for a day are deleted.

    Args:
        update_schedule: whether the caller knows the intervals; otherwise only missing definitions are added.
    """
    rows = [
        (
            definition.name,
            definition.description,
            float(definition.interval_seconds),
            float(definition.min_interval_seconds),
        )
        for definition in definitions
    ]
    columns = [list(column) for column in zip(*rows, strict=True)]
    if not update_schedule:
        conn.execute(
            "INSERT INTO job (name, about, every_seconds, rest_seconds)"
            " SELECT * FROM unnest(%s::text[], %s::text[], %s::float8[], %s::float8[])"
            " ON CONFLICT (name) DO NOTHING",
            columns,
        )
        return
    conn.execute(
        "INSERT INTO job AS j (name, about, every_seconds, rest_seconds)"
        " SELECT * FROM unnest(%s::text[], %s::text[], %s::float8[], %s::float8[]) AS n (name, about, every, rest)"
        " ORDER BY n.name"
        " ON CONFLICT (name) DO UPDATE SET about = excluded.about, every_seconds = excluded.every_seconds,"
        "  rest_seconds = excluded.rest_seconds, seen_at = clock_timestamp()"
        " WHERE (j.about, j.every_seconds, j.rest_seconds)"
        "  IS DISTINCT FROM (excluded.about, excluded.every_seconds, excluded.rest_seconds)"
        "  OR j.seen_at < clock_timestamp() - interval '1 hour'",
        columns,
    )
    conn.execute("DELETE FROM job WHERE seen_at < clock_timestamp() - interval '1 day'")


def list_definitions(conn: Connection) -> list[JobDefinition]:
    """Return the job definitions by name."""
    return conn.fetch_all_as(
        JobDefinition,
        "SELECT name, about AS description, every_seconds AS interval_seconds, rest_seconds AS min_interval_seconds"
        " FROM job ORDER BY name LIMIT 1000",
    )


def request_run(conn: Connection, name: str, *, owner_id: int, actor: str) -> bool:
    """Request a run of a job; a worker begins it within seconds.

    Args:
        owner_id: the operator, to whom the audit log assigns the request.
    Returns:
        Whether the request is new; false if the job is requested or running already.
    Raises:
        NotFound: no worker has such a job.
    """
    if conn.fetch_one_or_none("SELECT 1 FROM job WHERE name = %s", (name,)) is None:
        raise NotFound("job")
    inserted = conn.execute(
        "INSERT INTO job_request (name, asked_by) SELECT %(name)s, %(actor)s WHERE NOT EXISTS ("
        " SELECT FROM job_run r WHERE r.name = %(name)s AND r.outcome = 'running'"
        "  AND r.id = (SELECT max(id) FROM job_run WHERE name = %(name)s)"
        "  AND r.started_at > clock_timestamp() - interval '1 hour')"
        " ON CONFLICT (name) DO NOTHING",
        {"name": name, "actor": actor},
    )
    if inserted:
        audit.record(conn, owner_id, actor, "job.run", name)
    return bool(inserted)


def list_run_requests(conn: Connection) -> list[RunRequest]:
    """Return the requested runs that no worker has begun, oldest first."""
    return conn.fetch_all_as(
        RunRequest,
        "SELECT name, asked_by AS requested_by, asked_at AS requested_at,"
        " extract(epoch FROM clock_timestamp() - asked_at)::float8 AS age_seconds"
        " FROM job_request ORDER BY asked_at, name LIMIT 1000",
    )


def begin_run(conn: Connection, name: str) -> int:
    """Record the start of a run; returns its id."""
    return int(conn.fetch_one("INSERT INTO job_run (name) VALUES (%s) RETURNING id", (name,))[0])


def begin_requested_run(conn: Connection, name: str) -> int | None:
    """Take a requested run and record its start; of concurrent workers one gets its id, the others None.

    One statement deletes the request and inserts the run, so that neither is lost if the worker is killed.
    """
    row = conn.fetch_one_or_none(
        "WITH taken AS (DELETE FROM job_request WHERE name = %s RETURNING name, asked_by)"
        " INSERT INTO job_run (name, asked_by) SELECT name, asked_by FROM taken RETURNING id",
        (name,),
    )
    return None if row is None else int(row[0])


def finish_run(
    conn: Connection, run_id: int, outcome: str, counts: Mapping[str, int], error: str | None = None
) -> None:
    """Record the end of a run.

    Args:
        outcome: ok, failed or alarm.
        counts: numbers of things done, by name; zeros are left out.
        error: cut to 2,000 characters.
    """
    conn.execute(
        "UPDATE job_run SET finished_at = clock_timestamp(), outcome = %s, counts = %s, error = %s WHERE id = %s",
        (
            outcome,
            Jsonb({name: count for name, count in counts.items() if count}),
            error and error[:_MAX_ERROR_LENGTH],
            run_id,
        ),
    )


def list_runs(
    conn: Connection,
    *,
    name: str | None = None,
    outcome: str | None = None,
    exclude_idle: bool = False,
    before: int | None = None,
    limit: int = 50,
) -> list[JobRun]:
    """Return runs with ids below `before`, newest first.

    Args:
        name, outcome: only runs of this job, or with this outcome.
        exclude_idle: leave out scheduled runs that succeeded and had nothing to do, which are most.
    """
    validation.integer(limit, "limit", 1, 1000)
    if outcome is not None and outcome not in JOB_OUTCOMES:
        raise InvalidArgument(f"outcome must be one of: {', '.join(JOB_OUTCOMES)}.")
    return conn.fetch_all_as(
        JobRun,
        f"SELECT {_RUN_COLUMNS} FROM job_run r WHERE (%(name)s::text IS NULL OR r.name = %(name)s)"
        " AND (%(outcome)s::text IS NULL OR r.outcome = %(outcome)s)"
        " AND (NOT %(exclude_idle)s OR r.outcome <> 'ok' OR r.counts <> '{}' OR r.asked_by IS NOT NULL)"
        " AND (%(before)s::bigint IS NULL OR r.id < %(before)s) ORDER BY r.id DESC LIMIT %(limit)s",
        {"name": name, "outcome": outcome, "exclude_idle": exclude_idle, "before": before, "limit": limit},
    )


def list_latest_runs(conn: Connection) -> list[JobRun]:
    """Return the newest run of each job that ever ran, by name."""
    return conn.fetch_all_as(
        JobRun,
        "WITH RECURSIVE names AS ("
        "  (SELECT name FROM job_run ORDER BY name LIMIT 1)"
        "  UNION ALL SELECT (SELECT r.name FROM job_run r WHERE r.name > names.name ORDER BY r.name LIMIT 1)"
        "  FROM names WHERE names.name IS NOT NULL)"
        f" SELECT {_RUN_COLUMNS} FROM names, LATERAL ("
        "  SELECT * FROM job_run r WHERE r.name = names.name ORDER BY r.id DESC LIMIT 1) AS r ORDER BY r.name",
    )


def find_last_run_age_seconds(conn: Connection, name: str) -> float | None:
    """Return the seconds since the start of the job's newest run that did not fail, or None.

    Alarms count, as the job ran. A run in progress counts for an hour; after that it must have been killed.
    """
    row = conn.fetch_one_or_none(
        "SELECT extract(epoch FROM clock_timestamp() - r.started_at)::float8 FROM job_run r"
        " WHERE r.name = %s AND (r.outcome IN ('ok', 'alarm')"
        "  OR (r.outcome = 'running' AND r.started_at > clock_timestamp() - interval '1 hour'))"
        " ORDER BY r.id DESC LIMIT 1",
        (name,),
    )
    return None if row is None else float(row[0])


_RUN_COLUMNS = (
    "r.id, r.name, r.started_at, r.finished_at, r.outcome, r.counts, r.error,"
    " extract(epoch FROM clock_timestamp() - r.started_at)::float8 AS age_seconds, r.asked_by"
)
