"""Preparation of the database: migrate the schema, and seed a fresh bus."""

import time
from collections.abc import Callable
from pathlib import Path

import psycopg

from bus.db import Database, migrate, sql_functions
from cli import database_prepared, seed
from cli.database_role import explain_migration_errors
from cli.exit_codes import CliError, ExitCode
from cli.runtime import DatabaseUrls, NewAgent

_DATABASE_WAIT_SECONDS = 15.0


def prepare_database(data: Path, urls: DatabaseUrls, on_poll: Callable[[], None]) -> list[NewAgent]:
    """Migrate and seed the database, record that in `data`, and return the agents that were created.

    Raises:
        CliError: the database does not answer, or its role may not migrate it.
    """
    _wait_for_database(urls.owner, on_poll)
    with explain_migration_errors():
        migrate.migrate(urls.owner, application_url=urls.application)
    on_poll()
    database = Database(urls.application, pool_size=1)
    try:
        with database.transaction() as conn:
            agents = seed.seed_if_empty(conn)
    finally:
        database.close()
    database_prepared.record_prepared(
        data, mark=sql_functions.functions_fingerprint(), mark_sql=sql_functions.INSTALLED_FINGERPRINT_SQL
    )
    return agents


def _wait_for_database(url: str, on_poll: Callable[[], None]) -> None:
    """Wait for a database that is still starting."""
    deadline = time.monotonic() + _DATABASE_WAIT_SECONDS
    while True:
        on_poll()
        try:
            psycopg.connect(url, connect_timeout=5).close()
        except psycopg.OperationalError as error:
            if time.monotonic() > deadline:
                raise CliError(f"The database does not answer: {error}", ExitCode.UNAVAILABLE) from error
            time.sleep(0.2)
        else:
            return
