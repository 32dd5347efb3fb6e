"""Whether a database needs preparing at all; asked first, because preparing costs a second of imports.

Which mark the functions of bus/sql leave in a database was found out when it was last prepared; it lies in
the data folder. The database itself has to carry it; in any doubt it is prepared again.
"""

import contextlib
import hashlib
import json
from importlib import resources
from pathlib import Path

import psycopg

from bus import revision
from cli.files import write_private

_FILE = "prepared.json"


def is_ready(data: Path, url: str) -> bool:
    """Whether the database has the schema and the functions of this code, and an owner."""
    try:
        known = json.loads((data / _FILE).read_text(encoding="utf-8"))
        if known["sql"] != _fingerprint():
            return False
        with psycopg.connect(url, connect_timeout=5) as conn:
            if revision.current(conn) != revision.EXPECTED:
                return False
            mark = conn.execute(known["mark_sql"]).fetchone()
            owner = conn.execute("SELECT FROM owner LIMIT 1").fetchone()
    except (OSError, ValueError, KeyError, TypeError, psycopg.Error):
        return False
    return mark == (known["mark"],) and owner is not None


def remember(data: Path, *, mark: str, mark_sql: str) -> None:
    """Write down that `mark_sql` returns `mark` in a database that has the functions of this code."""
    with contextlib.suppress(OSError):
        write_private(data / _FILE, json.dumps({"sql": _fingerprint(), "mark": mark, "mark_sql": mark_sql}))


def _fingerprint() -> str:
    """Of every file of bus/sql."""
    digest = hashlib.sha256()
    for file in sorted((resources.files("bus") / "sql").iterdir(), key=lambda entry: entry.name):
        if file.name.endswith(".sql"):
            digest.update(f"{file.name}\0".encode() + file.read_bytes() + b"\0")
    return digest.hexdigest()
