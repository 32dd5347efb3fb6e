"""`llm-bus migrate`: migrate the database schema, in the release phase of a deploy."""

from pathlib import Path

import click

from cli.options import data_option, emit, json_option


@click.command("migrate", short_help="Migrate the database to the newest schema.")
@data_option
@json_option
def command(data: Path | None, as_json: bool) -> None:
    """Migrate the database (DATABASE_URL, or else of the bus that runs here) to the newest schema.

    Safe to run concurrently and while the bus is running.
    """
    from bus.db import migrate
    from cli.runtime import settings_for_cli

    migrate.migrate(settings_for_cli(data).database_url)
    emit({"revision": migrate.head_revision()}, f"The schema is at {migrate.head_revision()}.", as_json=as_json)
