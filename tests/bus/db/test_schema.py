"""The schema: migrations agree with the metadata and the SQL files, and coordination tables can be distributed."""

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa

from bus.db import Database, migrate, schema_version, sql_functions
from bus.tables import COORDINATION_TABLES, TENANCY_TABLES, metadata
from tests.concurrency import stretched, wait_until

# Comments on tables are left out: tables.py may explain a table better than the migration that created it.
_CATALOGS = {
    "columns": """
        SELECT c.relname, a.attname, row_number() OVER (PARTITION BY c.oid ORDER BY a.attnum),
               format_type(a.atttypid, a.atttypmod), a.attnotnull, a.attidentity, a.attgenerated, a.attstorage,
               pg_get_expr(d.adbin, d.adrelid), coll.collname
        FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
        LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
        LEFT JOIN pg_collation coll ON coll.oid = a.attcollation
        WHERE c.relnamespace = 'public'::regnamespace AND c.relkind = 'r' AND a.attnum > 0 AND NOT a.attisdropped
        ORDER BY c.relname, a.attnum""",
    "constraints": """
        SELECT c.relname, k.conname, k.contype, k.convalidated, k.condeferrable, pg_get_constraintdef(k.oid)
        FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid
        WHERE c.relnamespace = 'public'::regnamespace ORDER BY c.relname, k.conname""",
    "indexes": """
        SELECT pg_get_indexdef(i.indexrelid) FROM pg_index i JOIN pg_class c ON c.oid = i.indrelid
        WHERE c.relnamespace = 'public'::regnamespace ORDER BY 1""",
    "options": """
        SELECT c.relname, c.relkind, c.relpersistence, c.reloptions
        FROM pg_class c WHERE c.relnamespace = 'public'::regnamespace ORDER BY c.relname""",
}
_FUNCTIONS = """
    SELECT p.oid::regprocedure::text, l.lanname, p.provolatile, p.proretset, pg_get_function_result(p.oid), p.prosrc
    FROM pg_proc p JOIN pg_language l ON l.oid = p.prolang
    WHERE p.pronamespace = 'public'::regnamespace AND p.proname LIKE 'bus\\_%' ORDER BY 1"""


def _catalogs(url: str) -> dict[str, list[tuple[Any, ...]]]:
    with psycopg.connect(url) as conn:
        catalogs = {name: conn.execute(query).fetchall() for name, query in _CATALOGS.items()}
    return {
        name: [row for row in rows if not any(isinstance(cell, str) and "alembic_version" in cell for cell in row)]
        for name, rows in catalogs.items()
    }


