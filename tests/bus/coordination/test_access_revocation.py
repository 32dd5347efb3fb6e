"""A revocation of rights takes effect for the first call that starts after its commit, on every warm connection."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest

from bus.coordination import posts, sequences, tasks
from bus.ctx import Ctx
from bus.db import Connection, Database
from bus.errors import BusError, NotAuthenticated, OwnerSuspended
from bus.operations import project_purge
from bus.tenancy import owners, participant_queries, participations, projects, tokens
from tests import factories
from tests.factories import Agent

# A multiple of every pair of a read and a write.
_ROUNDS, _EXHAUSTIVE_ROUNDS = 18, 100
_WARM_CONNECTIONS = 3
# psycopg prepares a statement at its sixth execution; PostgreSQL keeps its plan from then on.
_CALLS_UNTIL_PREPARED = 6

Call = Callable[[Connection, Ctx], Any]

_READS: dict[str, Call] = {
    "whoami": participant_queries.whoami,
    "read_posts": lambda conn, ctx: posts.list_posts(conn, ctx, to_me=True),
}
_WRITES: dict[str, Call] = {
    "claim": lambda conn, ctx: sequences.claim(conn, ctx, "s"),
    "post": lambda conn, ctx: posts.create(conn, ctx, "hello", to_lane="core"),
    "task_create": lambda conn, ctx: tasks.create(conn, ctx, "x"),
}


class _WarmProject:
    """A project, the agent whose rights change, and the warm connections of its calls."""

    def __init__(self, db: Database, connections: list[Connection]) -> None:
        self.db = db
        self.connections = connections
        with db.transaction() as conn:
            self.project = factories.make_project(conn)
            self.agent = factories.make_agent(conn, self.project, "bob", is_admin=True)
        for conn in connections:
            for call in (_READS | _WRITES).values():
                for _ in range(_CALLS_UNTIL_PREPARED):
                    self.run(conn, call)
            assert conn.fetch_one("SELECT count(*) > 3 FROM pg_prepared_statements") == (True,)

    def run(self, conn: Connection, call: Call, agent: Agent | None = None) -> Any:
        with conn.raw.transaction():
            return call(conn, (agent or self.agent).ctx)

    def change(self, act: Callable[[Connection], Any]) -> Any:
        with self.db.transaction() as conn:
            return act(conn)

    def count_written(self) -> Any:
        """Count the events of the ledger and the entries of the audit log."""
        with self.db.connection() as conn:
            return conn.fetch_one(
                "SELECT last_seq, (SELECT count(*) FROM audit) FROM project_clock WHERE project_id = %s",
                (self.project.id,),
            )

    def assert_each_refuses(
        self, calls: dict[str, Call], error: type[BaseException], agent: Agent | None = None
    ) -> None:
        before = self.count_written()
        for conn in self.connections:
            for call in calls.values():
                with pytest.raises(error):
                    self.run(conn, call, agent)
        assert self.count_written() == before

    def assert_each_succeeds(self, calls: dict[str, Call]) -> None:
        for conn in self.connections:
            for call in calls.values():
                self.run(conn, call)


@pytest.fixture(params=[_ROUNDS, pytest.param(_EXHAUSTIVE_ROUNDS, marks=pytest.mark.exhaustive)])
def rounds(request: pytest.FixtureRequest) -> range:
    count: int = request.param
    return range(count)


@pytest.fixture
def warm(db: Database) -> Iterator[_WarmProject]:
    with ExitStack() as stack:
        yield _WarmProject(db, [stack.enter_context(db.connection()) for _ in range(_WARM_CONNECTIONS)])


def _read_and_write(round_: int) -> dict[str, Call]:
    """One read and one write, a different pair each round, since only the first call on a connection is decisive."""
    reads, writes = list(_READS.items()), list(_WRITES.items())
    chosen = [writes[round_ % len(writes)], reads[round_ % len(reads)]]
    return dict(chosen if round_ % 2 else chosen[::-1])


def test_a_revoked_token_stops_working_at_once(warm: _WarmProject, rounds: range) -> None:
    for round_ in rounds:
        calls = _read_and_write(round_)
        warm.assert_each_succeeds(calls)
        warm.change(lambda conn: tokens.revoke_all(conn, warm.project.id, "bob", actor="cli"))
        warm.assert_each_refuses(calls, NotAuthenticated)
        fresh = warm.change(lambda conn: tokens.rotate(conn, warm.project.id, "bob", actor="cli"))
        warm.agent = warm.change(lambda conn: factories.authenticate_agent(conn, fresh))  # noqa: B023


def test_a_rotated_token_stops_working_at_once_and_the_new_one_works(warm: _WarmProject, rounds: range) -> None:
    for round_ in rounds:
        calls, old = _read_and_write(round_), warm.agent
        warm.assert_each_succeeds(calls)
        fresh = warm.change(lambda conn: tokens.rotate(conn, warm.project.id, "bob", actor="cli"))
        warm.assert_each_refuses(calls, NotAuthenticated, old)
        warm.agent = warm.change(lambda conn: factories.authenticate_agent(conn, fresh))  # noqa: B023
        warm.assert_each_succeeds(calls)


def test_a_token_works_until_it_expires_and_stops_at_once(warm: _WarmProject, rounds: range) -> None:
    set_expiry = "UPDATE token SET expires_at = {} WHERE id = %s RETURNING 1"
    for round_ in rounds:
        calls, me = _read_and_write(round_), (warm.agent.ctx.token_id,)
        warm.assert_each_succeeds(calls)
        soon = set_expiry.format("clock_timestamp() + interval '30 seconds'")
        warm.change(lambda conn: conn.fetch_one(soon, me))  # noqa: B023
        warm.assert_each_succeeds(calls)
        warm.change(lambda conn: conn.fetch_one(set_expiry.format("clock_timestamp()"), me))  # noqa: B023
        warm.assert_each_refuses(calls, NotAuthenticated)
        warm.change(lambda conn: conn.fetch_one(set_expiry.format("NULL"), me))  # noqa: B023


def test_a_removed_participant_stops_working_at_once(warm: _WarmProject, rounds: range) -> None:
    for round_ in rounds:
        calls = _read_and_write(round_)
        warm.assert_each_succeeds(calls)
        warm.change(lambda conn: participations.remove(conn, warm.project.id, "bob", actor="cli"))
        warm.assert_each_refuses(calls, NotAuthenticated)
        fresh = warm.change(lambda conn: participations.join(conn, warm.project.id, "bob", is_admin=True, actor="cli"))
        warm.agent = warm.change(lambda conn: factories.authenticate_agent(conn, fresh))  # noqa: B023


def test_a_suspension_takes_effect_at_once_and_so_does_its_end(warm: _WarmProject, rounds: range) -> None:
    owner = warm.project.owner_id
    for round_ in rounds:
        calls = _read_and_write(round_)
        warm.assert_each_succeeds(calls)
        warm.change(lambda conn: owners.suspend(conn, owner, reason="unpaid", actor="operator"))
        warm.assert_each_refuses(calls, OwnerSuspended)
        warm.change(lambda conn: owners.lift_suspension(conn, owner, actor="operator"))


def test_an_archived_project_refuses_writes_at_once_and_still_reads(warm: _WarmProject, rounds: range) -> None:
    for _ in rounds:
        warm.assert_each_succeeds(_WRITES)
        warm.change(lambda conn: projects.archive(conn, warm.project.id, actor="cli"))
        warm.assert_each_refuses(_WRITES, BusError)
        warm.assert_each_succeeds(_READS)
        warm.change(lambda conn: projects.reopen(conn, warm.project.id, actor="cli"))


def test_a_demoted_admin_is_refused_at_once(warm: _WarmProject, rounds: range) -> None:
    warm.change(lambda conn: factories.make_agent(conn, warm.project, "mate"))

    @contextmanager
    def rolled_back(conn: Connection) -> Iterator[None]:
        with conn.raw.transaction(force_rollback=True):
            yield

    for round_ in rounds:
        call = (tokens.rotate_as_admin, tokens.revoke_as_admin)[round_ % 2]
        for conn in warm.connections:
            with rolled_back(conn):
                call(conn, warm.agent.ctx, "mate")
        warm.change(lambda conn: participations.set_admin(conn, warm.project.id, "bob", False, actor="cli"))
        before = warm.count_written()
        for conn in warm.connections:
            with pytest.raises(BusError, match="project-admin"), conn.raw.transaction():
                call(conn, warm.agent.ctx, "mate")
            assert not warm.run(conn, participant_queries.whoami).is_admin
        assert warm.count_written() == before
        warm.change(lambda conn: participations.set_admin(conn, warm.project.id, "bob", True, actor="cli"))


def test_a_project_being_purged_refuses_every_call_at_once(db: Database) -> None:
    with ExitStack() as stack:
        connections = [stack.enter_context(db.connection()) for _ in range(_WARM_CONNECTIONS)]
        for round_ in range(10):
            warm = _WarmProject(db, connections)
            warm.change(lambda conn: project_purge.begin_purge(conn, warm.project.id, actor="cli"))  # noqa: B023
            warm.assert_each_refuses(_read_and_write(round_), NotAuthenticated)
