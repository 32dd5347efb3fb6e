"""Sessions of one token at the same moment: each event once for each, each post acked once and known to all."""

import random
import threading
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from bus.coordination import digest, leases, ledger, long_poll, posts, sequences, sessions
from bus.coordination.long_poll import WaitRequest
from bus.coordination.sessions import WakeReport
from bus.ctx import Ctx
from bus.db import Connection, Database
from tests.assertions import assert_ledger_consistent
from tests.concurrency import failures, run_concurrently, run_jobs_concurrently
from tests.factories import Agent, make_agent, make_project


def _make_team(db: Database) -> tuple[Agent, Agent]:
    with db.transaction() as conn:
        project = make_project(conn)
        return make_agent(conn, project, "ada"), make_agent(conn, project, "bob")


def _sessions(agent: Agent, count: int) -> list[Ctx]:
    return [agent.ctx.with_session(f"session-{number}") for number in range(count)]


def test_calls_of_one_new_session_at_once_get_each_event_once(db: Database) -> None:
    ada, bob = _make_team(db)
    with db.transaction() as conn:
        for _ in range(60):
            sequences.claim(conn, bob.ctx, "s")
    (session,) = _sessions(ada, 1)
    results = run_concurrently(db, *[lambda conn: digest.read_digest(conn, session, limit=10)] * 6)
    assert not failures(results)
    assert sorted(event.id for result in results for event in result.events) == list(range(1, 61))


def test_of_two_sessions_that_ack_at_once_one_takes_the_post(db: Database) -> None:
    ada, bob = _make_team(db)
    left, right = _sessions(ada, 2)
    for _ in range(10):
        with db.transaction() as conn:
            post_id = posts.create(conn, bob.ctx, "job", to_actor="ada").post_id
        calls: list[Callable[[Connection], Any]] = [
            lambda conn, ctx=ctx, post_id=post_id: posts.ack(conn, ctx, [post_id]) for ctx in (left, right)
        ]
        (first,), (second,) = run_concurrently(db, *calls)
        assert first.acked_at == second.acked_at
        labels = {left: "ession-0", right: "ession-1"}
        assert (first.taken_by, second.taken_by) in {(None, labels[left]), (labels[right], None)}
    with db.connection() as conn:
        assert len(ledger.query_events(conn, bob.ctx, type="ack").events) == 10


def test_a_post_beside_two_waits_wakes_one(db: Database) -> None:
    ada, bob = _make_team(db)
    requests = [WaitRequest(ctx, frozenset({"inbox"})) for ctx in _sessions(ada, 2)]
    for round_ in range(10):
        with db.transaction() as conn:
            waiting = [WakeReport((ctx.participation_id, ctx.session), True, False) for ctx in _sessions(ada, 2)]
            sessions.report_wake(conn, waiting)
        calls: list[Callable[[Connection], Any]] = [
            lambda conn, request=request: long_poll.poll(conn, request) for request in requests
        ]
        created, *woken = run_concurrently(
            db, lambda conn: posts.create(conn, bob.ctx, "job", to_actor="ada"), *calls, *calls
        )
        assert not failures([created, *woken])
        # A change notification polls the waits that are still open.
        for call in calls:
            with db.transaction() as conn:
                woken.append(call(conn))
        shown = [post.post_id for result in woken if result is not None for post in result[1].posts]
        assert shown == [created.post_id], round_


def test_a_lease_beside_the_end_of_its_session_is_released_or_comes_after_it(db: Database) -> None:
    ada, bob = _make_team(db)
    for number in range(10):
        (session,) = [ada.ctx.with_session(f"session-{number}")]
        ended, lease, _ = run_concurrently(
            db,
            lambda conn, session=session: sessions.end(conn, session),
            lambda conn, session=session, number=number: leases.acquire(conn, session, f"{number}.py"),
            lambda conn, session=session: sessions.record_seen(
                conn, {(session.participation_id, str(session.session)): (1.0, session.token_id)}
            ),
        )
        assert not failures([ended, lease])
        with db.transaction() as conn:
            live = leases.list_leases(conn, bob.ctx, surface=f"{number}.py").leases
            assert len(live) == 1 - ended.released
            events = ledger.query_events(conn, bob.ctx, limit=2).events
            assert [event.type for event in events][:1] == (["release"] if ended.released else ["lease"])
            # What was leased after the end is found, whether or not a gateway has written the session again.
            conn.execute("UPDATE lease SET acquired_at = acquired_at - interval '2 minutes'")
            conn.execute("UPDATE agent_session SET last_seen = last_seen - interval '1 day'")
            sessions.end_stale_sessions(conn, session.project_id)
            assert leases.list_leases(conn, bob.ctx).leases == []
    with db.connection() as conn:
        assert_ledger_consistent(conn, ada.ctx.project_id)


