"""The schema version that this code expects and the one that a database has; imports no migration tool."""

from typing import Any

import psycopg

EXPECTED_SCHEMA_VERSION = "0029"


class NewerSchemaError(Exception):
    """The database has a schema that only a newer version can migrate."""

    def __init__(self, version: str) -> None:
        super().__init__(
            f"The database has the schema {version} of a newer version; this version knows {EXPECTED_SCHEMA_VERSION}."
            " Go on with the newer version, or go back with it first: stop all processes and run"
            f" `llm-bus migrate --to {EXPECTED_SCHEMA_VERSION}`."
        )


def find_schema_version(conn: psycopg.Connection[Any]) -> str | None:
    """Return the migration revision of a database, or None if none ever ran."""
    if conn.execute("SELECT to_regclass('public.alembic_version')").fetchone() == (None,):
        return None
    row = conn.execute("SELECT version_num FROM alembic_version").fetchone()
    return str(row[0]) if row else None


def is_sufficient(version: str | None) -> bool:
    """Whether this code works with a schema: the expected one, or a newer one, as in the middle of an upgrade."""
    return version is not None and version >= EXPECTED_SCHEMA_VERSION
