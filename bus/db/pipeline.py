"""Calls that share a connection: one round trip, one transaction and one commit for several callers.

Each call is an ordinary function of a connection. It runs in a greenlet that pauses at each of its statements until the
other calls have one too; these statements form a round, which is sent in PostgreSQL's pipeline mode as one implicit
transaction. A call therefore returns only after the commit of its statement, as on a connection of its own in
autocommit mode.

An error rolls the round back, for all of its statements. The call whose statement failed gets the error; the others
have not been answered, and their statements are sent again without it. See docs/decisions/0030-batches.md.
"""

import contextvars
import functools
import itertools
import re
import threading
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, NoReturn, TypeVar

import psycopg
from greenlet import getcurrent, greenlet
from psycopg import errors, generators
from psycopg.adapt import PyFormat
from psycopg.adapt import Transformer as PsycopgTransformer
from psycopg.pq import ExecStatus

from bus.db.connection import Connection, Database, Params, Row

T = TypeVar("T")

# The name under which a pooled connection keeps the statements that it has prepared.
_PREPARED_STATEMENTS = "llm_bus_prepared_statements"
_MAX_PREPARED_STATEMENTS = 500
# The server forgot a prepared statement, or a migration changed the columns of its result.
_STALE_STATEMENT_ERRORS = (errors.InvalidSqlStatementName, errors.FeatureNotSupported)
_PLACEHOLDER = re.compile(r"%(?:\((\w+)\)s|(s)|(%))")


@dataclass(frozen=True, slots=True)
class _Statement:
    """A statement with PostgreSQL's placeholders and encoded parameters."""

    query: bytes
    params: Sequence[Any]
    types: tuple[int, ...]
    formats: Sequence[Any]


class Outcome(Generic[T]):
    """What a call returned or raised."""

    __slots__ = ("_value", "error")

    def __init__(self, value: T | None, error: BaseException | None) -> None:
        self._value = value
        self.error = error

    def get(self) -> T:
        """Return the value or raise the error."""
        if self.error is not None:
            raise self.error
        return self._value  # type: ignore[return-value]


def run_pipelined(
    db: Database,
    calls: Sequence[Callable[[Connection], T]],
    *,
    lock_clock_of: int | None = None,
) -> list[Outcome[T]]:
    """Run calls together on one connection, and return their outcomes in order.

    Args:
        db: the database.
        calls: functions of a connection whose `core` and `raw` they do not use.
        lock_clock_of: a project whose clock each round locks first. Needed if the calls write: a lock that is taken
            after the clock by one call and before it by another would be a deadlock.
    Raises:
        Unavailable: no connection became free in time, or the database does not answer.
    """
    with db.connection() as conn:
        return _Batch(conn, lock_clock_of).run(calls)


class PipelinedConnection(Connection):
    """The connection that a pipelined call gets. Its statements wait for those of the other calls."""

    __slots__ = ("_call",)

    def __init__(self, call: "_Call[Any]") -> None:
        self._call = call
        self.pending_topics = {}

    @property
    def core(self) -> NoReturn:  # type: ignore[override]
        """Refuse SQLAlchemy statements."""
        raise AssertionError("a call with SQLAlchemy statements cannot be pipelined")

    @property
    def raw(self) -> NoReturn:  # type: ignore[override]
        """Refuse the use of the connection beside the pipeline, such as for a transaction."""
        raise AssertionError("a call with a transaction cannot be pipelined")

    def _send(self, sql: str, params: Params) -> "_PipelineResult":
        return self._call.wait_for_result(sql, params)


class _PipelineResult:
    """A result with the methods of a psycopg cursor that Connection uses."""

    __slots__ = ("_transformer", "pgresult")

    def __init__(self, pgresult: Any, transformer: Any) -> None:
        self.pgresult = pgresult
        self._transformer = transformer

    @property
    def rowcount(self) -> int:
        """The number of affected rows."""
        return self.pgresult.command_tuples or 0

    def fetchone(self) -> Row | None:
        """Return the first row, or None."""
        rows = self.fetchall()
        return rows[0] if rows else None

    def fetchall(self) -> list[Row]:
        """Return all rows."""
        result = self.pgresult
        self._transformer.set_pgresult(result)
        rows: list[Row] = self._transformer.load_rows(0, result.ntuples, tuple)
        return rows


