"""Installation of the SQL functions into a database whose processes go on with their calls."""

import re
from collections.abc import Iterator

import psycopg
from psycopg import errors

from bus.db.sql_functions import functions_fingerprint, functions_sql

_STATEMENT = re.compile(r"^CREATE FUNCTION (bus_\w+).*?(?=^CREATE |\Z)", re.MULTILINE | re.DOTALL)
# A function that is created or replaced has another xmin.
_INSTALLED_SQL = """
    SELECT p.oid::regprocedure::text, p.xmin::text FROM pg_proc p
    WHERE p.pronamespace = 'public'::regnamespace AND p.proname LIKE 'bus\\_%'
      AND NOT EXISTS (SELECT FROM pg_trigger t WHERE t.tgfoid = p.oid)
"""
_NAMED_SQL = """
    SELECT oid::regprocedure::text FROM pg_proc WHERE pronamespace = 'public'::regnamespace AND proname = %s
"""


def install_functions(conn: psycopg.Connection) -> None:
    """Bring the functions of the database to those of the files, in the caller's transaction.

    Each is replaced in place and keeps its oid: a call of a process that is under way while a function is dropped and
    created again fails with "cache lookup failed for function". PostgreSQL keeps the names of arguments and the columns
    of the result, so a function that changes them is dropped all the same.
    """
    before = set(conn.execute(_INSTALLED_SQL).fetchall())
    for name, statement in _statements():
        try:
            with conn.transaction():
                conn.execute(statement.replace("CREATE FUNCTION", "CREATE OR REPLACE FUNCTION", 1).encode())
        except (errors.InvalidFunctionDefinition, errors.WrongObjectType):
            for (routine,) in conn.execute(_NAMED_SQL, (name,)).fetchall():
                _drop(conn, routine)
            conn.execute(statement.encode())
    for routine, _ in before & set(conn.execute(_INSTALLED_SQL).fetchall()):
        _drop(conn, routine)
    conn.execute(
        f"COMMENT ON FUNCTION bus_authenticate(bigint, bigint, boolean) IS '{functions_fingerprint()}'".encode()
    )


def _statements() -> Iterator[tuple[str, str]]:
    for match in _STATEMENT.finditer(functions_sql()):
        yield match[1], match[0]


def _drop(conn: psycopg.Connection, routine: str) -> None:
    # PostgreSQL quotes the text of a regprocedure where that is needed.
    conn.execute(f"DROP ROUTINE {routine}".encode())
