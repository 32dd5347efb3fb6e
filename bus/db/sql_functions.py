"""The functions of the database: SQL files of the engine's packages, installed by every migration.

Kept apart from bus/db/migrate.py, whose imports cost a second.
"""

import hashlib
from collections.abc import Iterator
from importlib import resources
from importlib.resources.abc import Traversable

# In the order of dependency: a function in plain SQL is checked against what it calls when it is created.
SQL_FILES = (
    "db/sql/errors.sql",
    "tenancy/sql/names.sql",
    "tenancy/sql/authentication.sql",
    "coordination/sql/ledger.sql",
    "coordination/sql/idempotency.sql",
    "coordination/sql/sequences.sql",
    "coordination/sql/posts.sql",
    "coordination/sql/leases.sql",
    "coordination/sql/presence.sql",
    "coordination/sql/digest.sql",
    "operations/sql/purge.sql",
)

DROP_FUNCTIONS_SQL = """
DO $$
DECLARE routine regprocedure;
BEGIN
    FOR routine IN
        SELECT p.oid::regprocedure FROM pg_proc p
        WHERE p.pronamespace = 'public'::regnamespace AND p.proname LIKE 'bus\\_%'
          AND NOT EXISTS (SELECT FROM pg_trigger t WHERE t.tgfoid = p.oid)
    LOOP
        EXECUTE format('DROP ROUTINE %s', routine);
    END LOOP;
END $$;
"""


def functions_sql() -> str:
    """The text of every function of bus/sql, in the order of installation."""
    return "\n".join(file.read_text(encoding="utf-8") for file in _files())


def functions_fingerprint() -> str:
    """What `install_functions_sql` leaves on the database to say which text is installed."""
    return f"sha256:{hashlib.sha256(functions_sql().encode()).hexdigest()}"


def install_functions_sql() -> str:
    """SQL that installs the functions of bus/sql where none are; one script, for one transaction."""
    return f"{functions_sql()}\nCOMMENT ON FUNCTION bus_authenticate(bigint, bigint, boolean) IS '{functions_fingerprint()}';"


INSTALLED_FINGERPRINT_SQL = (
    "SELECT obj_description(to_regprocedure('bus_authenticate(bigint, bigint, boolean)'), 'pg_proc')"
)


def _files() -> Iterator[Traversable]:
    for name in SQL_FILES:
        yield resources.files("bus").joinpath(*name.split("/"))