class _Call(Generic[T]):
    """One call of a batch, which is either finished or waits for the result of its statement.

    Attributes:
        statement: the statement, until its result is known.
        outcome: the outcome, once the call has finished.
    """

    __slots__ = ("_greenlet", "_transformer", "outcome", "statement")

    def __init__(self, function: Callable[[Connection], T], transformer: Any) -> None:
        self.statement: _Statement | None = None
        self.outcome: Outcome[T] | None = None
        self._transformer = transformer
        self._greenlet = _take_greenlet()
        self._switch((self, function))

    def wait_for_result(self, sql: str, params: Params) -> _PipelineResult:
        """Pause the call until its statement was executed and committed. Called in the call's greenlet.

        Raises:
            psycopg.Error: the statement failed.
        """
        self.statement = _build_statement(sql, params, self._transformer)
        result = self._greenlet.parent.switch()
        if isinstance(result, BaseException):
            raise result
        return _PipelineResult(result, self._transformer)

    def resume(self, result: Any) -> None:
        """Continue the call with the result or the error of its statement."""
        self.statement = None
        self._switch(result)

    def _switch(self, value: Any) -> None:
        self._greenlet.switch(value)
        if self.outcome is not None:
            _idle_greenlets().append(self._greenlet)


class _Batch:
    def __init__(self, conn: Connection, lock_clock_of: int | None) -> None:
        self._raw = conn.raw
        self._pgconn = conn.raw.pgconn
        self._transformer = PsycopgTransformer(conn.raw)
        info = conn.core.connection.info
        self._prepared: _PreparedStatements = info.setdefault(_PREPARED_STATEMENTS, _PreparedStatements())
        # The statements with which each round begins.
        self._opening: list[_Statement] = []
        if lock_clock_of is not None:
            self._opening.append(_build_statement("SELECT bus_lock_clock(%s)", (lock_clock_of,), self._transformer))

    def run(self, calls: Sequence[Callable[[Connection], T]]) -> list[Outcome[T]]:
        """Run the calls in rounds until all have finished."""
        running = [_Call(function, self._transformer) for function in calls]
        self._pgconn.enter_pipeline_mode()
        try:
            while waiting := [call for call in running if call.statement is not None]:
                self._run_round(waiting)
            if not self._raw.closed:
                self._pgconn.exit_pipeline_mode()
        except BaseException:
            # The state of the connection is unknown, and a greenlet with a paused call could not be used again.
            self._raw.close()
            for call in running:
                while call.statement is not None:
                    call.resume(errors.OperationalError("the batch was abandoned"))
            raise
        return [call.outcome for call in running if call.outcome is not None]

    def _run_round(self, waiting: list[_Call[Any]]) -> None:
        """Send the statement of each call; continue all calls if all succeeded, else the first that failed."""
        statements = [*self._opening, *(call.statement for call in waiting if call.statement is not None)]
        try:
            results = self._exchange(statements)
        except psycopg.OperationalError as error:
            # The connection is lost. Whether the round was committed is unknown, so no call is sent again.
            self._raw.close()
            for call in waiting:
                call.resume(error)
            return
        first_failure = next((number for number, result in enumerate(results) if isinstance(result, Exception)), None)
        if first_failure is None:
            for call, result in zip(waiting, results[len(self._opening) :], strict=True):
                call.resume(result)
        elif isinstance(results[first_failure], _STALE_STATEMENT_ERRORS) and self._prepared.names:
            self._prepared.names.clear()
        elif len(self._opening) <= first_failure < len(statements):
            waiting[first_failure - len(self._opening)].resume(results[first_failure])
        else:
            # The clock was not granted, or the commit failed.
            for call in waiting:
                call.resume(results[first_failure])

    def _exchange(self, statements: Sequence[_Statement]) -> list[Any]:
        """Send statements and a synchronisation point, which commits; return a result or an error for each.

        A commit that failed is one more error at the end.

        Raises:
            psycopg.OperationalError: the connection is lost.
        """
        if self._raw.closed:
            raise errors.OperationalError("the connection is closed")
        # True for a statement that is prepared now, which is a command of its own.
        commands: list[bool] = []
        new_keys = []
        for statement in statements:
            key = (statement.query, statement.types)
            name = self._prepared.names.get(key)
            if name is None:
                name = self._prepared.add(key)
                new_keys.append(key)
                commands.append(True)
                self._pgconn.send_prepare(name, statement.query, param_types=statement.types)
            commands.append(False)
            self._pgconn.send_query_prepared(name, statement.params, param_formats=statement.formats)
        self._pgconn.pipeline_sync()
        replies, commit_error = self._raw.wait(_receive(self._pgconn, len(commands)))
        results: list[Any] = []
        prepare_error = None
        for is_prepare, reply in zip(commands, replies, strict=True):
            if is_prepare:
                prepare_error = _get_error(reply)
            else:
                results.append(prepare_error or _get_error(reply) or reply)
                prepare_error = None
        if commit_error is not None:
            results.append(commit_error)
        if any(isinstance(result, Exception) for result in results):
            # Those behind the failure were not prepared.
            for key in new_keys:
                self._prepared.names.pop(key, None)
        return results


