"""Connections to PostgreSQL: a pool, transactions, and statements in two idioms."""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeAlias, TypeVar, cast, overload

import msgspec
import psycopg
import sqlalchemy as sa
from psycopg.types.json import set_json_loads
from sqlalchemy.pool import QueuePool

from bus.db.error_mapping import DATABASE_AWAY, DATABASE_BUSY, raise_as_bus_error
from bus.errors import Unavailable

STATEMENT_TIMEOUT_MS = 5_000
LOCK_TIMEOUT_MS = 4_000

Params: TypeAlias = Sequence[Any] | Mapping[str, Any]
Row: TypeAlias = tuple[Any, ...]
T = TypeVar("T")


class Connection:
    """One connection in two idioms: psycopg (`raw`) for coordination, SQLAlchemy Core (`core`) for tenancy.

    Both run in the same transaction, if one is open. All statements go through the methods below, which raise the
    engine's errors in place of PostgreSQL's.

    Attributes:
        pending_topics: changed topics by project id, published after the commit; see `notify_on_commit`.
    """

    __slots__ = ("core", "pending_topics", "raw")

    def __init__(self, core: sa.Connection) -> None:
        self.core = core
        raw = core.connection.driver_connection
        assert isinstance(raw, psycopg.Connection)
        self.raw: psycopg.Connection[Row] = raw
        self.pending_topics: dict[int, set[str]] = {}

    def _send(self, sql: str, params: Params) -> Any:
        """Run a statement and return its cursor."""
        return self.raw.execute(sql.encode(), params)

    def notify_on_commit(self, project_id: int, *topics: str) -> None:
        """Publish that these topics of a project changed, once the transaction has committed."""
        self.pending_topics.setdefault(project_id, set()).update(topics)

    def enter_project(self, project_id: int) -> None:
        """Limit what the transaction writes to rows of a project, as `bus_authenticate` and `bus_lock_clock` do."""
        self.execute("SELECT set_config('llm_bus.project_scope', %s, true)", (str(project_id),))

    def enter_all_projects(self) -> None:
        """Let the transaction write rows of every project from here on."""
        self.execute("SELECT set_config('llm_bus.project_scope', '', true)")

    @overload
    def execute(self, statement: str, params: Params = ()) -> int: ...

    @overload
    def execute(self, statement: sa.Executable) -> sa.CursorResult[*tuple[Any, ...]]: ...

    def execute(self, statement: str | sa.Executable, params: Params = ()) -> int | sa.CursorResult[*tuple[Any, ...]]:
        """Run one statement.

        Returns:
            For SQL text the number of affected rows, for a SQLAlchemy Core statement its result.
        """
        try:
            if isinstance(statement, str):
                affected: int = self._send(statement, params).rowcount
                return affected
            return self.core.execute(statement)
        except psycopg.Error as error:
            raise_as_bus_error(error)
        except sa.exc.DBAPIError as error:
            if isinstance(error.orig, psycopg.Error):
                raise_as_bus_error(error.orig)
            raise

    def fetch_one_or_none(self, sql: str, params: Params = ()) -> Row | None:
        """Run one statement and return its first row, or None."""
        try:
            row: Row | None = self._send(sql, params).fetchone()
            return row
        except psycopg.Error as error:
            raise_as_bus_error(error)

    def fetch_one(self, sql: str, params: Params = ()) -> Row:
        """Run one statement that always returns a row, and return that row."""
        row = self.fetch_one_or_none(sql, params)
        assert row is not None, sql
        return row

    def fetch_all(self, sql: str, params: Params = ()) -> list[Row]:
        """Run one statement and return its rows."""
        try:
            rows: list[Row] = self._send(sql, params).fetchall()
            return rows
        except psycopg.Error as error:
            raise_as_bus_error(error)

    def fetch_all_with_names(self, sql: str, params: Params = ()) -> tuple[tuple[str, ...], list[Row]]:
        """Run one statement and return the names of its columns and its rows."""
        try:
            cursor = self._send(sql, params)
            result = cursor.pgresult
            assert result is not None
            names = tuple((result.fname(number) or b"").decode() for number in range(result.nfields))
            return names, cursor.fetchall()
        except psycopg.Error as error:
            raise_as_bus_error(error)

    def fetch_one_or_none_as(self, cls: type[T], sql: str, params: Params = ()) -> T | None:
        """Run one statement and return its first row as `cls`, or None. Columns are matched to fields by name."""
        records = self.fetch_all_as(cls, sql, params)
        return records[0] if records else None

    def fetch_one_as(self, cls: type[T], sql: str, params: Params = ()) -> T:
        """Run one statement that always returns a row, and return that row as `cls`."""
        record = self.fetch_one_or_none_as(cls, sql, params)
        assert record is not None, sql
        return record

    def fetch_all_as(self, cls: type[T], sql: str, params: Params = ()) -> list[T]:
        """Run one statement and return its rows as `cls`. Columns are matched to fields by name."""
        names, rows = self.fetch_all_with_names(sql, params)
        build = row_builder(cls, names)
        return [build(row) for row in rows]


def row_builder(cls: type[T], names: tuple[str, ...]) -> Callable[[Row], T]:
    """Return a function that builds a dataclass from rows whose columns have these names.

    Names are matched once. Where the columns are in the order of the fields, rows are then built by position, which
    takes half the time of keywords.
    """
    builder: Callable[[Row], T] = _match_names(cast(Any, cls), names)
    return builder


