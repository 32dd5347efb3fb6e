"""The role of the processes, as commands and the doctor explain it."""

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
import sqlalchemy as sa

from bus.db.application_role import RoleNotCreatedError
from bus.db.schema_version import NewerSchemaError
from cli.exit_codes import CliError


@contextmanager
def explain_migration_errors() -> Iterator[None]:
    """Turn refusals of PostgreSQL during a migration into messages that say which variable to set.

    Raises:
        CliError: the role may not migrate, the role of the processes could not be created, or the schema is of a newer
            version.
    """
    try:
        yield
    except (RoleNotCreatedError, NewerSchemaError) as error:
        raise CliError(str(error)) from error
    except (psycopg.errors.InsufficientPrivilege, sa.exc.ProgrammingError) as error:
        cause = error.orig if isinstance(error, sa.exc.ProgrammingError) else error
        if not isinstance(cause, psycopg.errors.InsufficientPrivilege):
            raise
        reason = str(cause).partition("\n")[0]
        raise CliError(
            f"The role of DATABASE_URL may not change the schema ({reason}). Set MIGRATION_DATABASE_URL to the URL of"
            " the owner of the schema, and run the command again."
        ) from error
