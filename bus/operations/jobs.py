"""Runs of jobs: what the clock did, when, and with what outcome. The operator console and `llm-bus doctor` read it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from psycopg.types.json import Jsonb

from bus.db import Connection
from bus.errors import InvalidArgument, NotFound
from bus.operations.tables import JOB_OUTCOMES
from bus.rules import validation
from bus.tenancy import audit

# The list in Redis in which messages wait that say that a job is due.
QUEUE_NAME = "llm-bus"
_MAX_ERROR_LENGTH = 2000


@dataclass(frozen=True, slots=True)
class JobRun:
    """One run of a job.

    Attributes:
        outcome: running, ok, failed, or alarm: it ran, and found what must not be.
        counts: what it did, in numbers; only what is not zero.
        age_seconds: since it started.
        asked_by: the operator who asked for it, if one did.
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
    """A job that the workers have.

    Attributes:
        every_seconds: how often it is asked for; rest_seconds: how long it rests after a good run.
    """

    name: str
    description: str
    interval_seconds: float
    min_interval_seconds: float

    @property
    def period_seconds(self) -> float:
        """How often it really runs."""
        return self.interval_seconds + self.min_interval_seconds


@dataclass(frozen=True, slots=True)
class RunRequest:
    """A run that an operator asked for and no worker has begun."""

    name: str
    requested_by: str
    requested_at: datetime
    age_seconds: float


def register_jobs(conn: Connection, definitions: Sequence[JobDefinition], *, update_schedule: bool = True) -> None:
    """Write down what jobs there are, for those who cannot ask the workers. Changes nothing where nothing changed.

    What no worker has named for a day is forgotten.

    Args:
        schedule: whether the caller knows how often they run; else only what is new is added.
    """
    facts = [
        (one.name, one.description, float(one.interval_seconds), float(one.min_interval_seconds)) for one in definitions
    ]
    columns = [list(column) for column in zip(*facts, strict=True)]
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
    """The jobs that the workers have, by name."""
    rows = conn.fetch_all("SELECT name, about, every_seconds, rest_seconds FROM job ORDER BY name LIMIT 1000")
    return [JobDefinition(*row) for row in rows]


def request_run(conn: Connection, name: str, *, owner_id: int, actor: str) -> bool:
    """Ask for a run of a job as soon as a worker looks, which is within seconds.

    Args:
        owner_id: the operator, in whose own affairs it is audited.
    Returns:
        Whether it was not asked for yet. What waits already, or runs at this moment, is not asked for twice.
    Raises:
        BusError: `not_found` when no worker has such a job.
    """
    if conn.fetch_one_or_none("SELECT 1 FROM job WHERE name = %s", (name,)) is None:
        raise NotFound("job")
    asked = conn.fetch_one_or_none(
        "INSERT INTO job_request (name, asked_by) SELECT %(name)s, %(actor)s WHERE NOT EXISTS ("
        " SELECT FROM job_run r WHERE r.name = %(name)s AND r.outcome = 'running'"
        "  AND r.id = (SELECT max(id) FROM job_run WHERE name = %(name)s)"
        "  AND r.started_at > clock_timestamp() - interval '1 hour')"
        " ON CONFLICT (name) DO NOTHING RETURNING 1",
        {"name": name, "actor": actor},
    )
    if asked is not None:
        audit.record(conn, owner_id, actor, "job.run", name)
    return asked is not None


def list_run_requests(conn: Connection) -> list[RunRequest]:
    """Runs that wait for a worker, the oldest first."""
    rows = conn.fetch_all(
        "SELECT name, asked_by, asked_at, extract(epoch FROM clock_timestamp() - asked_at)::float8"
        " FROM job_request ORDER BY asked_at, name LIMIT 1000"
    )
    return [RunRequest(*row) for row in rows]


def begin_run(conn: Connection, name: str) -> int:
    """Write down that a job began; returns the run's id."""
    return int(conn.fetch_one("INSERT INTO job_run (name) VALUES (%s) RETURNING id", (name,))[0])


def begin_requested_run(conn: Connection, name: str) -> int | None:
    """As `begin`, for a run that was asked for: of several workers one gets it, and the others None.

    The request goes and the run begins in one statement, so that a worker that is killed loses neither.
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
    """Write down how it ended."""
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
    """Runs, newest first, with ids below `before`.

    Args:
        name, outcome: only those of that job, or that ended so.
        busy: leave out those that went well, found nothing to do and were not asked for, which are most.
    """
    validation.integer(limit, "limit", 1, 1000)
    if outcome is not None and outcome not in JOB_OUTCOMES:
        raise InvalidArgument(f"outcome must be one of: {', '.join(JOB_OUTCOMES)}.")
    rows = conn.fetch_all(
        f"SELECT {_RUN_COLUMNS} FROM job_run r WHERE (%(name)s::text IS NULL OR r.name = %(name)s)"
        " AND (%(outcome)s::text IS NULL OR r.outcome = %(outcome)s)"
        " AND (NOT %(busy)s OR r.outcome <> 'ok' OR r.counts <> '{}' OR r.asked_by IS NOT NULL)"
        " AND (%(before)s::bigint IS NULL OR r.id < %(before)s) ORDER BY r.id DESC LIMIT %(limit)s",
        {"name": name, "outcome": outcome, "busy": exclude_idle, "before": before, "limit": limit},
    )
    return [JobRun(*row) for row in rows]


def list_latest_runs(conn: Connection) -> list[JobRun]:
    """The newest run of each job that ever ran, by name."""
    rows = conn.fetch_all(
        "WITH RECURSIVE names AS ("
        "  (SELECT name FROM job_run ORDER BY name LIMIT 1)"
        "  UNION ALL SELECT (SELECT r.name FROM job_run r WHERE r.name > names.name ORDER BY r.name LIMIT 1)"
        "  FROM names WHERE names.name IS NOT NULL)"
        f" SELECT {_RUN_COLUMNS} FROM names, LATERAL ("
        "  SELECT * FROM job_run r WHERE r.name = names.name ORDER BY r.id DESC LIMIT 1) AS r ORDER BY r.name"
    )
    return [JobRun(*row) for row in rows]


def find_last_run_age_seconds(conn: Connection, name: str) -> float | None:
    """How many seconds ago the job's newest good run began; None where there is none.

    An alarm counts: it ran. So does one that is under way, for an hour: after that it was killed.
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
    " extract(epoch FROM clock_timestamp() - r.started_at)::float8, r.asked_by"
)
