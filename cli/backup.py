"""Backup of a bus into one file and its restoration, with the pg_dump and pg_restore of PostgreSQL.

The database holds all of a bus: Redis carries only messages that a new start sends again. A dump is one consistent
snapshot, so a ledger in it has no gap, and agents go on with the cursors that the snapshot has.
"""

import os
import re
import secrets
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import psycopg
from psycopg.conninfo import conninfo_to_dict

from bus.db import schema_version
from cli.database_role import explain_migration_errors
from cli.exit_codes import CliError, ExitCode
from cli.files import chown_to_parent_owner
from cli.postgres_programs import run_program
from cli.runtime import DatabaseUrls


@dataclass(frozen=True)
class Restored:
    """A restored bus.

    Attributes:
        projects, events: their numbers.
        last_event_at: time of the newest event; None if there is none.
        discrepancies: what the integrity checks found; empty in a sound bus.
    """

    projects: int
    events: int
    last_event_at: datetime | None
    discrepancies: list[str]


def create_backup(url: str, path: Path, *, overwrite: bool) -> int:
    """Write a backup of the database to `path`, complete or not at all, and return its size in bytes.

    Raises:
        CliError: the file exists, the folder cannot be written, or pg_dump is missing or failed.
    """
    if path.exists() and not overwrite:
        raise CliError(f"{path} exists. Choose another name, or replace it with --overwrite.")
    if not path.parent.is_dir():
        raise CliError(f"The folder {path.parent} does not exist. Create it, or choose another.", ExitCode.NOT_FOUND)
    server_version = _read_server_version(url)
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        os.close(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        chown_to_parent_owner(draft)
        run_program(
            "pg_dump", server_version, url, "--format=custom", "--no-owner", "--no-privileges", f"--file={draft}"
        )
        with draft.open("rb") as file:
            os.fsync(file.fileno())
        size = draft.stat().st_size
        draft.replace(path)
    except OSError as error:
        raise CliError(f"{path} cannot be written: {error.strerror}.") from error
    finally:
        draft.unlink(missing_ok=True)
    return size


def restore_backup(urls: DatabaseUrls, path: Path) -> Restored:
    """Restore a backup into an empty database, bring it to the schema of this code, and check its integrity.

    It is restored in one transaction: after a failure the database is as empty as before. A backup holds no privileges;
    the migration grants those of the role of the processes.

    Raises:
        CliError: the database is not empty, the file is not a backup, or is of a newer version.
    """
    # Imported late: Alembic takes a second.
    from bus.db import migrate

    url = urls.owner
    if not path.is_file():
        raise CliError(f"There is no file {path}.", ExitCode.NOT_FOUND)
    server_version = _read_server_version(url)
    _require_empty(url)
    revision = _read_backup_revision(path, server_version)
    if revision > schema_version.EXPECTED_SCHEMA_VERSION:
        raise CliError(
            f"{path} was made by a newer llm-bus (schema {revision}, this one knows "
            f"{schema_version.EXPECTED_SCHEMA_VERSION}). Install that version, then restore."
        )
    options = ("--no-owner", "--no-privileges", "--single-transaction", "--exit-on-error")
    run_program("pg_restore", server_version, url, *options, f"--dbname={_database_name(url)}", str(path))
    with explain_migration_errors():
        migrate.migrate(url, application_url=urls.application)
    with psycopg.connect(url, connect_timeout=10, autocommit=True) as conn:
        # A restored table has no statistics, and plans without them read whole tables.
        conn.execute("ANALYZE")
    return _inspect(url)


def _inspect(url: str) -> Restored:
    from bus.db import Database
    from bus.operations import integrity_checks

    with closing(Database(url, pool_size=1, application_name="llm-bus restore")) as database:
        discrepancies = [
            f"{discrepancy.check}, {discrepancy.subject}: {discrepancy.detail}"
            for discrepancy in integrity_checks.check_all(database)
        ]
        with database.transaction() as conn:
            (projects,) = conn.fetch_one("SELECT count(*) FROM project")
            events, last_event_at = conn.fetch_one("SELECT count(*), max(at) FROM event")
    return Restored(projects, events, last_event_at, discrepancies)


def _require_empty(url: str) -> None:
    with psycopg.connect(url, connect_timeout=10) as conn:
        table = conn.execute(
            "SELECT c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
            " WHERE c.relkind IN ('r', 'p') AND n.nspname NOT IN ('pg_catalog', 'information_schema')"
            " AND n.nspname NOT LIKE 'pg\\_%' LIMIT 1"
        ).fetchone()
    if table is not None:
        raise CliError(
            f"The database is not empty (it has the table {table[0]}). A backup is restored into an empty one: "
            "create one with `createdb NAME` and set DATABASE_URL to it, or choose a new folder with --data."
        )


def _read_backup_revision(path: Path, server_version: int) -> str:
    """The schema version of a backup, read without a database.

    Raises:
        CliError: the file is not a backup of a bus.
    """
    try:
        output = run_program(
            "pg_restore", server_version, None, "--data-only", "--table=alembic_version", "-f", "-", str(path)
        )
    except CliError as error:
        raise CliError(f"{path} is not a backup that `llm-bus backup` made. {error}") from error
    match = re.search(r"^COPY [\w.]*alembic_version .*\n(\w+)$", output, re.MULTILINE)
    if match is None:
        raise CliError(f"{path} is a dump of another database; it holds no bus.")
    return match[1]


def _read_server_version(url: str) -> int:
    """The major version of the server."""
    with psycopg.connect(url, connect_timeout=10) as conn:
        return conn.info.server_version // 10_000


def _database_name(url: str) -> str:
    return str(conninfo_to_dict(url).get("dbname") or "")
