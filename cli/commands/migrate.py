"""`llm-bus migrate`: migrate the database schema, in the release phase of a deploy."""

from pathlib import Path

import click

from cli.options import data_option, emit, json_option


@click.command("migrate", short_help="Migrate the database to the newest schema.")
@click.option("--to", "revision", metavar="REVISION", help="Go back to the schema of an older version, such as 0017.")
@data_option
@json_option
def command(revision: str | None, data: Path | None, as_json: bool) -> None:
    """Migrate the database (DATABASE_URL, or else of the bus that runs here) to the newest schema.

    With MIGRATION_DATABASE_URL it connects as the owner of the schema; the role of DATABASE_URL is created if there is
    none, and gets the privileges of the processes: it reads and writes rows, and cannot change the schema.

    Safe to run concurrently and while the bus is running. Going back is not: stop all processes first. It deletes what
    only newer versions have, and the older version must migrate before it starts.
    """
    from bus.db import migrate
    from cli.database_role import explain_migration_errors
    from cli.runtime import find_database_urls
    from cli.schema_downgrade import go_back

    urls = find_database_urls(data)
    if revision is not None:
        go_back(urls.owner, revision)
        text = f"The schema is at {revision}. Install the version that belongs to it and let it migrate."
        emit({"revision": revision}, text, as_json=as_json)
        return
    with explain_migration_errors():
        migrate.migrate(urls.owner, application_url=urls.application)
    emit({"revision": migrate.head_revision()}, f"The schema is at {migrate.head_revision()}.", as_json=as_json)
