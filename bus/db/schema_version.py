"""Which schema this code expects, and which one a database has; without the machinery that migrates."""

from typing import Any

import psycopg

EXPECTED_SCHEMA_VERSION = "0009"


def find_schema_version(conn: psycopg.Connection[Any]) -> str | None:
    """The revision that a database is at, or None where no migration ever ran."""
    if conn.execute("SELECT to_regclass('public.alembic_version')").fetchone() == (None,):
        return None
    row = conn.execute("SELECT version_num FROM alembic_version").fetchone()
    return str(row[0]) if row else None
