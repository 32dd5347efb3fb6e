"""whats_new while everybody writes: nothing missed, nothing doubled, time never backwards."""

import threading
from itertools import pairwise

from bus.coordination import digest, posts, sequences
from bus.coordination.ledger import Event
from bus.ctx import Ctx
from bus.db import Database
from tests import factories
from tests.assertions import assert_ledger_consistent
from tests.concurrency import failures, run_concurrently, run_jobs_concurrently

_WRITERS = 16
_EVENTS = 20_000


def test_no_reader_misses_or_doubles_any_of_twenty_thousand_events(db: Database) -> None:
    """Sixteen writers; two sub-agents who share a cursor, and a third reader with its own."""
    with db.transaction() as conn:
        project = factories.make_project(conn)
        writers = [factories.make_agent(conn, project) for _ in range(4)]
        pair, alone = factories.make_agent(conn, project, "pair"), factories.make_agent(conn, project, "alone")
        for agent in (pair, alone):
            digest.read_digest(conn, agent.ctx)
    written = threading.Semaphore(0)
    finished = threading.Event()

    def write(ctx: Ctx, number: int) -> None:
        for step in range(_EVENTS // _WRITERS):
            if step % 50 == 49:
                with db.transaction() as conn:
                    posts.create(conn, ctx, "hello", to_actor="alone")
            else:
                with db.connection() as conn:
                    sequences.claim(conn, ctx, f"s{number % 4}")
        written.release()

    def read(ctx: Ctx, limit: int) -> list[digest.Digest]:
        """Follow until everything that was written before `finished` was returned."""
        runs: list[digest.Digest] = []
        while True:
            last = finished.is_set()
            with db.connection() as conn:
                found = digest.read_digest(conn, ctx, limit=limit)
            if found.events:
                runs.append(found)
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
    expected = list(range(1, _EVENTS + 1))
    assert [event.id for event in own] == expected
    assert [event.id for event in shared] == expected
    assert _payloads(shared) == _payloads(own)
    assert all(one.ts <= two.ts for one, two in pairwise(own))
    # Both of the pair were served, or the test has shown nothing.
    assert first
    assert second
    with db.connection() as conn:
        assert assert_ledger_consistent(conn, project.id) == _EVENTS


def _payloads(events: list[Event]) -> list[tuple[int, str, str]]:
    return [(event.id, event.type, repr(event.payload)) for event in events]


def test_two_sub_agents_who_ask_at_one_moment_share_the_events_out(db: Database) -> None:
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


def test_the_first_calls_of_a_new_identity_make_one_cursor(db: Database) -> None:
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


def test_looking_back_and_looking_ahead_disturb_no_cursor(db: Database) -> None:
    with db.transaction() as conn:
        agent = factories.make_agent(conn)
        for _ in range(8):
            sequences.claim(conn, agent.ctx, "s")
    for round_ in range(20):
        with db.transaction() as conn:
            sequences.claim(conn, agent.ctx, "s")
        moved, look, back = run_concurrently(
            db,
            lambda conn: digest.read_digest(conn, agent.ctx),
            lambda conn: digest.read_digest(conn, agent.ctx, advance_cursor=False),
            lambda conn: digest.read_digest(conn, agent.ctx, since=0),
        )
        assert moved.cursor == 9 + round_
        assert look.cursor in (moved.since_event_id, moved.cursor)
        assert len(back.events) == 9 + round_
