"""Checks of a bus: data folder, database, schema, clocks, jobs, Redis and HTTP. Each check is independent."""

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

from bus.config.errors import SettingError
from bus.db import application_role, schema_version
from bus.errors import BusError
from cli import data_dir, runtime
from cli.exit_codes import CliError

_MIN_POSTGRES_VERSION = 160_000
_MAX_CLOCK_SKEW_SECONDS = 2.0
# The heartbeat job runs every 30 seconds.
_STALE_JOBS_SECONDS = 300.0


@dataclass(frozen=True)
class Finding:
    """The result of one check.

    Attributes:
        detail: the state that the check saw.
        next_step: how to correct it; empty if the check passed.
    """

    check: str
    ok: bool
    detail: str
    next_step: str = ""

    def to_json(self) -> dict[str, object]:
        """Return the finding as `--json` prints it."""
        return {"check": self.check, "ok": self.ok, "found": self.detail, "to_do": self.next_step}


def run_checks(data: Path | None) -> list[Finding]:
    """Check the bus of DATABASE_URL, or the one that runs in the data folder."""
    # The bus of DATABASE_URL has no data folder.
    is_configured = data is None and bool(os.environ.get("DATABASE_URL", "").strip())
    findings = [] if is_configured else [_check_data_dir(data)]
    try:
        settings = runtime.settings_for_cli(data)
    except (CliError, SettingError) as error:
        return [*findings, Finding("bus", False, "no bus to check", str(error))]
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
        folder = data_dir.locate(data)
    except CliError as error:
        return Finding("data folder", False, "cannot be used", str(error))
    nearest = next(path for path in (folder, *folder.parents) if path.exists())
    if os.access(nearest, os.W_OK | os.X_OK):
        return Finding("data folder", True, str(folder))
    return Finding(
        "data folder",
        False,
        f"{nearest} is not writable",
        "Run llm-bus as the user it belongs to, or choose another folder with --data.",
    )


def _check_database(url: str) -> list[Finding]:
    try:
        with psycopg.connect(url, connect_timeout=5) as conn:
            before = time.time()
            row = conn.execute("SELECT extract(epoch FROM clock_timestamp())::float8").fetchone()
            after = time.time()
            version = conn.info.server_version
            role = application_role.inspect(conn)
            # A role without privileges cannot read the version.
            revision = None if role.missing else schema_version.find_schema_version(conn)
    except psycopg.Error as error:
        reason = str(error).strip().partition("\n")[0]
        address = urlsplit(url).netloc.rpartition("@")[2]
        next_step = f"Start PostgreSQL at {address}, or correct DATABASE_URL."
        return [Finding("database", False, f"does not respond: {reason}", next_step)]
    product = f"PostgreSQL {version // 10_000}"
    findings = [
        Finding("database", True, product)
        if version >= _MIN_POSTGRES_VERSION
        else Finding("database", False, f"{product} is too old", "Upgrade to PostgreSQL 16 or newer.")
    ]
    if revision == schema_version.EXPECTED_SCHEMA_VERSION:
        findings.append(Finding("migrations", True, f"at {revision}"))
    elif not role.missing:
        findings.append(
            Finding(
                "migrations",
                False,
                f"at {revision or 'none'}, this version of llm-bus expects {schema_version.EXPECTED_SCHEMA_VERSION}",
                "Run `llm-bus migrate`; if the database is newer, update llm-bus.",
            )
        )
    findings.append(_check_role(role))
    assert row is not None
    # A database time before the query began or after it ended is a difference between the clocks.
    skew = max(0.0, before - row[0], row[0] - after)
    findings.append(
        Finding("clock", True, f"within {max(skew, 0.1):.1f} s of the database clock")
        if skew < _MAX_CLOCK_SKEW_SECONDS
        else Finding(
            "clock",
            False,
            f"differs from the database clock by {skew:.0f} s",
            "Synchronise both machines with NTP; expiry and presence use the database clock.",
        )
    )
    return findings