def test_two_ends_and_two_workers_at_once_have_one_effect(db: Database) -> None:
    ada, bob = _make_team(db)
    stale = _sessions(ada, 6)
    for ctx in stale:
        with db.transaction() as conn:
            digest.read_digest(conn, ctx)
            leases.acquire(conn, ctx, f"{ctx.session}.py")
            sessions.look(conn, ctx)
    with db.transaction() as conn:
        conn.execute("UPDATE agent_session SET last_seen = last_seen - interval '1 day'")
    results = run_concurrently(
        db,
        *[lambda conn: sessions.end_stale_sessions(conn, ada.ctx.project_id)] * 3,
        *[lambda conn, ctx=ctx: sessions.end(conn, ctx) for ctx in stale[:2]],
    )
    assert not failures(results)
    with db.connection() as conn:
        assert len(ledger.query_events(conn, bob.ctx, type="release").events) == 6


class _Killed(Exception):
    """The session was killed."""


class _Session:
    """A session of ada that reads, waits, acks, dies and comes back with the same key."""

    def __init__(self, db: Database, ctx: Ctx, seed: int) -> None:
        self.db = db
        self.ctx = ctx
        self.events: Counter[int] = Counter()
        self.taken: set[int] = set()
        self.known: set[int] = set()
        self._random = random.Random(seed)

    def run(self, is_over: threading.Event) -> None:
        """Work until the writers are done and nothing is left."""
        while True:
            was_over = is_over.is_set()
            progressed = self._read() + self._work()
            if was_over and not progressed:
                return

    def _read(self) -> int:
        try:
            with self.db.transaction() as conn:
                result = digest.read_digest(conn, self.ctx, limit=self._random.randint(1, 50))
                self._die_sometimes()
        except _Killed:
            return 1
        self.events.update(event.id for event in result.events)
        self.known.update(event.payload["post_id"] for event in result.events if event.type == "ack")
        return len(result.events)

    def _die_sometimes(self) -> None:
        """Die before the commit; the session connects again and repeats its call."""
        if self._random.random() < 0.1:
            raise _Killed

    def _work(self) -> int:
        if self._random.random() < 0.05:
            with self.db.transaction() as conn:
                sessions.end(conn, self.ctx)
        with self.db.transaction() as conn:
            report = WakeReport((self.ctx.participation_id, self.ctx.session), self._random.random() < 0.8, False)
            sessions.report_wake(conn, [report])
        with self.db.transaction() as conn:
            page = posts.list_posts(conn, self.ctx, to_me=True, unacked_only=True, limit=5)
        if not page.posts:
            return 0
        try:
            with self.db.transaction() as conn:
                acks = posts.ack(conn, self.ctx, [post.post_id for post in page.posts])
                self._die_sometimes()
        except _Killed:
            return 1
        self.taken.update(ack.post_id for ack in acks if ack.taken_by is None)
        return len(acks)


@pytest.mark.parametrize(
    "event_count", [150, pytest.param(1_000, marks=[pytest.mark.exhaustive, pytest.mark.timeout(600)])]
)
def test_eight_sessions_see_every_event_once_and_ack_every_post_once(db: Database, event_count: int) -> None:
    ada, bob = _make_team(db)
    workers = [_Session(db, ctx, seed) for seed, ctx in enumerate(_sessions(ada, 8))]
    with db.transaction() as conn:
        for worker in workers:
            digest.read_digest(conn, worker.ctx)
    is_over = threading.Event()
    post_ids: set[int] = set()

    def write() -> None:
        randomness = random.Random(99)
        try:
            for number in range(event_count):
                with db.transaction() as conn:
                    if randomness.random() < 0.3:
                        post_ids.add(posts.create(conn, bob.ctx, f"job {number}", to_actor="ada").post_id)
                    else:
                        sequences.claim(conn, bob.ctx, "s")
        finally:
            is_over.set()

    outcomes = run_jobs_concurrently(write, *[lambda worker=worker: worker.run(is_over) for worker in workers])
    assert not failures(outcomes)
    # Acks that were written after another session had read for the last time.
    for worker in workers:
        while worker._read():
            pass
    with db.connection() as conn:
        (last_seq,) = conn.fetch_one("SELECT last_seq FROM project_clock WHERE project_id = %s", (ada.ctx.project_id,))
        events = {
            row[0]: row[1]
            for row in conn.fetch_all("SELECT seq, type FROM event WHERE project_id = %s", (ada.ctx.project_id,))
        }
        assert_ledger_consistent(conn, ada.ctx.project_id)
    assert sum(event_type == "ack" for event_type in events.values()) == len(post_ids)
    for worker in workers:
        assert worker.events == Counter(range(1, last_seq + 1))
        assert worker.known == post_ids
    assert sorted(post_id for worker in workers for post_id in worker.taken) == sorted(post_ids)
