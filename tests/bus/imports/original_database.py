"""A database of the original's shape, of any size, with the kinds of damage that real ones have.

python -m tests.bus.imports.original_database postgresql://… --events 100000 --tokens 50
"""

import argparse
import base64
import hashlib
from pathlib import Path
from typing import Any

import psycopg

_FOLDER = Path(__file__).parent


def token_text(number: int) -> str:
    """Return a token of the original's form: 32 bytes in base64url."""
    return base64.urlsafe_b64encode(hashlib.sha256(f"token {number}".encode()).digest()).rstrip(b"=").decode()


def create(url: str, *, events: int, tokens: int) -> None:
    """Create a database of the original's shape in the empty database at `url`.

    Args:
        tokens: how many agents the first project has; each has a token, `token_text(n)` for agent n. The token of the
            last agent is revoked.
    """
    with psycopg.connect(url, autocommit=True) as conn:
        conn.execute((_FOLDER / "original_schema.sql").read_bytes())
        for statement in (_FOLDER / "original_data.sql").read_text().split(";\n"):
            _execute(conn, statement, {"events": events, "agents": tokens})
        for number in range(1, tokens + 1):
            conn.execute(
                "INSERT INTO tokens (participation_id, token_hash, label, revoked_at)"
                " VALUES (%s, %s, %s, CASE WHEN %s THEN now() END)",
                (number, hashlib.sha256(token_text(number).encode()).hexdigest(), "laptop", number == tokens),
            )
        conn.execute("ANALYZE")


def _execute(conn: psycopg.Connection[Any], statement: str, params: dict[str, int]) -> None:
    if statement.strip():
        conn.execute(statement.encode(), params)


def main() -> None:
    """Create the database that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("--events", type=int, default=1000)
    parser.add_argument("--tokens", type=int, default=5)
    options = parser.parse_args()
    create(options.url, events=options.events, tokens=options.tokens)


if __name__ == "__main__":
    main()
