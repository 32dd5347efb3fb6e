"""Calls of several callers on one connection: results, failures of one of them, and loss of the connection."""

import contextvars
from contextlib import closing
from typing import Any

import psycopg
import pytest

from bus.coordination import leases, ledger, posts, sequences
from bus.db import Connection, Database
from bus.db.pipeline import Outcome, run_pipelined
from bus.errors import BusError, InvalidArgument, LockNotGranted, NotAuthenticated, Unavailable
from bus.tenancy import tokens
from tests import factories
from tests.assertions import assert_ledger_consistent, list_event_types
from tests.concurrency import run_jobs_concurrently
from tests.factories import Agent


@pytest.fixture
def agents(db: Database) -> list[Agent]:
    with db.transaction() as conn:
        project = factories.make_project(conn)
        return [factories.make_agent(conn, project) for _ in range(3)]


def _claim(agent: Agent, sequence: str = "adr") -> Any:
    return lambda conn: sequences.claim(conn, agent.ctx, sequence).number


def _values(outcomes: list[Outcome[Any]]) -> list[Any]:
    return [outcome.get() for outcome in outcomes]


def test_each_call_gets_its_own_result_in_order(db: Database, agents: list[Agent]) -> None:
    ada, bob, _ = agents
    project_id = ada.ctx.project_id
    calls = [
        _claim(ada),
        lambda conn: posts.create(conn, bob.ctx, "look", to_actor=ada.label).recipients,
        _claim(bob),
        lambda conn: leases.acquire(conn, ada.ctx, "src/*.py").surface,
        # Needs a second statement, since only Python decides whether two globs overlap.
        lambda conn: [other.surface for other in leases.acquire(conn, bob.ctx, "src/a*").others],
        lambda conn: "no statement at all",
        lambda conn: ledger.query_events(conn, ada.ctx, type="claim").events[0].payload["number"],
    ]
    assert _values(run_pipelined(db, calls, lock_clock_of=project_id)) == [
        1, 1, 2, "src/*.py", ["src/*.py"], "no statement at all", 2,
    ]  # fmt: skip
    with db.connection() as conn:
        assert_ledger_consistent(conn, project_id)
        assert sorted(list_event_types(conn, project_id)) == ["claim", "claim", "lease", "lease", "post"]


def test_a_call_continues_only_after_the_commit_of_its_statement(db: Database, agents: list[Agent]) -> None:
    def claim_and_look(conn: Connection) -> int:
        number = sequences.claim(conn, agents[0].ctx, "adr").number
        with db.connection() as other_connection:
            (committed,) = other_connection.fetch_one("SELECT current FROM sequence WHERE name = 'adr'")
        assert committed == 2
        return number

    assert _values(run_pipelined(db, [claim_and_look, claim_and_look])) == [1, 2]


def test_an_error_of_one_call_leaves_its_neighbours_alone(db: Database, agents: list[Agent]) -> None:
    ada, bob, revoked = agents
    assert revoked.ctx.token_id is not None
    with db.transaction() as conn:
        tokens.revoke(conn, revoked.ctx.project_id, revoked.ctx.token_id, actor="cli")
    calls = [
        _claim(ada),
        lambda conn: posts.create(conn, bob.ctx, "look", to_actor="unknown"),
        _claim(revoked),
        lambda conn: posts.create(conn, bob.ctx, "look \0", to_actor=ada.label),
        lambda conn: conn.fetch_one("SELECT %s::text", ("a\0b",)),
        _claim(bob),
        lambda conn: leases.acquire(conn, ada.ctx, ".."),
        lambda conn: 1 // 0,
        _claim(ada),
    ]
    outcomes = run_pipelined(db, calls, lock_clock_of=ada.ctx.project_id)
    assert [outcomes[number].get() for number in (0, 5, 8)] == [1, 2, 3]
    kinds = [type(outcomes[number].error) for number in (1, 2, 3, 6, 7)]
    assert kinds == [BusError, NotAuthenticated, InvalidArgument, InvalidArgument, ZeroDivisionError]
    assert outcomes[4].error is not None
    with db.connection() as conn:
        assert list_event_types(conn, ada.ctx.project_id) == ["claim", "claim", "claim"]
        assert_ledger_consistent(conn, ada.ctx.project_id)


