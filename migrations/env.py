"""Migration environment: one run at a time, bounded waits, and installation of the SQL functions at the end.

A migration adds a constraint to an existing table as NOT VALID: reading its rows is left to a transaction of its own,
whose lock holds up no call.
"""

import psycopg
import sqlalchemy as sa
from alembic import context

from bus.config.database_url import normalise_database_url
from bus.db import application_role
from bus.db.function_installation import install_functions
from bus.db.migrate import head_revision
from bus.db.schema_version import NewerSchemaError
from bus.db.sql_functions import DROP_FUNCTIONS_SQL, INSTALLED_FINGERPRINT_SQL, functions_fingerprint
from bus.tables import metadata

# Any constant that is the same in every migrating process.
_ADVISORY_KEY = 0x11B5_0001
_UNVALIDATED_SQL = (
    "SELECT conrelid::regclass::text, quote_ident(conname) FROM pg_constraint"
    " WHERE NOT convalidated AND connamespace = current_schema()::regnamespace"
)


def run() -> None:
    """Migrate the configured database, install the SQL functions if their text has changed, and grant privileges."""
    url = context.config.get_main_option("sqlalchemy.url")
    assert url is not None
    url = normalise_database_url(url)
    engine = sa.create_engine(
        "postgresql+psycopg://",
        creator=lambda: psycopg.connect(url, connect_timeout=10, application_name="llm-bus migrate"),
        poolclass=sa.pool.NullPool,
    )
    with engine.connect() as connection:
        # A concurrent migration waits here and then finds nothing left to do. The lock belongs to the transaction, so
        # it also works through a transaction-pooling proxy.
        connection.execute(sa.text("SET LOCAL statement_timeout = '10min'"))
        connection.execute(sa.text("SELECT pg_advisory_xact_lock(:key)"), {"key": _ADVISORY_KEY})
        # DDL must not wait for a long reader, as all later statements would queue behind it.
        connection.execute(sa.text("SET LOCAL lock_timeout = '5s'"))
        connection.execute(sa.text("SET LOCAL statement_timeout = '60s'"))
        context.configure(connection=connection, target_metadata=metadata, transaction_per_migration=False)
        driver = connection.connection.driver_connection
        assert isinstance(driver, psycopg.Connection)
        with context.begin_transaction():
            revision = context.get_context().get_current_revision()
            if revision is not None and revision > head_revision():
                raise NewerSchemaError(revision)
            installed = driver.execute(INSTALLED_FINGERPRINT_SQL).fetchone()
            if (revision, installed) != (
                head_revision(),
                (functions_fingerprint(),),
            ) or context.get_revision_argument() != head_revision():
                if context.get_revision_argument() != head_revision():
                    # All processes are stopped, and functions refer to row types that may go.
                    driver.execute(DROP_FUNCTIONS_SQL)
                context.run_migrations()
                if context.get_context().get_current_revision() == head_revision():
                    # Processes of the previous version go on with their calls.
                    install_functions(driver)
            role = context.config.attributes.get("application_role")
            if role and context.get_context().get_current_revision() == head_revision():
                application_role.create_or_update(driver, *role)
        is_newest = context.get_context().get_current_revision() == head_revision()
        connection.commit()
        if is_newest:
            _validate_constraints(connection)
    engine.dispose()


def _validate_constraints(connection: sa.Connection) -> None:
    """Validate the constraints that migrations added without reading the rows; calls go on meanwhile."""
    for table, name in connection.execute(sa.text(_UNVALIDATED_SQL)).all():
        connection.execute(sa.text("SET LOCAL lock_timeout = '5s'"))
        connection.execute(sa.text("SET LOCAL statement_timeout = '10min'"))
        try:
            connection.execute(sa.text(f"ALTER TABLE {table} VALIDATE CONSTRAINT {name}"))
        except sa.exc.IntegrityError:
            # A downgrade keeps rows that the newer version wrote; the constraint holds for all that come.
            connection.rollback()
        connection.commit()


run()
