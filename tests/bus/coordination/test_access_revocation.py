"""What takes rights away is felt by the first call that starts after its commit, on every warm connection."""

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

_ROUNDS = 100
_WARM = 3
# psycopg prepares a statement when it is executed for the sixth time, PostgreSQL keeps its plan from then on.
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


class _Place:
    """A project, the agent whose rights change, and warm connections that it calls on."""

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

    def written(self) -> Any:
        """How much was written so far, in the ledger and in the audit log."""
        with self.db.connection() as conn:
            return conn.fetch_one(
                "SELECT last_seq, (SELECT count(*) FROM audit) FROM project_clock WHERE project_id = %s",
                (self.project.id,),
            )

    def each_refuses(self, calls: dict[str, Call], error: type[BaseException], agent: Agent | None = None) -> None:
        before = self.written()
        for conn in self.connections:
            for call in calls.values():
                with pytest.raises(error):
                    self.run(conn, call, agent)
        assert self.written() == before

    def each_answers(self, calls: dict[str, Call]) -> None:
        for conn in self.connections:
            for call in calls.values():
                self.run(conn, call)


@pytest.fixture
def place(db: Database) -> Iterator[_Place]:
    with ExitStack() as stack:
        yield _Place(db, [stack.enter_context(db.connection()) for _ in range(_WARM)])


def _some(round_: int) -> dict[str, Call]:
    """One read and one write, another pair each round: the first call on each connection counts."""
    reads, writes = list(_READS.items()), list(_WRITES.items())
    chosen = [writes[round_ % len(writes)], reads[round_ % len(reads)]]
    return dict(chosen if round_ % 2 else chosen[::-1])


def test_a_revoked_token_stops_working_at_once(place: _Place) -> None:
    for round_ in range(_ROUNDS):
        calls = _some(round_)
        place.each_answers(calls)
        place.change(lambda conn: tokens.revoke_all(conn, place.project.id, "bob", actor="cli"))
        place.each_refuses(calls, NotAuthenticated)
        fresh = place.change(lambda conn: tokens.rotate(conn, place.project.id, "bob", actor="cli"))
        place.agent = place.change(lambda conn: factories.authenticate_agent(conn, fresh))  # noqa: B023


def test_a_rotated_token_stops_working_at_once_and_the_new_one_works(place: _Place) -> None:
    for round_ in range(_ROUNDS):
        calls, old = _some(round_), place.agent
        place.each_answers(calls)
        fresh = place.change(lambda conn: tokens.rotate(conn, place.project.id, "bob", actor="cli"))
        place.each_refuses(calls, NotAuthenticated, old)
        place.agent = place.change(lambda conn: factories.authenticate_agent(conn, fresh))  # noqa: B023
        place.each_answers(calls)


def test_an_expired_token_stops_working_at_once(place: _Place) -> None:
    set_expiry = "UPDATE token SET expires_at = {} WHERE id = %s RETURNING 1"
    for round_ in range(_ROUNDS):
        calls, me = _some(round_), (place.agent.ctx.token_id,)
        place.each_answers(calls)
        place.change(lambda conn: conn.fetch_one(set_expiry.format("clock_timestamp()"), me))  # noqa: B023
        place.each_refuses(calls, NotAuthenticated)
        place.change(lambda conn: conn.fetch_one(set_expiry.format("NULL"), me))  # noqa: B023


def test_a_removed_participant_stops_working_at_once(place: _Place) -> None:
    for round_ in range(_ROUNDS):
        calls = _some(round_)
        place.each_answers(calls)
        place.change(lambda conn: participations.remove(conn, place.project.id, "bob", actor="cli"))
        place.each_refuses(calls, NotAuthenticated)
        fresh = place.change(
            lambda conn: participations.join(conn, place.project.id, "bob", is_admin=True, actor="cli")
        )
        place.agent = place.change(lambda conn: factories.authenticate_agent(conn, fresh))  # noqa: B023


def test_a_suspended_owner_is_refused_at_once_and_taken_back_at_once(place: _Place) -> None:
    owner = place.project.owner_id
    for round_ in range(_ROUNDS):
        calls = _some(round_)
        place.each_answers(calls)
        place.change(lambda conn: owners.suspend(conn, owner, reason="unpaid", actor="operator"))
        place.each_refuses(calls, OwnerSuspended)
        place.change(lambda conn: owners.lift_suspension(conn, owner, actor="operator"))


def test_an_archived_project_refuses_writes_at_once_and_goes_on_reading(place: _Place) -> None:
    for _ in range(_ROUNDS):
        place.each_answers(_WRITES)
        place.change(lambda conn: projects.archive(conn, place.project.id, actor="cli"))
        place.each_refuses(_WRITES, BusError)
        place.each_answers(_READS)
        place.change(lambda conn: projects.reopen(conn, place.project.id, actor="cli"))


def test_a_demoted_admin_is_refused_at_once(place: _Place) -> None:
    place.change(lambda conn: factories.make_agent(conn, place.project, "mate"))

    @contextmanager
    def undone(conn: Connection) -> Iterator[None]:
        with conn.raw.transaction(force_rollback=True):
            yield

    for round_ in range(_ROUNDS):
        verb = (tokens.rotate_as_admin, tokens.revoke_as_admin)[round_ % 2]
        for conn in place.connections:
            with undone(conn):
                verb(conn, place.agent.ctx, "mate")
        place.change(lambda conn: participations.set_admin(conn, place.project.id, "bob", False, actor="cli"))
        before = place.written()
        for conn in place.connections:
            with pytest.raises(BusError, match="project-admin"), conn.raw.transaction():
                verb(conn, place.agent.ctx, "mate")
            assert not place.run(conn, participant_queries.whoami).is_admin
        assert place.written() == before
        place.change(lambda conn: participations.set_admin(conn, place.project.id, "bob", True, actor="cli"))


def test_a_purge_that_began_answers_nobody_at_once(db: Database) -> None:
    with ExitStack() as stack:
        warm = [stack.enter_context(db.connection()) for _ in range(_WARM)]
        for round_ in range(10):
            place = _Place(db, warm)
            place.change(lambda conn: project_purge.begin_purge(conn, place.project.id, actor="cli"))  # noqa: B023
            place.each_refuses(_some(round_), NotAuthenticated)
