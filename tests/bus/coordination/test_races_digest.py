"""whats_new during concurrent writes: every event once, in order, with rising times."""

import threading
from itertools import pairwise

import pytest

from bus.coordination import digest, posts, sequences
from bus.coordination.ledger import Event
from bus.ctx import Ctx
from bus.db import Database
from tests import factories
from tests.assertions import assert_ledger_consistent
from tests.concurrency import failures, run_concurrently, run_jobs_concurrently

_WRITERS = 16


@pytest.mark.parametrize("event_count", [4_000, pytest.param(20_000, marks=pytest.mark.exhaustive)])
def test_readers_receive_each_event_once(db: Database, event_count: int) -> None:
    """Sixteen writers, two sub-agents that share a cursor, and a third reader with its own cursor."""
    with db.transaction() as conn:
        project = factories.make_project(conn)
        writers = [factories.make_agent(conn, project) for _ in range(4)]
        pair, alone = factories.make_agent(conn, project, "pair"), factories.make_agent(conn, project, "alone")
        for agent in (pair, alone):
            digest.read_digest(conn, agent.ctx)
    written = threading.Semaphore(0)
    finished = threading.Event()

    def write(ctx: Ctx, number: int) -> None:
        for step in range(event_count // _WRITERS):
            if step % 50 == 49:
                with db.transaction() as conn:
                    posts.create(conn, ctx, "hello", to_actor="alone")
            else:
                with db.connection() as conn:
                    sequences.claim(conn, ctx, f"s{number % 4}")
        written.release()

    def read(ctx: Ctx, limit: int) -> list[digest.Digest]:
        """Read until all events written before `finished` have been returned."""
        runs: list[digest.Digest] = []
        while True:
            last = finished.is_set()
            with db.connection() as conn:
                result = digest.read_digest(conn, ctx, limit=limit)
            if result.events:
                runs.append(result)
            elif last:
                return runs

    def wait_for_writers() -> list[digest.Digest]:
        for _ in range(_WRITERS):
            assert written.acquire(timeout=120)
        finished.set()
        return []

    outcomes = run_jobs_concurrently(
        *(lambda n=n: write(writers[n % 4].ctx, n) for n in range(_WRITERS)),
        wait_for_writers,
        lambda: read(pair.ctx, 150),
        lambda: read(pair.ctx, 500),
        lambda: read(alone.ctx, 500),
    )
    assert failures(outcomes) == []
    first, second, third = outcomes[-3:]
    for runs in (first, second, third):
        for run in runs:
            ids = [event.id for event in run.events]
            assert ids == list(range(run.since_event_id + 1, run.since_event_id + 1 + len(ids)))
            assert run.cursor == ids[-1]
    shared = sorted((event for run in first + second for event in run.events), key=lambda event: event.id)
    own = [event for run in third for event in run.events]
    expected = list(range(1, event_count + 1))
    assert [event.id for event in own] == expected
    assert [event.id for event in shared] == expected
    assert _payloads(shared) == _payloads(own)
    assert all(earlier.ts <= later.ts for earlier, later in pairwise(own))
    # The test is meaningful only if both sub-agents received events.
    assert first
    assert second
    with db.connection() as conn:
        assert assert_ledger_consistent(conn, project.id) == event_count


def _payloads(events: list[Event]) -> list[tuple[int, str, str]]:
    return [(event.id, event.type, repr(event.payload)) for event in events]


def test_concurrent_sub_agents_receive_disjoint_contiguous_runs(db: Database) -> None:
    with db.transaction() as conn:
        agent = factories.make_agent(conn)
        digest.read_digest(conn, agent.ctx)
    for round_ in range(60):
        with db.transaction() as conn:
            for _ in range(9):
                sequences.claim(conn, agent.ctx, "s")
        runs = run_concurrently(db, *[lambda conn: digest.read_digest(conn, agent.ctx, limit=5)] * 3)
        runs.sort(key=lambda run: (run.since_event_id, -len(run.events)))
        start = round_ * 9
        assert [[event.id - start for event in run.events] for run in runs] == [[1, 2, 3, 4, 5], [6, 7, 8, 9], []]
        assert [run.more for run in runs] == [True, False, False]


def test_concurrent_first_calls_create_one_cursor(db: Database) -> None:
    with db.transaction() as conn:
        project = factories.make_project(conn)
        writer = factories.make_agent(conn, project)
        for _ in range(12):
            sequences.claim(conn, writer.ctx, "s")
    for _ in range(30):
        with db.transaction() as conn:
            agent = factories.make_agent(conn, project)
        runs = run_concurrently(db, *[lambda conn: digest.read_digest(conn, agent.ctx, limit=6)] * 3)  # noqa: B023
        assert sorted(event.id for run in runs for event in run.events) == list(range(1, 13))


def test_reads_without_advancing_do_not_disturb_the_cursor(db: Database) -> None:
    with db.transaction() as conn:
        agent = factories.make_agent(conn)
        for _ in range(8):
            sequences.claim(conn, agent.ctx, "s")
    for round_ in range(20):
        with db.transaction() as conn:
            sequences.claim(conn, agent.ctx, "s")
        advanced, peek, reread = run_concurrently(
            db,
            lambda conn: digest.read_digest(conn, agent.ctx),
            lambda conn: digest.read_digest(conn, agent.ctx, advance_cursor=False),
            lambda conn: digest.read_digest(conn, agent.ctx, since=0),
        )
        assert advanced.cursor == 9 + round_
        assert peek.cursor in (advanced.since_event_id, advanced.cursor)
        assert len(reread.events) == 9 + round_
