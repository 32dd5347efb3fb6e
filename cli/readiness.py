"""Whether a database needs preparing at all; asked first, because preparing costs a second of imports.

Which mark the functions of bus/sql leave in a database was found out when it was last prepared; it lies in
the data folder. The database itself has to carry it; in any doubt it is prepared again.
"""

import contextlib
import json
from pathlib import Path

import psycopg

from bus.db import schema_version, sql_functions
from cli.files import write_private

_PREPARED_FILE = "prepared.json"


def is_ready(data: Path, url: str) -> bool:
    """Whether the database has the schema and the functions of this code, and an owner."""
    try:
        known = json.loads((data / _PREPARED_FILE).read_text(encoding="utf-8"))
        if known["sql"] != sql_functions.functions_fingerprint():
            return False
        with psycopg.connect(url, connect_timeout=5) as conn:
            if schema_version.find_schema_version(conn) != schema_version.EXPECTED_SCHEMA_VERSION:
                return False
            mark = conn.execute(known["mark_sql"]).fetchone()
            owner = conn.execute("SELECT FROM owner LIMIT 1").fetchone()
    except (OSError, ValueError, KeyError, TypeError, psycopg.Error):
        return False
    return mark == (known["mark"],) and owner is not None


def record_prepared(data: Path, *, mark: str, mark_sql: str) -> None:
    """Write down that `mark_sql` returns `mark` in a database that has the functions of this code."""
    with contextlib.suppress(OSError):
        write_private(
            data / _PREPARED_FILE,
            json.dumps({"sql": sql_functions.functions_fingerprint(), "mark": mark, "mark_sql": mark_sql}),
        )
