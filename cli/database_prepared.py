"""Check whether a database is already prepared; preparing it would cost a second of imports.

The last preparation stored in the data folder which fingerprint the SQL functions leave in the database. The database
must have that fingerprint; in any doubt it is prepared again.
"""

import contextlib
import json
from pathlib import Path

import psycopg

from bus.db import application_role, schema_version, sql_functions
from cli.files import write_private

_PREPARED_FILE = "prepared.json"


def is_ready(data: Path, url: str) -> bool:
    """Return whether the database has the schema and the functions of this code, and an owner."""
    try:
        prepared = json.loads((data / _PREPARED_FILE).read_text(encoding="utf-8"))
        if prepared["sql"] != _fingerprint():
            return False
        with psycopg.connect(url, connect_timeout=5) as conn:
            if schema_version.find_schema_version(conn) != schema_version.EXPECTED_SCHEMA_VERSION:
                return False
            mark = conn.execute(prepared["mark_sql"]).fetchone()
            owner = conn.execute("SELECT FROM owner LIMIT 1").fetchone()
    except (OSError, ValueError, KeyError, TypeError, psycopg.Error):
        return False
    return mark == (prepared["mark"],) and owner is not None


def record_prepared(data: Path, *, mark: str, mark_sql: str) -> None:
    """Record that `mark_sql` returns `mark` in a database that has the functions of this code."""
    with contextlib.suppress(OSError):
        write_private(
            data / _PREPARED_FILE,
            json.dumps({"sql": _fingerprint(), "mark": mark, "mark_sql": mark_sql}),
        )


def _fingerprint() -> str:
    return f"{sql_functions.functions_fingerprint()} {application_role.grants_fingerprint()}"
