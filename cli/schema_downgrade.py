"""Going back to the schema of an older version."""

import psycopg

from bus.db import migrate, schema_version
from cli.database_role import explain_migration_errors
from cli.exit_codes import CliError, ExitCode


def go_back(owner_url: str, revision: str) -> None:
    """Take the schema back to an older revision. The SQL functions are left out until the older version migrates.

    Raises:
        CliError: there is no such older revision, or processes are connected.
    """
    with psycopg.connect(owner_url, connect_timeout=10, application_name="llm-bus migrate") as conn:
        current = schema_version.find_schema_version(conn)
        row = conn.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
            " AND application_name LIKE 'llm-bus%%' AND application_name <> 'llm-bus migrate'"
        ).fetchone()
    if current is None or not ("0001" <= revision < current) or len(revision) != len(current):
        raise CliError(f"The schema is at {current or 'none'}; give an older revision, such as 0001.", ExitCode.USAGE)
    if row is not None and row[0]:
        raise CliError(f"{row[0]} connection(s) of the bus are open; stop web, gateway, worker and beat first.")
    with explain_migration_errors():
        migrate.downgrade(owner_url, revision)