@functools.lru_cache(maxsize=1024)
def _match_names(cls: Any, names: tuple[str, ...]) -> Callable[[Row], Any]:
    fields = tuple(field.name for field in dataclasses.fields(cls) if field.init)
    if fields[: len(names)] == names:
        return lambda row: cls(*row)
    return lambda row: cls(**dict(zip(names, row, strict=True)))


def from_row(cls: type[T], row: sa.Row[*tuple[Any, ...]]) -> T:
    """Build a dataclass from a row of SQLAlchemy Core. Columns are matched to fields by name."""
    return cls(**row._mapping)


class Database:
    """A pool of connections to one PostgreSQL.

    Args:
        url: libpq URL.
        pool_size: most connections held.
        pool_timeout: seconds that a caller waits for a free connection before it gets `unavailable`.
        application_name: shown in pg_stat_activity.
        lock_timeout_ms: how long a statement waits for a lock.
        index_scans_only: for calls that must not depend on the length of history; see `connect`.
        on_commit: called with the changed topics by project id after a connection has committed.

    Attributes:
        pool_timeouts: how many callers waited for a connection in vain.
    """

    def __init__(
        self,
        url: str,
        *,
        pool_size: int = 8,
        pool_timeout: float = 5.0,
        application_name: str = "llm-bus",
        lock_timeout_ms: int = LOCK_TIMEOUT_MS,
        index_scans_only: bool = False,
        on_commit: Callable[[Mapping[int, set[str]]], None] | None = None,
    ) -> None:
        self.url = url
        self._on_commit = on_commit
        self._pool_size = pool_size
        self.pool_timeouts = 0
        self.engine = sa.create_engine(
            "postgresql+psycopg://",
            creator=lambda: connect(
                url,
                application_name=application_name,
                lock_timeout_ms=lock_timeout_ms,
                index_scans_only=index_scans_only,
            ),
            # psycopg manages transactions, so that an operation of one statement pays for no BEGIN and COMMIT.
            isolation_level="AUTOCOMMIT",
            poolclass=QueuePool,
            pool_size=pool_size,
            max_overflow=0,
            pool_timeout=pool_timeout,
            pool_reset_on_return=None,
            pool_use_lifo=True,
        )

    @contextmanager
    def connection(self) -> Iterator[Connection]:
        """Lend a connection without a transaction: each statement commits alone.

        Raises:
            Unavailable: no connection became free in time, or the database does not answer.
        """
        try:
            core = self.engine.connect()
        except sa.exc.TimeoutError:
            self.pool_timeouts += 1
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
                    # The server went away, and with it every other connection of the pool.
                    core.invalidate()
                    self.engine.dispose()
        if conn.pending_topics and self._on_commit is not None:
            self._on_commit(conn.pending_topics)

    @contextmanager
    def transaction(self, *, lock_timeout_ms: int | None = None) -> Iterator[Connection]:
        """Lend a connection inside a transaction, which commits when the block ends and rolls back when it raises.

        Args:
            lock_timeout_ms: how long a statement waits for a lock; None is that of the connections.
        """
        with self.connection() as conn:
            try:
                with conn.raw.transaction():
                    if lock_timeout_ms is not None:
                        conn.execute(f"SET LOCAL lock_timeout = {lock_timeout_ms}")
                    yield conn
            except psycopg.Error as error:
                raise_as_bus_error(error)

    def pool_usage(self) -> tuple[int, int, int]:
        """Return the number of connections in use, of idle ones, and the maximum."""
        pool = self.engine.pool
        assert isinstance(pool, QueuePool)
        return pool.checkedout(), pool.checkedin(), self._pool_size

    def close(self) -> None:
        """Close the idle connections; those in use close when they are returned."""
        self.engine.dispose()


def connect(
    url: str,
    *,
    application_name: str = "llm-bus",
    lock_timeout_ms: int = LOCK_TIMEOUT_MS,
    index_scans_only: bool = False,
) -> psycopg.Connection[Row]:
    """Open one connection in autocommit mode, with the engine's timeouts and UTC.

    Args:
        lock_timeout_ms: how long a statement waits for a lock.
        index_scans_only: for statements that read a page by an index that has its order. A prepared statement is
            planned without its arguments, so the planner guesses how many rows a range has; where it guesses few, it
            reads all of them by a bitmap, or the whole table, and sorts (docs/decisions/0032-stable-plans.md).
    """
    options = " ".join(
        f"-c {setting}"
        for setting in (
            *(("enable_seqscan=off", "enable_bitmapscan=off") if index_scans_only else ()),
            f"statement_timeout={STATEMENT_TIMEOUT_MS}",
            f"lock_timeout={lock_timeout_ms}",
            f"idle_in_transaction_session_timeout={2 * STATEMENT_TIMEOUT_MS}",
            "timezone=UTC",
            # The plans of the hot statements do not depend on their arguments; JIT only costs at this size.
            "jit=off",
        )
    )
    conn = psycopg.connect(url, autocommit=True, options=options, application_name=application_name, connect_timeout=5)
    # Half of the time of the standard library; a page of events is mostly JSON.
    set_json_loads(msgspec.json.decode, conn)
    return conn
