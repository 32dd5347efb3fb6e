"""`llm-bus migrate`: migrate the database schema, in the release phase of a deploy."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
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
    only newer versions have, and the older version must migrate before it starts. Without DATABASE_URL it starts the
    PostgreSQL of the data folder for as long as that takes.
    """
    from bus.db import migrate
    from cli.database_role import explain_migration_errors
    from cli.runtime import find_database_urls
    from cli.schema_downgrade import go_back

    if revision is not None:
        with _running_database(data) as owner_url:
            go_back(owner_url, revision)
        text = f"The schema is at {revision}. Install the version that belongs to it and let it migrate."
        emit({"revision": revision}, text, as_json=as_json)
        return
    urls = find_database_urls(data)
    with explain_migration_errors():
        migrate.migrate(urls.owner, application_url=urls.application)
    emit({"revision": migrate.head_revision()}, f"The schema is at {migrate.head_revision()}.", as_json=as_json)


@contextmanager
def _running_database(data: Path | None) -> Iterator[str]:
    """Yield the URL of the owner of the schema; PostgreSQL of a data folder in which no bus runs is started for it."""
    from cli import data_dir
    from cli.offline_postgres import running_postgres
    from cli.runtime import find_database_urls, find_running

    if not os.environ.get("DATABASE_URL", "").strip():
        folder = data_dir.locate(data)
        if (folder / "postgres").is_dir() and find_running(folder) is None:
            with running_postgres(folder) as urls:
                yield urls.owner
            return
    yield find_database_urls(data).owner
