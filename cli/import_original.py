"""Connections and transactions of `llm-bus import original`."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import psycopg

from bus.config.database_url import normalise_database_url
from bus.coordination.change_notifications import NotificationPublisher
from bus.db import Connection, Database
from bus.imports.original import ImportReport, Progress, import_all
from bus.imports.original_source import OriginalSource
from bus.imports.transactions import Transactions
from cli.exit_codes import CliError, ExitCode
from cli.runtime import settings_for_cli
from cli.settings import ORIGINAL_DATABASE_URL, read_variable

# One import at a time writes to a database.
_IMPORT_LOCK = 7_411_924


def run_import(url: str | None, data: Path | None, *, dry_run: bool, progress: Progress) -> ImportReport:
    """Import the database of the original at `url`, or else of ORIGINAL_DATABASE_URL.

    Raises:
        CliError: no URL, no connection, or another import runs.
        BusError: the database is not one of the original, or the result does not agree with it.
    """
    source_url = url or read_variable(ORIGINAL_DATABASE_URL)
    if not source_url:
        raise CliError(
            "No database was given: set ORIGINAL_DATABASE_URL, or give its URL as an argument.", ExitCode.USAGE
        )
    settings = settings_for_cli(data)
    publisher = NotificationPublisher(settings.redis_url)
    database = Database(
        settings.database_url, pool_size=2, application_name="llm-bus import", on_commit=publisher.publish
    )
    with closing(publisher), closing(database), _connect(source_url) as source_conn, _single_import(database):
        source = OriginalSource(source_conn)
        if not dry_run:
            return import_all(source, database.transaction, progress=progress)
        with _rolled_back(database) as transactions:
            return import_all(source, transactions, progress=progress)


@contextmanager
def _connect(url: str) -> Iterator[psycopg.Connection]:
    normalised = normalise_database_url(url, ORIGINAL_DATABASE_URL.name)
    try:
        conn = psycopg.connect(normalised, connect_timeout=10, application_name="llm-bus import")
    except psycopg.OperationalError as error:
        first_line = str(error).strip().partition("\n")[0]
        raise CliError(f"The database of the original cannot be reached: {first_line}", ExitCode.UNAVAILABLE) from error
    with closing(conn):
        yield conn


@contextmanager
def _single_import(database: Database) -> Iterator[None]:
    with database.connection() as guard:
        (is_granted,) = guard.fetch_one("SELECT pg_try_advisory_lock(%s)", (_IMPORT_LOCK,))
        if not is_granted:
            raise CliError("Another import is running; wait until it has ended.")
        try:
            yield
        finally:
            guard.execute("SELECT pg_advisory_unlock(%s)", (_IMPORT_LOCK,))


@contextmanager
def _rolled_back(database: Database) -> Iterator[Transactions]:
    """Yield transactions that are all parts of one, which is rolled back at the end."""
    with database.connection() as conn, conn.raw.transaction(force_rollback=True):

        @contextmanager
        def part() -> Iterator[Connection]:
            with conn.raw.transaction():
                yield conn

        yield part
