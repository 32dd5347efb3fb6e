"""Connections: one PostgreSQL connection in two idioms, and the mapping of database errors to the bus's own."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeAlias

import psycopg
import sqlalchemy as sa
from sqlalchemy.pool import QueuePool

from bus.db.error_mapping import DATABASE_AWAY, DATABASE_BUSY, raise_as_bus_error
from bus.errors import Unavailable

STATEMENT_TIMEOUT_MS = 5_000
LOCK_TIMEOUT_MS = 4_000

Params: TypeAlias = Sequence[Any] | Mapping[str, Any]
Row: TypeAlias = tuple[Any, ...]


class Connection:
    """One connection, seen through psycopg (`raw`, coordination verbs) and SQLAlchemy Core (`core`, tenancy).

    Both run in the same transaction, if one is open. Statements go through `one`, `maybe`, `all` and `run`,
    which turn database errors into the bus's own.

    Attributes:
        touched: what is told to whoever waits once this has committed; see `touch`.
    """

    __slots__ = ("core", "raw", "touched")

    def __init__(self, core: sa.Connection) -> None:
        self.core = core
        raw = core.connection.driver_connection
        assert isinstance(raw, psycopg.Connection)
        self.raw: psycopg.Connection[Row] = raw
        self.touched: dict[int, set[str]] = {}

    def touch(self, project_id: int, *kinds: str) -> None:
        """Say that things of these kinds (bus/coordination/change_notifications.py) change in a project, for those who wait to hear of it."""
        self.touched.setdefault(project_id, set()).update(kinds)

    def maybe(self, sql: str, params: Params = ()) -> Row | None:
        """Run one statement and return its first row, or None."""
        try:
            return self.raw.execute(sql.encode(), params).fetchone()
        except psycopg.Error as error:
            raise_as_bus_error(error)

    def one(self, sql: str, params: Params = ()) -> Row:
        """Run one statement that always has a row, and return it."""
        row = self.maybe(sql, params)
        assert row is not None, sql
        return row

    def all(self, sql: str, params: Params = ()) -> list[Row]:
        """Run one statement and return its rows."""
        try:
            return self.raw.execute(sql.encode(), params).fetchall()
        except psycopg.Error as error:
            raise_as_bus_error(error)

    def run(self, statement: sa.Executable) -> sa.CursorResult[*tuple[Any, ...]]:
        """Run a SQLAlchemy Core statement."""
        try:
            return self.core.execute(statement)
        except sa.exc.DBAPIError as error:
            if isinstance(error.orig, psycopg.Error):
                raise_as_bus_error(error.orig)
            raise


class Database:
    """A pool of connections to one PostgreSQL.

    Args:
        url: libpq URL.
        size: the most connections held; further callers wait up to `wait` seconds, then get `unavailable`.
        told: is given what each connection touched, after it has committed.
    """

    def __init__(
        self,
        url: str,
        *,
        size: int = 8,
        wait: float = 5.0,
        name: str = "llm-bus",
        told: Callable[[Mapping[int, set[str]]], None] | None = None,
    ) -> None:
        self.url = url
        self._told = told
        self._size = size
        # How often somebody waited for a connection in vain.
        self.exhausted = 0
        self.engine = sa.create_engine(
            "postgresql+psycopg://",
            creator=lambda: connect(url, name=name),
            # Transactions are psycopg's: a verb that is one statement pays for no BEGIN and COMMIT.
            isolation_level="AUTOCOMMIT",
            poolclass=QueuePool,
            pool_size=size,
            max_overflow=0,
            pool_timeout=wait,
            pool_reset_on_return=None,
            pool_use_lifo=True,
        )

    @contextmanager
    def call(self) -> Iterator[Connection]:
        """A connection without a transaction: each statement commits alone. For verbs that are one statement."""
        try:
            core = self.engine.connect()
        except sa.exc.TimeoutError:
            self.exhausted += 1
            raise Unavailable(DATABASE_BUSY) from None
        except (sa.exc.DBAPIError, psycopg.OperationalError) as error:
            raise Unavailable(DATABASE_AWAY) from error
        with core:
            raw = core.connection.driver_connection
            assert isinstance(raw, psycopg.Connection)
            conn = Connection(core)
            try:
                yield conn
            finally:
                if raw.closed:
                    # The server went away. What else the pool holds is as dead as this connection.
                    core.invalidate()
                    self.engine.dispose()
        if conn.touched and self._told is not None:
            self._told(conn.touched)

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """A connection inside a transaction that commits when the block ends and rolls back when it raises."""
        with self.call() as conn:
            try:
                with conn.raw.transaction():
                    yield conn
            except psycopg.Error as error:
                raise_as_bus_error(error)

    def usage(self) -> tuple[int, int, int]:
        """How many connections are in use, how many are idle, and how many there may be."""
        pool = self.engine.pool
        assert isinstance(pool, QueuePool)
        return pool.checkedout(), pool.checkedin(), self._size

    def close(self) -> None:
        """Close the idle connections; those in use close when they are given back."""
        self.engine.dispose()


def connect(url: str, *, name: str = "llm-bus") -> psycopg.Connection[Row]:
    """Open one connection in autocommit mode with the bus's timeouts and UTC."""
    options = " ".join(
        f"-c {setting}"
        for setting in (
            f"statement_timeout={STATEMENT_TIMEOUT_MS}",
            f"lock_timeout={LOCK_TIMEOUT_MS}",
            f"idle_in_transaction_session_timeout={2 * STATEMENT_TIMEOUT_MS}",
            "timezone=UTC",
            # The plans of the hot verbs do not depend on their arguments; JIT only costs at this size.
            "jit=off",
        )
    )
    return psycopg.connect(url, autocommit=True, options=options, application_name=name, connect_timeout=5)
