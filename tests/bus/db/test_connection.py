"""Connections: transactions, and the errors of a busy, slow, unavailable or refusing PostgreSQL."""

import threading
from contextlib import closing
from dataclasses import dataclass

import psycopg
import pytest
import sqlalchemy as sa

from bus.coordination import sequences
from bus.db import Connection, Database, connect
from bus.errors import BusError, NotAuthenticated, Unavailable
from bus.tenancy.tables import owner
from tests import factories
from tests.assertions import assert_ledger_consistent


def test_a_transaction_commits_completely_or_not_at_all(db: Database) -> None:
    with db.transaction() as conn:
        agent = factories.make_agent(conn)

    def claim_and_stop() -> None:
        with db.transaction() as conn:
            sequences.claim(conn, agent.ctx, "s")
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        claim_and_stop()
    with db.transaction() as conn:
        assert sequences.claim(conn, agent.ctx, "s").number == 1
    with db.connection() as conn:
        assert assert_ledger_consistent(conn, agent.ctx.project_id) == 1


def test_without_a_transaction_each_statement_commits_alone(db: Database) -> None:
    with db.transaction() as conn:
        agent = factories.make_agent(conn)

    def claim_and_stop() -> None:
        with db.connection() as conn:
            sequences.claim(conn, agent.ctx, "s")
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        claim_and_stop()
    with db.connection() as conn:
        assert sequences.claim(conn, agent.ctx, "s").number == 2


def test_both_idioms_are_one_transaction(db: Database) -> None:
    def write_both_ways_and_stop() -> None:
        with db.transaction() as conn:
            added = factories.make_owner(conn)
            assert conn.fetch_one("SELECT handle FROM owner WHERE id = %s", (added.id,)) == (added.handle,)
            conn.execute(sa.update(owner).where(owner.c.id == added.id).values(operator=True))
            assert conn.fetch_one("SELECT operator FROM owner WHERE id = %s", (added.id,)) == (True,)
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        write_both_ways_and_stop()
    with db.connection() as conn:
        assert conn.fetch_all("SELECT 1 FROM owner") == []


def test_a_connection_is_clean_after_a_failed_transaction(database_url: str) -> None:
    with closing(Database(database_url, pool_size=1)) as db:
        for _ in range(3):
            with pytest.raises(psycopg.errors.DivisionByZero), db.transaction() as conn:
                conn.execute("SELECT 1 / 0")
            with db.connection() as conn:
                assert conn.raw.info.transaction_status == psycopg.pq.TransactionStatus.IDLE
                assert conn.fetch_one("SELECT 1") == (1,)


def test_a_statement_that_takes_too_long_is_cut_off_with_advice(conn: Connection) -> None:
    conn.raw.execute("SET LOCAL statement_timeout = '20ms'")
    with pytest.raises(BusError) as caught, conn.raw.transaction():
        conn.execute("SELECT pg_sleep(10)")
    assert caught.value.code == "unavailable"
    assert "Narrow it" in caught.value.message


def test_a_lock_timeout_is_reported_as_busy(db: Database) -> None:
    with db.transaction() as conn:
        agent = factories.make_agent(conn)
    with db.transaction() as holder:
        holder.execute("SELECT bus_lock_clock(%s)", (agent.ctx.project_id,))
        with db.connection() as conn:
            conn.raw.execute("SET lock_timeout = '20ms'")
            with pytest.raises(Unavailable, match="busy"):
                sequences.claim(conn, agent.ctx, "s")
    with db.transaction() as conn:
        assert sequences.claim(conn, agent.ctx, "s").number == 1


def test_an_exhausted_pool_is_reported_as_busy(database_url: str) -> None:
    with closing(Database(database_url, pool_size=1, pool_timeout=0.05)) as db, db.connection():
        errors: list[BaseException] = []

        def connect_too() -> None:
            try:
                with db.connection():
                    pass
            except Unavailable as error:
                errors.append(error)

        thread = threading.Thread(target=connect_too)
        thread.start()
        thread.join()
        assert "busy" in str(errors[0])


