"""What may be wrong with a bus, and what to do about it. Each check stands alone."""

import http.client
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import psycopg

from bus.config.settings import SettingError
from bus.db import schema_version
from bus.errors import BusError
from cli import data_dir, runtime
from cli.exit_codes import CliError

_MIN_POSTGRES_VERSION = 160_000
_MAX_CLOCK_SKEW_SECONDS = 2.0
# The heartbeat comes every half minute.
_STALE_JOBS_SECONDS = 300.0


@dataclass(frozen=True)
class Finding:
    """One check: what it found, and what to do when that is not good."""

    check: str
    ok: bool
    found: str
    to_do: str = ""


def run_checks(data: Path | None) -> list[Finding]:
    """Check the bus that DATABASE_URL names, or the one that runs in the data folder."""
    findings = [_check_data_dir(data)]
    try:
        settings = runtime.settings_for_cli(data)
    except (CliError, SettingError) as error:
        return [*findings, Finding("bus", False, "no bus to look at", str(error))]
    findings += _check_database(settings.database_url)
    findings.append(_check_redis(settings.redis_url))
    findings += _check_jobs(settings.database_url)
    running = runtime.find_running(data_dir.locate(data))
    if running is not None:
        findings += [_check_http(name, f"http://127.0.0.1:{port}") for name, port in sorted(running.ports.items())]
    else:
        gateway = urlsplit(settings.mcp_url)
        findings.append(_check_http("gateway", f"{gateway.scheme}://{gateway.netloc}"))
    return findings


def _check_data_dir(data: Path | None) -> Finding:
    try:
        place = data_dir.locate(data)
    except CliError as error:
        return Finding("data folder", False, "cannot be used", str(error))
    nearest = next(path for path in (place, *place.parents) if path.exists())
    if os.access(nearest, os.W_OK | os.X_OK):
        return Finding("data folder", True, str(place))
    return Finding(
        "data folder",
        False,
        f"{nearest} cannot be written to",
        "Run as the user it belongs to, or choose another folder with --data.",
    )


def _check_database(url: str) -> list[Finding]:
    try:
        with psycopg.connect(url, connect_timeout=5) as conn:
            before = time.time()
            row = conn.execute("SELECT extract(epoch FROM clock_timestamp())::float8").fetchone()
            after = time.time()
            version = conn.info.server_version
            found = schema_version.find_schema_version(conn)
    except psycopg.Error as error:
        said = str(error).strip().partition("\n")[0]
        where = urlsplit(url).netloc.rpartition("@")[2]
        to_do = f"Start PostgreSQL at {where}, or correct DATABASE_URL."
        return [Finding("database", False, f"does not answer: {said}", to_do)]
    number = f"PostgreSQL {version // 10_000}"
    findings = [
        Finding("database", True, number)
        if version >= _MIN_POSTGRES_VERSION
        else Finding("database", False, f"{number} is too old", "Move to PostgreSQL 16 or newer.")
    ]
    if found == schema_version.EXPECTED_SCHEMA_VERSION:
        findings.append(Finding("migrations", True, f"at {found}"))
    else:
        findings.append(
            Finding(
                "migrations",
                False,
                f"at {found or 'none'}, this version of llm-bus expects {schema_version.EXPECTED_SCHEMA_VERSION}",
                "Run `llm-bus migrate`; if the database is the newer one, update llm-bus.",
            )
        )
    assert row is not None
    # Outside of the time that the question took, the clocks disagree.
    skew = max(0.0, before - row[0], row[0] - after)
    findings.append(
        Finding("clock", True, f"within {max(skew, 0.1):.1f} s of the database's")
        if skew < _MAX_CLOCK_SKEW_SECONDS
        else Finding(
            "clock",
            False,
            f"{skew:.0f} s away from the database's",
            "Let both machines keep time with NTP; expiry and presence are judged by the database's clock.",
        )
    )
    return findings


def _check_jobs(url: str) -> list[Finding]:
    """Whether the clock works: a sign of life, and jobs whose last run was not good."""
    from bus.db import Database
    from bus.operations import jobs

    database = Database(url, pool_size=1, application_name="llm-bus doctor")
    try:
        with database.connection() as conn:
            latest = jobs.list_latest_runs(conn)
            (is_new,) = conn.fetch_one(
                "SELECT coalesce(min(created_at) > clock_timestamp() - make_interval(secs => %s), true) FROM owner",
                (_STALE_JOBS_SECONDS,),
            )
    except (psycopg.Error, BusError):
        # The checks of the database say why.
        return []
    finally:
        database.close()
    youngest = min((run.age_seconds for run in latest), default=None)
    if youngest is None and is_new:
        findings = [Finding("jobs", True, "none yet; the first come within a minute of the start")]
    elif youngest is None or youngest > _STALE_JOBS_SECONDS:
        since = "never ran" if youngest is None else f"last ran {youngest / 60:.0f} minutes ago"
        findings = [
            Finding(
                "jobs",
                False,
                since,
                "Start `python -m workers` and `python -m workers beat`, or let cron call `llm-bus job run`. "
                "Until then leases end without an event, and nothing is escalated or metered.",
            )
        ]
    else:
        findings = [Finding("jobs", True, f"{len(latest)} kinds, the last {youngest:.0f} s ago")]
    for run in latest:
        if run.outcome in ("failed", "alarm"):
            said = (run.error or "").partition("\n")[0]
            findings.append(
                Finding(f"job {run.name}", False, f"{run.outcome}: {said}", f"See `llm-bus job history {run.name}`.")
            )
    return findings


def _check_redis(url: str | None) -> Finding:
    if url is None:
        return Finding("redis", True, "none is set; wake-ups and limits stay within each process")
    from redis import Redis, RedisError

    try:
        with Redis.from_url(url, socket_connect_timeout=2, socket_timeout=2) as client:
            client.ping()
    except (RedisError, ValueError) as error:
        return Finding(
            "redis",
            False,
            f"does not answer: {error}",
            "Start it, or correct REDIS_URL. Until then tools work, wake-ups are slower and jobs wait.",
        )
    return Finding("redis", True, "answers")


def _check_http(name: str, base_url: str) -> Finding:
    status = None
    with _open_connection(base_url) as connection:
        try:
            connection.request("GET", "/healthz")
            status = connection.getresponse().status
        except (OSError, http.client.HTTPException):
            status = None
    if status == 200:
        return Finding(name, True, f"answers at {base_url}")
    found = f"does not answer at {base_url}" if status is None else f"{base_url}/healthz says {status}"
    return Finding(
        name, False, found, "Start it with `llm-bus up` (or your platform's start command) and read its log."
    )


@contextmanager
def _open_connection(base_url: str) -> Iterator[http.client.HTTPConnection]:
    parts = urlsplit(base_url)
    make: Callable[..., http.client.HTTPConnection] = (
        http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    )
    connection = make(parts.hostname or "localhost", parts.port, timeout=socket.getdefaulttimeout() or 3)
    try:
        yield connection
    finally:
        connection.close()