def test_a_call_may_go_on_after_its_error(db: Database, agents: list[Agent]) -> None:
    def post_to_the_second_name(conn: Connection) -> int:
        try:
            posts.create(conn, agents[0].ctx, "look", to_actor="unknown")
        except BusError:
            return posts.create(conn, agents[0].ctx, "look", to_actor=agents[1].label).recipients
        raise AssertionError

    assert _values(run_pipelined(db, [_claim(agents[1]), post_to_the_second_name])) == [1, 1]


def test_a_commit_that_fails_is_an_error_of_every_call(db: Database, agents: list[Agent], database_url: str) -> None:
    with psycopg.connect(database_url) as owner:
        owner.execute("CREATE TABLE pair (a integer)")
        owner.execute(
            "CREATE FUNCTION refuse_commit() RETURNS trigger LANGUAGE plpgsql AS"
            " $$ BEGIN RAISE EXCEPTION 'refused at commit'; END $$"
        )
        owner.execute(
            "CREATE CONSTRAINT TRIGGER refused AFTER INSERT ON pair DEFERRABLE INITIALLY DEFERRED"
            " FOR EACH ROW EXECUTE FUNCTION refuse_commit()"
        )
    calls = [_claim(agents[0]), lambda conn: conn.execute("INSERT INTO pair VALUES (1)")]
    outcomes = run_pipelined(db, calls, lock_clock_of=agents[0].ctx.project_id)
    assert all("refused at commit" in str(outcome.error) for outcome in outcomes)
    with db.connection() as conn:
        assert list_event_types(conn, agents[0].ctx.project_id) == []
    assert _values(run_pipelined(db, [_claim(agents[0]), _claim(agents[1])])) == [1, 2]


def test_a_lost_connection_is_an_error_of_every_call_and_the_next_batch_works(
    db: Database, agents: list[Agent]
) -> None:
    calls = [
        _claim(agents[0]),
        lambda conn: conn.fetch_one("SELECT pg_terminate_backend(pg_backend_pid())"),
        _claim(agents[1]),
    ]
    outcomes = run_pipelined(db, calls)
    assert [type(outcome.error) for outcome in outcomes] == [Unavailable] * 3
    assert _values(run_pipelined(db, [_claim(agents[0]), _claim(agents[1])])) == [1, 2]


def test_statements_that_the_server_forgot_are_prepared_again(db: Database, agents: list[Agent]) -> None:
    calls = [_claim(agents[0]), _claim(agents[1])]
    assert _values(run_pipelined(db, calls)) == [1, 2]
    with db.connection() as conn:
        conn.execute("DEALLOCATE ALL")
    assert _values(run_pipelined(db, calls)) == [3, 4]


def test_statements_behind_an_error_are_prepared_in_the_next_round(db: Database, database_url: str) -> None:
    with psycopg.connect(database_url) as owner:
        owner.execute("CREATE SEQUENCE rounds")
        owner.execute("GRANT USAGE ON SEQUENCE rounds TO PUBLIC")

    def count_rounds(conn: Connection) -> int:
        # Not undone by a rollback, so it counts how often the statement was sent.
        return int(conn.fetch_one("SELECT nextval('rounds')")[0])

    assert _values(run_pipelined(db, [count_rounds])) == [1]
    calls = [count_rounds, lambda conn: conn.fetch_one("SELECT 1 / 0"), lambda conn: conn.fetch_one("SELECT 'new'")]
    rounds, failure, behind = run_pipelined(db, calls)
    assert (rounds.get(), behind.get()) == (3, ("new",))
    assert failure.error is not None


def test_a_result_whose_columns_changed_is_read_with_the_new_ones(db: Database, database_url: str) -> None:
    def read(conn: Connection) -> Any:
        return conn.fetch_one("SELECT * FROM changing")

    with psycopg.connect(database_url) as owner:
        owner.execute("CREATE VIEW changing AS SELECT 1 AS a")
    assert _values(run_pipelined(db, [read, read])) == [(1,), (1,)]
    with psycopg.connect(database_url) as owner:
        owner.execute("CREATE OR REPLACE VIEW changing AS SELECT 1 AS a, 'text' AS b")
    assert _values(run_pipelined(db, [read, read])) == [(1, "text"), (1, "text")]