class _PreparedStatements:
    """The statements that are prepared on one connection: their names by query and types of parameters."""

    def __init__(self) -> None:
        self.names: dict[tuple[bytes, tuple[int, ...]], bytes] = {}
        self._numbers = itertools.count(1)

    def add(self, key: tuple[bytes, tuple[int, ...]]) -> bytes:
        """Return a name for a new statement. No name is used twice: the server keeps what is forgotten here."""
        if len(self.names) >= _MAX_PREPARED_STATEMENTS:
            self.names.clear()
        name = self.names[key] = b"bus_%d" % next(self._numbers)
        return name


def _receive(pgconn: Any, command_count: int) -> Generator[Any, Any, tuple[list[Any], psycopg.Error | None]]:
    """Send what is queued and receive all replies; for psycopg's Connection.wait.

    Returns:
        The reply to each command, and the error of the commit if it failed.
    """
    yield from generators.send(pgconn)
    replies = []
    for _ in range(command_count):
        results = yield from generators.fetch_many(pgconn)
        if not results:
            raise errors.OperationalError("the connection was lost")
        replies.append(results[-1])
    commit_error = None
    while True:
        results = yield from generators.fetch_many(pgconn)
        if not results:
            raise errors.OperationalError("the connection was lost")
        commit_error = commit_error or _get_error(results[0])
        if results[-1].status == ExecStatus.PIPELINE_SYNC:
            return replies, commit_error


def _get_error(result: Any) -> psycopg.Error | None:
    if result.status == ExecStatus.FATAL_ERROR:
        return errors.error_from_result(result)
    if result.status == ExecStatus.PIPELINE_ABORTED:
        return errors.PipelineAborted("an earlier statement of the batch failed")
    return None


def _build_statement(sql: str, params: Params, transformer: Any) -> _Statement:
    query, names = _convert_query(sql)
    values = [params[name] for name in names] if isinstance(params, Mapping) else params
    dumped = transformer.dump_sequence(values, [PyFormat.AUTO] * len(values))
    return _Statement(query, dumped, transformer.types or (), transformer.formats or ())


@functools.lru_cache(maxsize=1024)
def _convert_query(sql: str) -> tuple[bytes, tuple[str, ...]]:
    """Convert psycopg's placeholders to PostgreSQL's; return the names of named parameters in their order."""
    names: dict[str, int] = {}
    count = 0

    def convert(match: re.Match[str]) -> str:
        nonlocal count
        name, _, percent = match.groups()
        if percent:
            return "%"
        if name:
            return f"${names.setdefault(name, len(names) + 1)}"
        count += 1
        return f"${count}"

    return _PLACEHOLDER.sub(convert, sql).encode(), tuple(names)


class _ThreadGreenlets(threading.local):
    def __init__(self) -> None:
        self.idle: list[greenlet] = []


_thread_greenlets = _ThreadGreenlets()


def _idle_greenlets() -> list[greenlet]:
    return _thread_greenlets.idle


def _take_greenlet() -> greenlet:
    """Return a greenlet of this thread that waits for a call. To create one costs as much as twenty switches."""
    idle = _idle_greenlets()
    taken = idle.pop() if idle else greenlet(_run_calls)
    taken.parent = getcurrent()
    # Otherwise the call would run in the context of the greenlet's last one.
    taken.gr_context = contextvars.copy_context()
    return taken


def _run_calls(first: tuple[_Call[Any], Callable[[Connection], Any]]) -> NoReturn:
    """Run calls one after the other, forever; the body of a greenlet."""
    call, function = first
    while True:
        try:
            outcome: Outcome[Any] = Outcome(function(PipelinedConnection(call)), None)
        except BaseException as error:  # noqa: BLE001 - the caller of the call raises it
            outcome = Outcome(None, error)
        call.outcome = outcome
        del call, function, outcome
        call, function = getcurrent().parent.switch()
