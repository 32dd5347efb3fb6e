"""`llm-bus migrate`: migrate the database schema, in the release phase of a deploy."""

from pathlib import Path

import click

from cli.options import data_option, emit, json_option


@click.command("migrate", short_help="Migrate the database to the newest schema.")
@data_option
@json_option
def command(data: Path | None, as_json: bool) -> None:
    """Migrate the database (DATABASE_URL, or else of the bus that runs here) to the newest schema.

    With MIGRATION_DATABASE_URL it connects as the owner of the schema; the role of DATABASE_URL is created if there is
    none, and gets the privileges of the processes: it reads and writes rows, and cannot change the schema.

    Safe to run concurrently and while the bus is running.
    """
    from bus.db import migrate
    from cli.database_role import explain_migration_errors
    from cli.runtime import find_database_urls

    urls = find_database_urls(data)
    with explain_migration_errors():
        migrate.migrate(urls.owner, application_url=urls.application)
    emit({"revision": migrate.head_revision()}, f"The schema is at {migrate.head_revision()}.", as_json=as_json)