@pytest.mark.parametrize("writes", [True, False])
def test_the_clock_is_locked_before_the_first_statement_of_writes(
    db: Database, agents: list[Agent], writes: bool
) -> None:
    def holds_lock(conn: Connection) -> bool:
        (held,) = conn.fetch_one(
            "SELECT EXISTS (SELECT FROM pg_locks WHERE pid = pg_backend_pid()"
            " AND relation = 'project_clock'::regclass AND mode = 'RowShareLock')"
        )
        return bool(held)

    clock = agents[0].ctx.project_id if writes else None
    assert _values(run_pipelined(db, [holds_lock] * 2, lock_clock_of=clock)) == [writes] * 2


def test_a_clock_that_is_not_granted_is_an_error_of_every_call(db: Database, agents: list[Agent]) -> None:
    project_id = agents[0].ctx.project_id
    with db.transaction() as holder:
        holder.execute("SELECT bus_lock_clock(%s)", (project_id,))
        outcomes = run_pipelined(db, [_claim(agents[0]), _claim(agents[1])], lock_clock_of=project_id)
    assert [type(outcome.error) for outcome in outcomes] == [LockNotGranted, LockNotGranted]
    assert _values(run_pipelined(db, [_claim(agents[0])], lock_clock_of=project_id)) == [1]


def test_a_call_runs_in_the_context_of_its_batch(db: Database) -> None:
    name: contextvars.ContextVar[str] = contextvars.ContextVar("name", default="none")

    def run(conn: Connection) -> str:
        before = name.get()
        conn.fetch_one("SELECT 1")
        name.set("changed by a call")
        return before

    for value in ("first", "second"):
        name.set(value)
        assert _values(run_pipelined(db, [run, run])) == [value, value]
    assert name.get() == "second"


def test_a_short_wait_for_a_lock_ends_with_an_error_of_its_own(db: Database, agents: list[Agent]) -> None:
    with closing(Database(db.url, pool_size=1, lock_timeout_ms=10)) as impatient, db.transaction() as holder:
        holder.execute("SELECT bus_lock_clock(%s)", (agents[0].ctx.project_id,))
        for calls in ([_claim(agents[0])], [_claim(agents[0]), _claim(agents[1])]):
            outcomes = run_pipelined(impatient, calls)
            assert [type(outcome.error) for outcome in outcomes] == [LockNotGranted] * len(calls)
        with pytest.raises(LockNotGranted), db.transaction(lock_timeout_ms=10) as conn:
            conn.execute("SELECT bus_lock_clock(%s)", (agents[0].ctx.project_id,))
    # The timeout was that of the transaction, and not of the connection.
    with db.connection() as conn:
        assert conn.fetch_one("SHOW lock_timeout") == ("4s",)


def test_a_call_cannot_leave_the_pipeline(db: Database) -> None:
    outcomes = run_pipelined(db, [lambda conn: conn.raw, lambda conn: conn.core])
    assert [type(outcome.error) for outcome in outcomes] == [AssertionError, AssertionError]


def test_concurrent_batches_and_single_calls_claim_without_gap_or_deadlock(
    db: Database, agents: list[Agent], postgres_log: Any
) -> None:
    project_id = agents[0].ctx.project_id
    names = ("adr", "migration", "rfc")
    claimed: dict[str, list[int]] = {name: [] for name in names}

    def claim_in_batches(job: int) -> None:
        for step in range(20):
            order = [names[(job + step + shift) % 3] for shift in range(3)]
            calls = [_claim(agents[number % 3], name) for number, name in enumerate(order * 2)]
            for name, number in zip(
                order * 2, _values(run_pipelined(db, calls, lock_clock_of=project_id)), strict=True
            ):
                claimed[name].append(number)

    def claim_singly(job: int) -> None:
        for step in range(40):
            name = names[(job + step) % 3]
            with db.connection() as conn:
                claimed[name].append(sequences.claim(conn, agents[job % 3].ctx, name).number)

    jobs = [lambda job=job: claim_in_batches(job) for job in range(4)]
    run_jobs_concurrently(*jobs, *(lambda job=job: claim_singly(job) for job in range(4)))
    total = 4 * 20 * 6 + 4 * 40
    assert sum(map(len, claimed.values())) == total
    for numbers in claimed.values():
        assert sorted(numbers) == list(range(1, len(numbers) + 1))
    with db.connection() as conn:
        assert_ledger_consistent(conn, project_id)
    assert "40P01" not in postgres_log.read_text()