def _check_role(role: application_role.RoleReport) -> Finding:
    """Check that the processes cannot change the schema or append-only tables, or say that one role does everything."""
    if role.owns_schema:
        # The only possibility on platforms that allow no second role, so not a failure.
        return Finding(
            "database role",
            True,
            f"{role.name} owns the schema: the processes could change it"
            + (" and, as a superuser, every database of the server" if role.is_superuser else ""),
            "If the server allows a second role: set MIGRATION_DATABASE_URL to the present DATABASE_URL, DATABASE_URL"
            " to a role that does not exist yet, and run `llm-bus migrate`, which creates it.",
        )
    if role.missing:
        return Finding(
            "database role",
            False,
            f"{role.name} lacks {'; '.join(role.missing)}",
            "Run `llm-bus migrate` with MIGRATION_DATABASE_URL, the URL of the owner of the schema.",
        )
    if role.excesses:
        return Finding(
            "database role",
            False,
            f"{role.name} can do more than the processes need: {'; '.join(role.excesses)}",
            "Run `llm-bus migrate` with MIGRATION_DATABASE_URL, which corrects privileges on tables. A superuser"
            f" corrects the rest: ALTER ROLE {role.name} NOSUPERUSER NOBYPASSRLS NOCREATEROLE NOCREATEDB.",
        )
    return Finding(
        "database role",
        True,
        f"{role.name} reads and writes rows; it cannot change the schema, append-only tables or row security",
    )


def _check_jobs(url: str) -> list[Finding]:
    """Check that jobs run, and that the last run of each job succeeded."""
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
        # The checks of the database report the reason.
        return []
    finally:
        database.close()
    youngest = min((run.age_seconds for run in latest), default=None)
    if youngest is None and is_new:
        findings = [Finding("jobs", True, "none yet; the first run within a minute after the start")]
    elif youngest is None or youngest > _STALE_JOBS_SECONDS:
        last_run = "never ran" if youngest is None else f"last ran {youngest / 60:.0f} minutes ago"
        findings = [
            Finding(
                "jobs",
                False,
                last_run,
                "Start `python -m workers` and `python -m workers beat`, or let cron call `llm-bus job run`. "
                "Until then leases end without an event, and nothing is escalated or metered.",
            )
        ]
    else:
        plural = "" if len(latest) == 1 else "s"
        findings = [Finding("jobs", True, f"{len(latest)} job{plural} ran, the last {youngest:.0f} s ago")]
    for run in latest:
        if run.outcome in ("failed", "alarm"):
            reason = (run.error or "").partition("\n")[0]
            findings.append(
                Finding(f"job {run.name}", False, f"{run.outcome}: {reason}", f"See `llm-bus job history {run.name}`.")
            )
    return findings


def _check_redis(url: str | None) -> Finding:
    if url is None:
        return Finding("redis", True, "not configured; wake-ups and limits stay within each process")
    from redis import Redis, RedisError

    try:
        with Redis.from_url(url, socket_connect_timeout=2, socket_timeout=2) as client:
            client.ping()
    except (RedisError, ValueError) as error:
        return Finding(
            "redis",
            False,
            f"does not respond: {error}",
            "Start Redis, or correct REDIS_URL. Until then tools work, wake-ups are slower and jobs wait.",
        )
    return Finding("redis", True, "responds")


def _check_http(name: str, base_url: str) -> Finding:
    with _open_connection(base_url) as connection:
        try:
            connection.request("GET", "/healthz")
            status = connection.getresponse().status
            detail = f"{base_url}/healthz responds with {status}"
        except (OSError, http.client.HTTPException) as error:
            status = None
            detail = f"does not respond at {base_url}: {error}"
    if status == 200:
        return Finding(name, True, f"responds at {base_url}")
    return Finding(
        name, False, detail, "Start it with `llm-bus up` (or your platform's start command) and read its log."
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