def _functions(url: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(url) as conn:
        return conn.execute(_FUNCTIONS).fetchall()


def _objects(url: str) -> set[str]:
    """Return the names of all tables, sequences, indexes and functions in public."""
    query = (
        "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace"
        " UNION ALL SELECT proname FROM pg_proc WHERE pronamespace = 'public'::regnamespace"
    )
    with psycopg.connect(url) as conn:
        return {name for (name,) in conn.execute(query)}


def test_migrating_an_empty_database_creates_exactly_the_metadata(database_url: str, empty_database_url: str) -> None:
    engine = sa.create_engine(
        "postgresql+psycopg://",
        creator=lambda: psycopg.connect(empty_database_url),
        poolclass=sa.pool.NullPool,
    )
    metadata.create_all(engine)
    migrated, created = _catalogs(database_url), _catalogs(empty_database_url)
    for name in _CATALOGS:
        assert migrated[name] == created[name]
    assert len(migrated["columns"]) == sum(len(table.columns) for table in metadata.tables.values())


def test_a_downgrade_removes_everything_and_an_upgrade_restores_it(database_url: str) -> None:
    before, functions = _catalogs(database_url), _functions(database_url)
    migrate.downgrade(database_url, "base")
    assert _objects(database_url) <= {"alembic_version", "alembic_version_pkc"}
    with psycopg.connect(database_url) as conn:
        assert schema_version.find_schema_version(conn) is None
    migrate.migrate(database_url)
    assert _catalogs(database_url) == before
    assert _functions(database_url) == functions
    with psycopg.connect(database_url) as conn:
        assert schema_version.find_schema_version(conn) == migrate.head_revision()


def test_a_database_without_migrations_has_no_revision(empty_database_url: str) -> None:
    with psycopg.connect(empty_database_url) as conn:
        assert schema_version.find_schema_version(conn) is None


def test_the_installed_functions_are_those_of_the_files(database_url: str) -> None:
    installed = _functions(database_url)
    with psycopg.connect(database_url) as conn:
        conn.execute(sql_functions.DROP_FUNCTIONS_SQL)
        conn.execute(sql_functions.functions_sql().encode())
    assert _functions(database_url) == installed
    assert len(installed) == sql_functions.functions_sql().count("CREATE FUNCTION bus_")


def test_the_revision_that_the_code_expects_is_the_newest_migration() -> None:
    assert migrate.head_revision() == schema_version.EXPECTED_SCHEMA_VERSION


def test_every_file_of_functions_is_installed() -> None:
    engine = Path(migrate.__file__).parents[1]
    assert {path.relative_to(engine).as_posix() for path in engine.rglob("*.sql")} == set(sql_functions.SQL_FILES)


def test_migrating_again_changes_only_functions_whose_text_has_changed(
    database_url: str,
) -> None:
    query = "SELECT oid FROM pg_proc WHERE proname = 'bus_claim'"
    with psycopg.connect(database_url, autocommit=True) as conn:
        before = conn.execute(query).fetchone()
        migrate.migrate(database_url)
        assert conn.execute(query).fetchone() == before
        conn.execute("COMMENT ON FUNCTION bus_authenticate(bigint, bigint, boolean) IS 'sha256:older'")
        conn.execute("DROP FUNCTION bus_claim")
        migrate.migrate(database_url)
        assert conn.execute(query).fetchone() not in (before, None)
        assert conn.execute(sql_functions.INSTALLED_FINGERPRINT_SQL).fetchone() == (
            sql_functions.functions_fingerprint(),
        )


def test_functions_of_another_version_are_replaced_in_place_and_the_rest_dropped(database_url: str) -> None:
    """A call that is under way finds the function that it calls, whatever its text."""
    functions, query = _functions(database_url), "SELECT 'bus_authenticate(bigint, bigint, boolean)'::regprocedure::oid"
    with psycopg.connect(database_url, autocommit=True) as conn:
        before = conn.execute(query).fetchone()
        conn.execute(
            "COMMENT ON FUNCTION bus_authenticate(bigint, bigint, boolean) IS 'sha256:older';"
            # Gone in this version; with other arguments; with another name of an argument; with another result.
            "CREATE FUNCTION bus_gone(text) RETURNS text LANGUAGE sql AS 'SELECT $1';"
            "CREATE FUNCTION bus_claim(text) RETURNS text LANGUAGE sql AS 'SELECT $1';"
            "DROP FUNCTION bus_qualified_name; DROP FUNCTION bus_has_access;"
            "CREATE FUNCTION bus_qualified_name(older text, label text) RETURNS text LANGUAGE sql AS 'SELECT older';"
            "CREATE FUNCTION bus_has_access(bigint) RETURNS bigint LANGUAGE sql AS 'SELECT 1::bigint'"
        )
        migrate.migrate(database_url)
        assert conn.execute(query).fetchone() == before
    assert _functions(database_url) == functions


def test_two_concurrent_migrations_both_succeed(empty_database_url: str) -> None:
    """Both processes wait for the advisory lock, which this test holds."""
    program = "import sys; from bus.db.migrate import migrate; migrate(sys.argv[1])"
    waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"  # noqa: E501
    with psycopg.connect(empty_database_url, autocommit=True) as conn:
        with conn.transaction():
            conn.execute("SELECT pg_advisory_xact_lock(%s)", (0x11B5_0001,))
            processes = [
                subprocess.Popen(
                    [sys.executable, "-c", program, empty_database_url],
                    stderr=subprocess.PIPE,
                    text=True,
                    env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
                )
                for _ in range(2)
            ]

            def are_waiting() -> bool:
                assert all(process.poll() is None for process in processes)
                return conn.execute(waiting).fetchone() == (2,)

            wait_until(are_waiting)
        errors = [process.communicate(timeout=150)[1] for process in processes]
        assert [process.returncode for process in processes] == [0, 0], errors
        assert schema_version.find_schema_version(conn) == migrate.head_revision()
        assert conn.execute(sql_functions.INSTALLED_FINGERPRINT_SQL).fetchone() == (
            sql_functions.functions_fingerprint(),
        )


def test_a_constraint_is_validated_while_events_are_written(database_url: str) -> None:
    """The lock that reading a table for a constraint needs holds up neither readers nor writers."""
    unvalidated = "SELECT count(*) FROM pg_constraint WHERE NOT convalidated"
    with psycopg.connect(database_url, autocommit=True) as conn, psycopg.connect(database_url) as writer:
        migrate.downgrade(database_url, "0021")
        assert conn.execute(unvalidated).fetchone() == (3,)
        migrate.migrate(database_url)
        assert conn.execute(unvalidated).fetchone() == (0,)
        conn.execute("ALTER TABLE event DROP CONSTRAINT event_type_check")
        conn.execute("ALTER TABLE event ADD CONSTRAINT event_type_check CHECK (type <> 'x') NOT VALID")
        # What an uncommitted insert holds.
        writer.execute("LOCK TABLE event IN ROW EXCLUSIVE MODE")
        migrate.migrate(database_url)
        assert conn.execute(unvalidated).fetchone() == (0,)


def test_a_constraint_that_rows_of_a_newer_version_violate_stays_unvalidated(database_url: str) -> None:
    with psycopg.connect(database_url, autocommit=True) as conn:
        conn.execute("ALTER TABLE price DROP CONSTRAINT price_event_type_check")
        conn.execute("ALTER TABLE price ADD CONSTRAINT price_event_type_check CHECK (event_type <> 'claim') NOT VALID")
        migrate.migrate(database_url)
        assert conn.execute(
            "SELECT convalidated FROM pg_constraint WHERE conname = 'price_event_type_check'"
        ).fetchone() == (False,)


def test_every_table_is_either_tenancy_or_coordination() -> None:
    assert {table.name for table in COORDINATION_TABLES} == {
        "project_clock", "event", "sequence", "post", "delivery", "lease", "task", "task_blocker", "presence",
        "cursor", "ack_cursor", "waiter", "idempotency", "meter_mark", "tally", "tally_mark", "report",
        "agent_session", "session_cursor", "session_post", "seen_delivery", "imported_id", "project_import",
        "search_document",
    }  # fmt: skip
    assert not TENANCY_TABLES & COORDINATION_TABLES


@pytest.mark.parametrize("table", sorted(table.name for table in COORDINATION_TABLES))
def test_a_coordination_table_can_be_distributed_by_project(shared_database_url: str, table: str) -> None:
    with psycopg.connect(shared_database_url) as conn:
        leading = conn.execute(
            "SELECT i.indexrelid::regclass::text, a.attname, i.indisunique FROM pg_index i"
            " LEFT JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0]"
            # Entries of a GIN index have no order of columns; those of a search begin with the project.
            " WHERE i.indrelid = %s::regclass AND (SELECT a.amname FROM pg_class c JOIN pg_am a ON a.oid = c.relam"
            "  WHERE c.oid = i.indexrelid) = 'btree'",
            (table,),
        ).fetchall()
        keys = conn.execute(
            "SELECT conname FROM pg_constraint WHERE contype = 'f' AND (conrelid = %(t)s::regclass"
            " OR confrelid = %(t)s::regclass)",
            {"t": table},
        ).fetchall()
    assert any(unique for _, _, unique in leading)
    assert {column for _, column, _ in leading} == {"project_id"}
    # No foreign keys: none from the ledger to hot rows, none across shards.
    assert keys == []


def test_the_project_clock_has_free_space_for_updates_in_place(shared_database_url: str) -> None:
    with psycopg.connect(shared_database_url) as conn:
        (options,) = conn.execute("SELECT reloptions FROM pg_class WHERE relname = 'project_clock'").fetchone() or ()
    assert options == ["fillfactor=10"]


def test_every_connection_has_bounded_waits_and_utc(db: Database) -> None:
    with db.connection() as conn:
        (zone,) = conn.fetch_one("SHOW timezone")
        limits = {
            name: conn.fetch_one("SELECT setting::integer FROM pg_settings WHERE name = %s", (name,))[0]
            for name in ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout")
        }
    assert zone == "UTC"
    assert 0 < limits["lock_timeout"] < limits["statement_timeout"] <= 5_000
    assert 0 < limits["idle_in_transaction_session_timeout"] <= 10_000


def test_a_migration_waits_no_longer_than_its_lock_timeout(database_url: str) -> None:
    """DDL that waits for a long reader gives up, so that other statements do not queue behind it."""
    with psycopg.connect(database_url) as reader:
        reader.execute("SELECT FROM event")
        started = time.monotonic()
        with pytest.raises((psycopg.errors.LockNotAvailable, sa.exc.OperationalError), match="lock timeout"):
            migrate.downgrade(database_url, "base")
        assert time.monotonic() - started < stretched(20)
    assert _functions(database_url)
