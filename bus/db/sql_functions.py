"""SQL functions of the engine: the files `sql/*.sql` of its packages, installed by every migration.

Separate from bus/db/migrate.py, whose imports take a second.
"""

import hashlib
from collections.abc import Iterator
from importlib import resources
from importlib.resources.abc import Traversable

# In order of dependency: PostgreSQL checks the calls inside a function of language SQL when it creates the function.
SQL_FILES = (
    "db/sql/errors.sql",
    "tenancy/sql/participant_names.sql",
    "tenancy/sql/token_validity.sql",
    "tenancy/sql/memberships.sql",
    "tenancy/sql/authentication.sql",
    "tenancy/sql/invites.sql",
    "coordination/sql/event_numbering.sql",
    "coordination/sql/ledger.sql",
    "coordination/sql/idempotency.sql",
    "coordination/sql/sessions.sql",
    "coordination/sql/sequences.sql",
    "coordination/sql/posts.sql",
    "coordination/sql/leases.sql",
    "coordination/sql/give_back.sql",
    "coordination/sql/presence.sql",
    "coordination/sql/digest.sql",
    "coordination/sql/text_search.sql",
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
    """Return the text of all functions, in the order of installation."""
    return "\n".join(file.read_text(encoding="utf-8") for file in _files())


def functions_fingerprint() -> str:
    """Return the hash that `install_functions` stores in the database to identify the installed text."""
    return f"sha256:{hashlib.sha256(functions_sql().encode()).hexdigest()}"


INSTALLED_FINGERPRINT_SQL = (
    "SELECT obj_description(to_regprocedure('bus_authenticate(bigint, bigint, boolean)'), 'pg_proc')"
)


def _files() -> Iterator[Traversable]:
    for name in SQL_FILES:
        yield resources.files("bus").joinpath(*name.split("/"))
