"""Between the servers and the processes: bring the schema up to date, fill an empty bus."""

import time
from collections.abc import Callable
from pathlib import Path

import psycopg

from bus.db import Database, migrate, sql_functions
from cli import readiness, seed
from cli.exit_codes import CliError, Exit
from cli.runtime import NewAgent

_PATIENCE_SECONDS = 15.0


def prepare(data: Path, database_url: str, tick: Callable[[], None]) -> list[NewAgent]:
    """Migrate, then seed, and remember in `data` that it is done; returns the agents that were made.

    Raises:
        CliError: the database does not answer.
    """
    _await_database(database_url, tick)
    migrate.migrate(database_url)
    tick()
    database = Database(database_url, size=1)
    try:
        with database.write() as conn:
            agents = seed.first_run(conn)
    finally:
        database.close()
    readiness.remember(data, mark=sql_functions.functions_mark(), mark_sql=sql_functions.INSTALLED_MARK_SQL)
    return agents


def _await_database(url: str, tick: Callable[[], None]) -> None:
    """Wait a little for a database that is starting beside us."""
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while True:
        tick()
        try:
            psycopg.connect(url, connect_timeout=5).close()
        except psycopg.OperationalError as error:
            if time.monotonic() > deadline:
                raise CliError(f"The database does not answer: {error}", Exit.UNAVAILABLE) from error
            time.sleep(0.2)
        else:
            return
