"""Bringing a database to the schema that this version of the code expects."""

import hashlib
from importlib import resources
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory

# Alphabetical order is not dependency order: the caller's functions are used by every other file.
SQL_FILES = ("caller", "ledger", "sequences", "posts", "leases", "presence", "digest", "purge")

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


def config(url: str) -> Config:
    """Alembic's configuration for a database, without an ini file."""
    configured = Config()
    configured.set_main_option("script_location", str(_migrations()))
    # Alembic's options are interpolated: a literal per cent sign in a password is doubled.
    configured.set_main_option("sqlalchemy.url", url.replace("%", "%%"))
    return configured


def migrate(url: str, revision: str = "head") -> None:
    """Bring the database to `revision` and install the functions of bus/sql.

    Safe to run twice at once: the second waits on an advisory lock and finds nothing left to do.
    """
    command.upgrade(config(url), revision)


def downgrade(url: str, revision: str) -> None:
    """Take the database back to `revision` (`base` for none)."""
    command.downgrade(config(url), revision)


def head() -> str:
    """The newest revision that this code knows."""
    revision = ScriptDirectory(str(_migrations())).get_current_head()
    assert revision is not None
    return revision


def functions_sql() -> str:
    """The text of every function of bus/sql, in the order of installation."""
    folder = resources.files("bus") / "sql"
    return "\n".join((folder / f"{name}.sql").read_text(encoding="utf-8") for name in SQL_FILES)


def functions_mark() -> str:
    """What `install_functions_sql` leaves on the database to say which text is installed."""
    return f"sha256:{hashlib.sha256(functions_sql().encode()).hexdigest()}"


def install_functions_sql() -> str:
    """SQL that installs the functions of bus/sql where none are; one script, for one transaction."""
    return f"{functions_sql()}\nCOMMENT ON FUNCTION bus_enter(bigint, bigint, boolean) IS '{functions_mark()}';"


INSTALLED_MARK_SQL = "SELECT obj_description(to_regprocedure('bus_enter(bigint, bigint, boolean)'), 'pg_proc')"


def _migrations() -> Path:
    return Path(str(resources.files("migrations")))
