"""query_events: each filter, their combinations and the pages, against the whole ledger read in Python."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from bus.coordination import leases, ledger, posts, presence, sequences, tasks
from bus.coordination.ledger import Event
from bus.db import Connection
from bus.tenancy import participations
from bus.tenancy.projects import Project
from tests import factories
from tests.assertions import assert_ledger_consistent, assert_refused
from tests.factories import Agent


class _World:
    """A ledger of some sixty events of many types by three participants."""

    def __init__(self, conn: Connection, project: Project) -> None:
        self.ada = factories.make_agent(conn, project, "ada", lane="core", is_admin=True)
        self.bob = factories.make_agent(conn, project, "bob", lane="core")
        self.eve = factories.make_agent(conn, project, "eve")
        everyone = (self.ada, self.bob, self.eve)
        sequences.seed(conn, self.ada.ctx, "adr", 5)
        for number in range(9):
            agent = everyone[number % 3]
            sequences.claim(conn, agent.ctx, ["adr", "migration"][number % 2])
            posted = posts.create(
                conn,
                agent.ctx,
                "hello",
                to_lane="core",
                ref=["PR-1", "PR-2", None][number % 3],
                tag=["red", None][number % 2],
            )
            posts.ack(conn, self.bob.ctx, [posted.post_id])
            leases.acquire(conn, agent.ctx, f"src/{number}.py")
        for number in range(3):
            task = tasks.create(conn, self.ada.ctx, f"task {number}").task_id
            tasks.start(conn, self.bob.ctx, task)
            tasks.ship(conn, self.bob.ctx, task, ref=["PR-1", "PR-9", None][number])
        leases.release(conn, self.bob.ctx, "*")
        presence.register(conn, self.eve.ctx, "docs")


@pytest.fixture
def world(conn: Connection, project: Project) -> _World:
    return _World(conn, project)


def _whole(conn: Connection, agent: Agent, **filters: Any) -> list[Event]:
    found = ledger.query_events(conn, agent.ctx, limit=1000, **filters)
    assert found.next_before is None
    return found.events


def test_the_whole_ledger_comes_newest_first(conn: Connection, world: _World) -> None:
    events = _whole(conn, world.ada)
    assert [event.id for event in events] == list(range(len(events), 0, -1))
    assert assert_ledger_consistent(conn, world.ada.ctx.project_id) == len(events)
    assert [event.ts for event in events] == sorted((event.ts for event in events), reverse=True)
    assert {event.mine for event in events if event.actor == world.ada.actor} == {True}
    assert {event.mine for event in events if event.actor != world.ada.actor} == {False}
    assert all(event.ts.utcoffset() == timedelta(0) for event in events)


_Match = Callable[[Event], bool]
_SINGLE: dict[str, tuple[Any, _Match]] = {
    "actor": ("bob", lambda e: e.actor.endswith("/bob")),
    "sequence": ("adr", lambda e: e.payload.get("sequence") == "adr"),
    "number": (6, lambda e: e.payload.get("number") == 6),
    "ref": ("PR-1", lambda e: e.payload.get("ref") == "PR-1"),
    "tag": ("red", lambda e: e.payload.get("tag") == "red"),
}


@pytest.mark.parametrize("name", _SINGLE)
def test_each_filter_alone_and_with_every_type(conn: Connection, world: _World, name: str) -> None:
    value, matches = _SINGLE[name]
    everything = _whole(conn, world.ada)
    expected = [event for event in everything if matches(event)]
    assert expected
    assert _whole(conn, world.ada, **{name: value}) == expected
    for kind in {event.type for event in everything}:
        found = _whole(conn, world.ada, type=kind, **{name: value})
        assert found == [event for event in expected if event.type == kind], kind


@pytest.mark.parametrize("first", _SINGLE)
@pytest.mark.parametrize("second", _SINGLE)
def test_two_filters_must_both_match(conn: Connection, world: _World, first: str, second: str) -> None:
    if first == second:
        return
    both = {name: _SINGLE[name][0] for name in (first, second)}
    expected = [event for event in _whole(conn, world.ada) if _SINGLE[first][1](event) and _SINGLE[second][1](event)]
    assert _whole(conn, world.ada, **both) == expected


def test_each_type_alone_finds_its_events(conn: Connection, world: _World) -> None:
    everything = _whole(conn, world.ada)
    kinds = {event.type for event in everything}
    assert len(kinds) == 10
    for kind in kinds:
        assert _whole(conn, world.ada, type=kind) == [event for event in everything if event.type == kind]
    assert _whole(conn, world.ada, type="escalate") == []


def test_what_does_not_exist_finds_nothing(conn: Connection, world: _World) -> None:
    for filters in ({"sequence": "none"}, {"number": 0}, {"ref": "PR-404"}, {"tag": "none"}):
        assert _whole(conn, world.ada, **filters) == []
    with assert_refused(conn, "unknown_recipient"):
        ledger.query_events(conn, world.ada.ctx, actor="nobody")


@pytest.mark.parametrize(
    "filters", [{}, {"actor": "bob"}, {"sequence": "adr"}, {"ref": "PR-1"}, {"tag": "red"}, {"type": "claim"}]
)
@pytest.mark.parametrize("limit", [1, 2, 7])
def test_pages_lose_and_double_nothing(conn: Connection, world: _World, filters: dict[str, Any], limit: int) -> None:
    paged: list[Event] = []
    before = None
    while True:
        page = ledger.query_events(conn, world.ada.ctx, limit=limit, before=before, **filters)
        assert len(page.events) <= limit
        paged += page.events
        before = page.next_before
        if before is None:
            break
        assert before == page.events[-1].id
    assert paged == _whole(conn, world.ada, **filters)


def test_a_hundred_events_come_where_no_limit_is_given_and_last_n_is_a_limit(conn: Connection, ada: Agent) -> None:
    for _ in range(101):
        sequences.claim(conn, ada.ctx, "s")
    page = ledger.query_events(conn, ada.ctx)
    assert (len(page.events), page.next_before) == (100, 2)
    assert [event.id for event in ledger.query_events(conn, ada.ctx, last_n=2).events] == [101, 100]
    assert len(ledger.query_events(conn, ada.ctx, last_n=2, limit=50).events) == 2


def test_since_and_until_include_the_moment_that_they_name(conn: Connection, world: _World) -> None:
    # Events of one transaction are moments apart here; spread them out, as a day would.
    conn.raw.execute("ALTER TABLE event DISABLE TRIGGER event_update")
    conn.raw.execute(
        "UPDATE event SET at = '2026-01-31T12:00:00Z'::timestamptz + seq / 2 * interval '1 second'"
        " WHERE project_id = %s",
        (world.ada.ctx.project_id,),
    )
    conn.raw.execute("ALTER TABLE event ENABLE TRIGGER event_update")
    everything = _whole(conn, world.ada)
    moments = sorted({event.ts for event in everything})
    low, high = moments[3], moments[9]
    cases = [
        (low, None),
        (None, high),
        (low, high),
        (low, low),
        (high, low),
        (low + timedelta(milliseconds=1), high - timedelta(milliseconds=1)),
        (low - timedelta(microseconds=1), high + timedelta(microseconds=1)),
        (low + timedelta(microseconds=1), high - timedelta(microseconds=1)),
        (moments[0] - timedelta(days=400), moments[-1] + timedelta(days=400)),
        (moments[-1] + timedelta(milliseconds=1), None),
        (None, moments[0] - timedelta(milliseconds=1)),
    ]
    for since, until in cases:
        times = {name: value.isoformat() for name, value in (("since", since), ("until", until)) if value is not None}
        expected = [
            event
            for event in everything
            if (since is None or event.ts >= since) and (until is None or event.ts <= until)
        ]
        assert _whole(conn, world.ada, **times) == expected, times
        for kind in ("claim", "post"):
            found = _whole(conn, world.ada, type=kind, **times)
            assert found == [event for event in expected if event.type == kind], times
        for name, (value, matches) in _SINGLE.items():
            found = _whole(conn, world.ada, **{name: value}, **times)
            assert found == [event for event in expected if matches(event)], (name, times)


def test_until_is_exact_to_the_microsecond(conn: Connection, ada: Agent) -> None:
    """An event half a millisecond after `until` is after it."""
    sequences.claim(conn, ada.ctx, "s")
    (event,) = _whole(conn, ada)
    just_before = (event.ts - timedelta(microseconds=500)).isoformat()
    assert _whole(conn, ada, until=just_before) == []
    assert _whole(conn, ada, until=event.ts.isoformat()) == [event]


def test_time_does_not_turn_back_when_the_clock_of_the_server_does(conn: Connection, ada: Agent, bob: Agent) -> None:
    """As after a failover to a machine whose clock is behind: events keep the last time until it has caught up."""
    ahead = conn.fetch_one(
        "UPDATE project_clock SET last_at = date_trunc('milliseconds', clock_timestamp() + interval '1 hour')"
        " WHERE project_id = %s RETURNING last_at",
        (ada.ctx.project_id,),
    )
    sequences.claim(conn, ada.ctx, "s")
    posts.create(conn, ada.ctx, "hello", to_actor="bob")
    posts.ack(conn, bob.ctx, [2])
    tasks.create(conn, ada.ctx, "x")
    leases.acquire(conn, ada.ctx, "src")
    presence.register(conn, ada.ctx, "core")
    assert [event.ts for event in _whole(conn, ada)] == [*ahead] * 6
    assert assert_ledger_consistent(conn, ada.ctx.project_id) == 6


def test_a_time_that_was_read_can_be_given_back_as_a_filter(conn: Connection, world: _World) -> None:
    everything = _whole(conn, world.ada)
    for event in everything:
        stamp = event.ts.isoformat()
        assert event.ts.microsecond % 1000 == 0
        found = {one.id for one in _whole(conn, world.ada, since=stamp, until=stamp)}
        assert event.id in found
        assert found == {one.id for one in everything if one.ts == event.ts}


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("2026-01-31T12:00:00Z", datetime(2026, 1, 31, 12, tzinfo=UTC)),
        ("2026-01-31T13:00:00+01:00", datetime(2026, 1, 31, 12, tzinfo=UTC)),
        ("2026-01-31T12:00:00", datetime(2026, 1, 31, 12, tzinfo=UTC)),
        ("2026-01-31", datetime(2026, 1, 31, tzinfo=UTC)),
    ],
)
def test_a_time_may_be_written_in_any_form_of_the_standard(
    conn: Connection, ada: Agent, written: str, meant: datetime
) -> None:
    for moment in (meant - timedelta(milliseconds=1), meant, meant + timedelta(milliseconds=1)):
        conn.execute(
            "UPDATE project_clock SET last_at = %s WHERE project_id = %s",
            (moment, ada.ctx.project_id),
        )
        conn.execute(
            "WITH t AS (UPDATE project_clock SET last_seq = last_seq + 1 WHERE project_id = %(p)s RETURNING last_seq)"
            " INSERT INTO event (project_id, seq, at, actor, type, payload)"
            " SELECT %(p)s, last_seq, %(at)s, 'x', 'escalate', '{}' FROM t RETURNING seq",
            {"p": ada.ctx.project_id, "at": moment},
        )
    assert [event.id for event in _whole(conn, ada, since=written)] == [3, 2]
    assert [event.id for event in _whole(conn, ada, until=written)] == [2, 1]


@pytest.mark.parametrize("moment", ["0001-01-01T00:00:00Z", "9999-12-31T23:59:59.999999Z"])
def test_the_ends_of_time_are_times(conn: Connection, ada: Agent, moment: str) -> None:
    sequences.claim(conn, ada.ctx, "s")
    before_all = moment.startswith("0001")
    assert len(_whole(conn, ada, since=moment)) == (1 if before_all else 0)
    assert len(_whole(conn, ada, until=moment)) == (0 if before_all else 1)


def test_an_empty_ledger_answers_every_question(conn: Connection, ada: Agent) -> None:
    for filters in ({}, {"since": "2026-01-01"}, {"until": "2026-01-01"}, {"actor": "ada"}, {"number": 1}):
        assert _whole(conn, ada, **filters) == []


def test_a_former_name_finds_what_was_done_under_it_and_mine_stays_mine(conn: Connection, ada: Agent) -> None:
    sequences.claim(conn, ada.ctx, "s")
    me = ada.ctx.participant_id
    # What a rename does: a new label, and the old name kept for its bearer.
    conn.execute("UPDATE participant SET label = 'ada-2' WHERE id = %s", (me,))
    conn.execute(
        "INSERT INTO participant_name (owner_id, label_key, participant_id) VALUES (%s, 'ada-2', %s)",
        (ada.ctx.owner_id, me),
    )
    sequences.claim(conn, ada.ctx, "s")
    for name in ("ada", "ada-2", f"{ada.handle}/ada"):
        events = _whole(conn, ada, actor=name)
        assert [(event.id, event.mine) for event in events] == [(2, True), (1, True)]
    assert [event.actor for event in events] == [f"{ada.handle}/ada-2", ada.actor]


def test_a_removed_participant_can_still_be_asked_about(conn: Connection, ada: Agent, bob: Agent) -> None:
    sequences.claim(conn, bob.ctx, "s")
    participations.remove(conn, ada.ctx.project_id, "bob", actor="cli")
    assert [event.actor for event in _whole(conn, ada, actor="bob")] == [bob.actor]


def test_the_answer_counts_the_unread(conn: Connection, ada: Agent, bob: Agent) -> None:
    posts.create(conn, ada.ctx, "hello", to_actor="bob")
    assert ledger.query_events(conn, bob.ctx).unread == 1
    assert ledger.query_events(conn, bob.ctx, type="escalate").unread == 1
    assert ledger.query_events(conn, ada.ctx).unread == 0
