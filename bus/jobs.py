"""Runs of jobs: what the clock did, when, and with what outcome. The operator console and `llm-bus doctor` read it."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from psycopg.types.json import Jsonb

from bus.db import Connection
from bus.rules import text

# The list in Redis in which messages wait that say that a job is due.
QUEUE = "llm-bus"
_LONGEST_ERROR = 2000


@dataclass(frozen=True, slots=True)
class Run:
    """One run of a job.

    Attributes:
        outcome: running, ok, failed, or alarm: it ran, and found what must not be.
        counts: what it did, in numbers; only what is not zero.
        age_seconds: since it started.
    """

    id: int
    name: str
    started_at: datetime
    finished_at: datetime | None
    outcome: str
    counts: dict[str, int]
    error: str | None
    age_seconds: float


def begin(conn: Connection, name: str) -> int:
    """Write down that a job began; returns the run's id."""
    return int(conn.one("INSERT INTO job_run (name) VALUES (%s) RETURNING id", (name,))[0])


def finish(conn: Connection, run_id: int, outcome: str, counts: Mapping[str, int], error: str | None = None) -> None:
    """Write down how it ended."""
    conn.maybe(
        "UPDATE job_run SET finished_at = clock_timestamp(), outcome = %s, counts = %s, error = %s"
        " WHERE id = %s RETURNING 1",
        (
            outcome,
            Jsonb({name: count for name, count in counts.items() if count}),
            error and error[:_LONGEST_ERROR],
            run_id,
        ),
    )


def list_(conn: Connection, *, name: str | None = None, before: int | None = None, limit: int = 50) -> list[Run]:
    """Runs, newest first, with ids below `before`; with a name only those of that job."""
    text.integer(limit, "limit", 1, 1000)
    rows = conn.all(
        f"SELECT {_RUN} FROM job_run r WHERE (%(name)s::text IS NULL OR r.name = %(name)s)"
        " AND (%(before)s::bigint IS NULL OR r.id < %(before)s) ORDER BY r.id DESC LIMIT %(limit)s",
        {"name": name, "before": before, "limit": limit},
    )
    return [Run(*row) for row in rows]


def list_latest(conn: Connection) -> list[Run]:
    """The newest run of each job that ever ran, by name."""
    rows = conn.all(
        "WITH RECURSIVE names AS ("
        "  (SELECT name FROM job_run ORDER BY name LIMIT 1)"
        "  UNION ALL SELECT (SELECT r.name FROM job_run r WHERE r.name > names.name ORDER BY r.name LIMIT 1)"
        "  FROM names WHERE names.name IS NOT NULL)"
        f" SELECT {_RUN} FROM names, LATERAL ("
        "  SELECT * FROM job_run r WHERE r.name = names.name ORDER BY r.id DESC LIMIT 1) AS r ORDER BY r.name"
    )
    return [Run(*row) for row in rows]


def find_last_run(conn: Connection, name: str) -> float | None:
    """How many seconds ago the job's newest good run began; None where there is none.

    An alarm counts: it ran. So does one that is under way, for an hour: after that it was killed.
    """
    row = conn.maybe(
        "SELECT extract(epoch FROM clock_timestamp() - r.started_at)::float8 FROM job_run r"
        " WHERE r.name = %s AND (r.outcome IN ('ok', 'alarm')"
        "  OR (r.outcome = 'running' AND r.started_at > clock_timestamp() - interval '1 hour'))"
        " ORDER BY r.id DESC LIMIT 1",
        (name,),
    )
    return None if row is None else float(row[0])


_RUN = (
    "r.id, r.name, r.started_at, r.finished_at, r.outcome, r.counts, r.error,"
    " extract(epoch FROM clock_timestamp() - r.started_at)::float8"
)