def test_a_database_that_was_away_is_used_again(database_url: str) -> None:
    with closing(Database("postgresql://x@127.0.0.1:1/none")) as away, pytest.raises(Unavailable), away.connection():
        pass
    with closing(Database(database_url, pool_size=3)) as db:
        with db.connection() as first, db.connection():
            (victims,) = first.fetch_one(
                "SELECT array_agg(pid) FROM pg_stat_activity WHERE application_name = 'llm-bus'"
                " AND datname = current_database()"
            )
        assert len(victims) == 2
        # Terminate every connection of the pool, as a restart of the server does.
        with psycopg.connect(database_url, autocommit=True) as killer:
            for pid in victims:
                killer.execute("SELECT pg_terminate_backend(%s, 5000)", (pid,))
        with pytest.raises(Unavailable), db.connection() as conn:
            conn.execute("SELECT 1")
        for _ in range(3):
            with db.connection() as conn:
                assert conn.fetch_one("SELECT 1") == (1,)


def test_a_connection_that_dies_inside_a_transaction_is_unavailable(database_url: str) -> None:
    with closing(Database(database_url, pool_size=2)) as db:

        def die() -> None:
            with db.transaction() as conn:
                with psycopg.connect(database_url, autocommit=True) as killer:
                    killer.execute("SELECT pg_terminate_backend(%s, 5000)", (conn.raw.info.backend_pid,))
                conn.execute("SELECT 1")

        with pytest.raises(Unavailable):
            die()
        with db.transaction() as conn:
            assert conn.fetch_one("SELECT 1") == (1,)


def test_an_idle_transaction_is_ended_and_reported_as_unavailable(database_url: str) -> None:
    with closing(Database(database_url, pool_size=1)) as db:

        def idle() -> None:
            with db.transaction() as conn:
                conn.raw.execute("SET LOCAL idle_in_transaction_session_timeout = '1ms'")
                with closing(connect(database_url)) as other:
                    pid = conn.raw.info.backend_pid
                    while other.execute("SELECT 1 FROM pg_stat_activity WHERE pid = %s", (pid,)).fetchone():
                        pass
                conn.execute("SELECT 1")

        with pytest.raises(Unavailable):
            idle()
        with db.transaction() as conn:
            assert conn.fetch_one("SELECT 1") == (1,)


@dataclass(frozen=True)
class _Point:
    x: int
    y: int
    label: str = "none"


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("SELECT 1 AS x, 2 AS y, 'a' AS label", _Point(1, 2, "a")),
        ("SELECT 2 AS y, 'a' AS label, 1 AS x", _Point(1, 2, "a")),
        ("SELECT 1 AS x, 2 AS y", _Point(1, 2)),
    ],
)
def test_columns_are_matched_to_fields_by_name(conn: Connection, sql: str, expected: _Point) -> None:
    assert conn.fetch_one_as(_Point, sql) == expected
    assert conn.fetch_all_as(_Point, sql) == [expected]
    assert conn.fetch_one_or_none_as(_Point, f"{sql} WHERE false") is None


def test_a_column_without_a_field_is_an_error(conn: Connection) -> None:
    with pytest.raises(TypeError, match="z"):
        conn.fetch_all_as(_Point, "SELECT 1 AS x, 2 AS y, 3 AS z")
    with pytest.raises(TypeError, match="y"):
        conn.fetch_all_as(_Point, "SELECT 1 AS x, 'a' AS label")


def test_errors_of_sql_functions_carry_code_and_facts(conn: Connection) -> None:
    with pytest.raises(BusError) as caught, conn.raw.transaction():
        conn.execute("SELECT bus_refuse('conflict', 'Say %%s and \"no\".', '{\"current\": 4}')")
    assert (caught.value.code, caught.value.message, caught.value.data) == (
        "conflict", 'Say %s and "no".', {"current": 4},
    )  # fmt: skip
    with pytest.raises(NotAuthenticated), conn.raw.transaction():
        conn.execute("SELECT bus_authenticate(1, 1, true)")


def test_a_programming_error_is_raised_unchanged(conn: Connection) -> None:
    with pytest.raises(psycopg.errors.UndefinedTable), conn.raw.transaction():
        conn.execute("SELECT * FROM no_such_table")
    with pytest.raises(psycopg.errors.UndefinedTable), conn.raw.transaction():
        conn.execute(sa.text("SELECT * FROM no_such_table"))
    with pytest.raises(psycopg.errors.CheckViolation), conn.raw.transaction():
        conn.execute("UPDATE owner SET handle = 'NOT A HANDLE' WHERE id = %s", (factories.make_owner(conn).id,))
