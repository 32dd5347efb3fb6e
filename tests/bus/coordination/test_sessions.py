"""Sessions of one participation: each has its own cursor and leases, and takes nothing from the others."""

import pytest

from bus.coordination import digest, leases, ledger, posts, sequences
from bus.ctx import Ctx
from bus.db import Connection
from tests.factories import Agent


def _ids(conn: Connection, ctx: Ctx, limit: int = 100) -> list[int]:
    return [event.id for event in digest.read_digest(conn, ctx, limit=limit).events]


def _claim(conn: Connection, ctx: Ctx, count: int = 1) -> None:
    for _ in range(count):
        sequences.claim(conn, ctx, "s")


@pytest.fixture
def left(ada: Agent) -> Ctx:
    """A session of ada."""
    return ada.ctx.with_session("0193-left")


@pytest.fixture
def right(ada: Agent) -> Ctx:
    """Another session of ada."""
    return ada.ctx.with_session("0193-right")


def test_each_session_reads_each_event_once(conn: Connection, ada: Agent, bob: Agent, left: Ctx, right: Ctx) -> None:
    _claim(conn, bob.ctx, 3)
    assert _ids(conn, left, limit=2) == [1, 2]
    assert _ids(conn, right) == [1, 2, 3]
    assert _ids(conn, left) == [3]
    assert _ids(conn, ada.ctx) == [1, 2, 3]
    _claim(conn, bob.ctx)
    assert _ids(conn, left) == _ids(conn, right) == _ids(conn, ada.ctx) == [4]
    assert _ids(conn, left) == []


def test_reading_without_advancing_leaves_the_cursor_of_a_session(conn: Connection, bob: Agent, left: Ctx) -> None:
    _claim(conn, bob.ctx, 2)
    for _ in range(2):
        assert len(digest.read_digest(conn, left, advance_cursor=False).events) == 2
    assert len(digest.read_digest(conn, left, since=1).events) == 1
    assert _ids(conn, left) == [1, 2]


def test_a_sub_agent_begins_at_its_parents_cursor_and_takes_nothing_from_it(
    conn: Connection, ada: Agent, bob: Agent, left: Ctx
) -> None:
    _claim(conn, bob.ctx, 2)
    _ids(conn, left)
    _claim(conn, bob.ctx, 2)
    assert _ids(conn, ada.ctx.with_session(f"{left.session}/agent-1")) == [3, 4]
    assert _ids(conn, left) == [3, 4]


def test_a_new_session_begins_where_the_calls_without_a_session_stopped(
    conn: Connection, ada: Agent, bob: Agent, left: Ctx
) -> None:
    _claim(conn, bob.ctx, 2)
    _ids(conn, ada.ctx)
    _claim(conn, bob.ctx)
    assert _ids(conn, left) == [3]


def test_a_first_session_begins_100_events_before_the_end(conn: Connection, bob: Agent, left: Ctx) -> None:
    _claim(conn, bob.ctx, 103)
    assert _ids(conn, left) == list(range(4, 104))


def test_events_of_another_session_of_the_caller_are_labelled_and_not_its_own(
    conn: Connection, ada: Agent, bob: Agent, left: Ctx, right: Ctx
) -> None:
    _claim(conn, left)
    _claim(conn, ada.ctx)
    _claim(conn, bob.ctx)
    for events in (digest.read_digest(conn, left).events, ledger.query_events(conn, left).events[::-1]):
        assert [(event.mine, event.session) for event in events] == [(True, None), (True, None), (False, None)]
    for events in (digest.read_digest(conn, right).events, ledger.query_events(conn, right).events[::-1]):
        assert [(event.mine, event.session) for event in events] == [
            (False, "193-left"),
            (True, None),
            (False, None),
        ]
    for events in (digest.read_digest(conn, ada.ctx).events, ledger.query_events(conn, ada.ctx).events[::-1]):
        assert [(event.mine, event.session) for event in events] == [(True, None), (True, None), (False, None)]


def test_every_kind_of_event_carries_its_session(conn: Connection, left: Ctx, right: Ctx) -> None:
    from bus.coordination import presence, tasks

    presence.register(conn, left, "web")
    sequences.seed(conn, left, "adr", 3)
    sequences.claim(conn, left, "adr")
    post = posts.create(conn, left, "x", to_actor="ada")
    posts.ack(conn, left, [post.post_id])
    leases.acquire(conn, left, "a")
    leases.acquire(conn, left, "a", mode="shared")
    leases.release(conn, left, "a")
    tasks.start(conn, left, tasks.create(conn, left, "t").task_id)
    events = digest.read_digest(conn, right).events
    assert len({event.type for event in events}) == 9
    assert {event.session for event in events} == {"193-left"}


def test_leases_of_two_sessions_contend_and_end_separately(conn: Connection, ada: Agent, left: Ctx, right: Ctx) -> None:
    first = leases.acquire(conn, left, "src/a.py", note="parser")
    second = leases.acquire(conn, right, "src/a.py")
    assert (first.others, second.renewed) == ([], False)
    (other,) = second.others
    assert (other.actor, other.session, other.note) == (ada.actor, "193-left", "parser")
    assert second.fence > first.fence
    assert leases.acquire(conn, left, "src/a.py").renewed
    assert leases.release(conn, right, "*").released == 1
    assert leases.release(conn, right, "src/a.py").released == 0
    (held,) = leases.list_leases(conn, left).leases
    assert (held.fence, held.session, held.mine) == (first.fence, "193-left", True)
    (held,) = leases.list_leases(conn, right).leases
    assert (held.session, held.mine) == ("193-left", None)


def test_a_session_does_not_contend_with_its_sub_agents_or_with_calls_without_a_session(
    conn: Connection, ada: Agent, left: Ctx
) -> None:
    sub_agents = [ada.ctx.with_session(f"{left.session}/{number}") for number in (1, 2)]
    leases.acquire(conn, left, "src")
    assert leases.acquire(conn, sub_agents[0], "src/a.py").others == []
    assert [other.session for other in leases.acquire(conn, sub_agents[1], "src/a.py").others] == ["193-left/1"]
    assert leases.acquire(conn, ada.ctx, "src/a.py").others == []
    assert leases.release(conn, ada.ctx, "*").released == 1
    assert leases.release(conn, left, "*").released == 1
    assert len(leases.list_leases(conn, ada.ctx).leases) == 2
