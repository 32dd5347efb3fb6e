"""query_events: filters, their combinations and pages, compared with the whole ledger filtered in Python."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from bus.coordination import leases, ledger, posts, presence, sequences, tasks
from bus.coordination.ledger import Event
from bus.db import Connection
from bus.tenancy import participations
from bus.tenancy.projects import Project
from tests import factories, servers
from tests.assertions import assert_ledger_consistent, assert_refused
from tests.factories import Agent


class _SampleLedger:
    """A ledger of some sixty events of many types by three participants."""

    def __init__(self, conn: Connection, project: Project) -> None:
        self.ada = factories.make_agent(conn, project, "ada", lane="core", is_admin=True)
        self.bob = factories.make_agent(conn, project, "bob", lane="core")
        self.eve = factories.make_agent(conn, project, "eve")
        agents = (self.ada, self.bob, self.eve)
        sequences.seed(conn, self.ada.ctx, "adr", 5)
        for number in range(9):
            agent = agents[number % 3]
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
def sample(conn: Connection, project: Project) -> _SampleLedger:
    return _SampleLedger(conn, project)


def _list_all(conn: Connection, agent: Agent, **filters: Any) -> list[Event]:
    page = ledger.query_events(conn, agent.ctx, limit=1000, **filters)
    assert page.next_before is None
    return page.events


def test_the_whole_ledger_is_returned_newest_first(conn: Connection, sample: _SampleLedger) -> None:
    events = _list_all(conn, sample.ada)
    assert [event.id for event in events] == list(range(len(events), 0, -1))
    assert assert_ledger_consistent(conn, sample.ada.ctx.project_id) == len(events)
    assert [event.ts for event in events] == sorted((event.ts for event in events), reverse=True)
    assert {event.mine for event in events if event.actor == sample.ada.actor} == {True}
    assert {event.mine for event in events if event.actor != sample.ada.actor} == {False}
    assert all(event.ts.utcoffset() == timedelta(0) for event in events)


_Match = Callable[[Event], bool]
_FILTERS: dict[str, tuple[Any, _Match]] = {
    "actor": ("bob", lambda e: e.actor.endswith("/bob")),
    "sequence": ("adr", lambda e: e.payload.get("sequence") == "adr"),
    "number": (6, lambda e: e.payload.get("number") == 6),
    "ref": ("PR-1", lambda e: e.payload.get("ref") == "PR-1"),
    "tag": ("red", lambda e: e.payload.get("tag") == "red"),
}


@pytest.mark.parametrize("name", _FILTERS)
def test_each_filter_works_alone_and_with_every_type(conn: Connection, sample: _SampleLedger, name: str) -> None:
    value, matches = _FILTERS[name]
    all_events = _list_all(conn, sample.ada)
    expected = [event for event in all_events if matches(event)]
    assert expected
    assert _list_all(conn, sample.ada, **{name: value}) == expected
    for kind in {event.type for event in all_events}:
        events = _list_all(conn, sample.ada, type=kind, **{name: value})
        assert events == [event for event in expected if event.type == kind], kind


@pytest.mark.parametrize("first", _FILTERS)
@pytest.mark.parametrize("second", _FILTERS)
def test_two_filters_must_both_match(conn: Connection, sample: _SampleLedger, first: str, second: str) -> None:
    if first == second:
        return
    both = {name: _FILTERS[name][0] for name in (first, second)}
    expected = [
        event for event in _list_all(conn, sample.ada) if _FILTERS[first][1](event) and _FILTERS[second][1](event)
    ]
    assert _list_all(conn, sample.ada, **both) == expected


def test_each_type_returns_its_events(conn: Connection, sample: _SampleLedger) -> None:
    all_events = _list_all(conn, sample.ada)
    kinds = {event.type for event in all_events}
    assert len(kinds) == 10
    for kind in kinds:
        assert _list_all(conn, sample.ada, type=kind) == [event for event in all_events if event.type == kind]
    assert _list_all(conn, sample.ada, type="escalate") == []


def test_filters_without_a_match_return_no_events(conn: Connection, sample: _SampleLedger) -> None:
    for filters in ({"sequence": "none"}, {"number": 0}, {"ref": "PR-404"}, {"tag": "none"}):
        assert _list_all(conn, sample.ada, **filters) == []
    with assert_refused(conn, "unknown_recipient"):
        ledger.query_events(conn, sample.ada.ctx, actor="unknown")


@pytest.mark.parametrize(
    "filters", [{}, {"actor": "bob"}, {"sequence": "adr"}, {"ref": "PR-1"}, {"tag": "red"}, {"type": "claim"}]
)
@pytest.mark.parametrize("limit", [1, 2, 7])
def test_pages_contain_every_event_once(
    conn: Connection, sample: _SampleLedger, filters: dict[str, Any], limit: int
) -> None:
    paged: list[Event] = []
    before = None
    while True:
        page = ledger.query_events(conn, sample.ada.ctx, limit=limit, before=before, **filters)
        assert len(page.events) <= limit
        paged += page.events
        before = page.next_before
        if before is None:
            break
        assert before == page.events[-1].id
    assert paged == _list_all(conn, sample.ada, **filters)


def test_the_default_limit_is_a_hundred_and_last_n_is_a_limit(conn: Connection, ada: Agent) -> None:
    for _ in range(101):
        sequences.claim(conn, ada.ctx, "s")
    page = ledger.query_events(conn, ada.ctx)
    assert (len(page.events), page.next_before) == (100, 2)
    assert [event.id for event in ledger.query_events(conn, ada.ctx, last_n=2).events] == [101, 100]
    assert len(ledger.query_events(conn, ada.ctx, last_n=2, limit=50).events) == 2


def test_since_and_until_are_inclusive(conn: Connection, sample: _SampleLedger) -> None:
    # Spread out the events, which are milliseconds apart in this test.
    with servers.as_owner(conn):
        conn.raw.execute("ALTER TABLE event DISABLE TRIGGER event_update")
        conn.raw.execute(
            "UPDATE event SET at = '2026-01-31T12:00:00Z'::timestamptz + seq / 2 * interval '1 second'"
            " WHERE project_id = %s",
            (sample.ada.ctx.project_id,),
        )
        conn.raw.execute("ALTER TABLE event ENABLE TRIGGER event_update")
    all_events = _list_all(conn, sample.ada)
    moments = sorted({event.ts for event in all_events})
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
            for event in all_events
            if (since is None or event.ts >= since) and (until is None or event.ts <= until)
        ]
        assert _list_all(conn, sample.ada, **times) == expected, times
        for kind in ("claim", "post"):
            events = _list_all(conn, sample.ada, type=kind, **times)
            assert events == [event for event in expected if event.type == kind], times
        for name, (value, matches) in _FILTERS.items():
            events = _list_all(conn, sample.ada, **{name: value}, **times)
            assert events == [event for event in expected if matches(event)], (name, times)


def test_the_first_event_at_a_time_is_found_wherever_it_is(conn: Connection, ada: Agent) -> None:
    """Among hundreds of events, of which up to seven have the same time."""
    conn.raw.execute(
        "INSERT INTO event (project_id, seq, at, actor, type, payload)"
        " SELECT %s, n, '2026-01-31T12:00:00Z'::timestamptz + n / 7 * interval '1 second', 'x', 'ack', '{}'"
        " FROM generate_series(1, 700) AS n",
        (ada.ctx.project_id,),
    )
    conn.execute(
        "UPDATE project_clock SET last_seq = 700, last_at = (SELECT max(at) FROM event WHERE project_id = %(project)s)"
        " WHERE project_id = %(project)s",
        {"project": ada.ctx.project_id},
    )
    wrong = conn.fetch_all(
        "SELECT moment.at FROM (SELECT '2026-01-31T11:59:59Z'::timestamptz + n * interval '500 ms' AS at"
        "                       FROM generate_series(0, 206) AS n) AS moment"
        " WHERE bus_seq_at(%(project)s, moment.at)"
        "       <> (SELECT coalesce(min(e.seq), 701) FROM event e"
        "           WHERE e.project_id = %(project)s AND e.at >= moment.at)",
        {"project": ada.ctx.project_id},
    )
    assert wrong == []


def test_until_is_exact_to_the_microsecond(conn: Connection, ada: Agent) -> None:
    """An event half a millisecond after `until` is excluded."""
    sequences.claim(conn, ada.ctx, "s")
    (event,) = _list_all(conn, ada)
    just_before = (event.ts - timedelta(microseconds=500)).isoformat()
    assert _list_all(conn, ada, until=just_before) == []
    assert _list_all(conn, ada, until=event.ts.isoformat()) == [event]


def test_event_times_never_go_back_when_the_clock_does(conn: Connection, ada: Agent, bob: Agent) -> None:
    """After a failover to a slow clock, events get the last time until the clock has caught up."""
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
    assert [event.ts for event in _list_all(conn, ada)] == [*ahead] * 6
    assert assert_ledger_consistent(conn, ada.ctx.project_id) == 6


def test_a_returned_time_works_as_a_filter(conn: Connection, sample: _SampleLedger) -> None:
    all_events = _list_all(conn, sample.ada)
    for event in all_events:
        stamp = event.ts.isoformat()
        assert event.ts.microsecond % 1000 == 0
        event_ids = {one.id for one in _list_all(conn, sample.ada, since=stamp, until=stamp)}
        assert event.id in event_ids
        assert event_ids == {one.id for one in all_events if one.ts == event.ts}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-01-31T12:00:00Z", datetime(2026, 1, 31, 12, tzinfo=UTC)),
        ("2026-01-31T13:00:00+01:00", datetime(2026, 1, 31, 12, tzinfo=UTC)),
        ("2026-01-31T12:00:00", datetime(2026, 1, 31, 12, tzinfo=UTC)),
        ("2026-01-31", datetime(2026, 1, 31, tzinfo=UTC)),
    ],
)
def test_times_are_accepted_in_the_forms_of_iso_8601(
    conn: Connection, ada: Agent, text: str, expected: datetime
) -> None:
    for moment in (expected - timedelta(milliseconds=1), expected, expected + timedelta(milliseconds=1)):
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
    assert [event.id for event in _list_all(conn, ada, since=text)] == [3, 2]
    assert [event.id for event in _list_all(conn, ada, until=text)] == [2, 1]


@pytest.mark.parametrize("moment", ["0001-01-01T00:00:00Z", "9999-12-31T23:59:59.999999Z"])
def test_the_first_and_the_last_time_are_accepted(conn: Connection, ada: Agent, moment: str) -> None:
    sequences.claim(conn, ada.ctx, "s")
    before_all = moment.startswith("0001")
    assert len(_list_all(conn, ada, since=moment)) == (1 if before_all else 0)
    assert len(_list_all(conn, ada, until=moment)) == (0 if before_all else 1)


def test_every_filter_works_on_an_empty_ledger(conn: Connection, ada: Agent) -> None:
    for filters in ({}, {"since": "2026-01-01"}, {"until": "2026-01-01"}, {"actor": "ada"}, {"number": 1}):
        assert _list_all(conn, ada, **filters) == []


def test_a_former_name_works_as_a_filter_and_mine_survives_a_rename(conn: Connection, ada: Agent) -> None:
    sequences.claim(conn, ada.ctx, "s")
    me = ada.ctx.participant_id
    # The effect of a rename: a new label, and the old name is kept for the participant.
    conn.execute("UPDATE participant SET label = 'ada-2' WHERE id = %s", (me,))
    conn.execute(
        "INSERT INTO participant_name (owner_id, label_key, participant_id) VALUES (%s, 'ada-2', %s)",
        (ada.ctx.owner_id, me),
    )
    sequences.claim(conn, ada.ctx, "s")
    for name in ("ada", "ada-2", f"{ada.handle}/ada"):
        events = _list_all(conn, ada, actor=name)
        assert [(event.id, event.mine) for event in events] == [(2, True), (1, True)]
    assert [event.actor for event in events] == [f"{ada.handle}/ada-2", ada.actor]


def test_a_removed_participant_works_as_a_filter(conn: Connection, ada: Agent, bob: Agent) -> None:
    sequences.claim(conn, bob.ctx, "s")
    participations.remove(conn, ada.ctx.project_id, "bob", actor="cli")
    assert [event.actor for event in _list_all(conn, ada, actor="bob")] == [bob.actor]


def test_the_result_has_the_unread_count(conn: Connection, ada: Agent, bob: Agent) -> None:
    posts.create(conn, ada.ctx, "hello", to_actor="bob")
    assert ledger.query_events(conn, bob.ctx).unread == 1
    assert ledger.query_events(conn, bob.ctx, type="escalate").unread == 1
    assert ledger.query_events(conn, ada.ctx).unread == 0
