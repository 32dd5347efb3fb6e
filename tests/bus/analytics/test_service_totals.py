"""Service totals: correct, refreshed by one caller, incremental."""

from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from typing import Any

import pytest

from bus.analytics import service_totals
from bus.coordination import posts, sequences
from bus.db import Connection, Database
from bus.operations import project_purge
from bus.tenancy import projects
from tests.concurrency import run_numbered_concurrently
from tests.factories import Agent, make_agent, make_project

NOW = timedelta(0)


@pytest.fixture
def db(database_url: str) -> Iterator[Database]:
    with closing(Database(database_url, pool_size=12)) as database:
        yield database


def _fill(db: Database) -> projects.Project:
    with db.transaction() as conn:
        project = make_project(conn)
        alice, bob = make_agent(conn, project, "alice"), make_agent(conn, project, "bob")
    with db.transaction() as conn:
        post = posts.create(conn, alice.ctx, "hello", to_actor="bob").post_id
        posts.ack(conn, bob.ctx, [post])
        for _ in range(3):
            sequences.claim(conn, alice.ctx, "adr")
    return project


def _read(db: Database, max_age: timedelta = NOW) -> dict[str, object]:
    with db.transaction() as conn:
        return service_totals.get_stats(conn, max_age=max_age)


def test_the_totals_of_an_empty_service_are_zero(db: Database) -> None:
    counts = _read(db)
    assert counts.pop("at")
    assert (counts.pop("acked_share"), counts.pop("anchored_share")) == (None, None)
    assert set(counts.values()) == {0}


def test_totals_are_updated_incrementally_and_keep_purged_events(db: Database) -> None:
    _fill(db)
    first = _read(db)
    expected = {"owners": 1, "projects": 1, "participants": 2, "events": 5, "posts": 1, "acks": 1, "claims": 3}
    assert {name: first[name] for name in expected} == expected
    project = _fill(db)
    second = _read(db)
    assert (second["events"], second["claims"], second["owners"]) == (10, 6, 2)
    # Events of a purged project still count.
    with db.transaction() as conn:
        project_purge.begin_purge(conn, project.id, actor="test")
    with db.transaction() as conn:
        assert project_purge.purge_step(conn, project.id) in (True, False)
    third = _read(db)
    assert (third["events"], third["projects"]) == (10, 1)


def test_fresh_totals_are_not_refreshed(db: Database) -> None:
    _fill(db)
    first = _read(db)
    _fill(db)
    assert _read(db, timedelta(minutes=1)) == first
    assert _read(db)["events"] == 10


def test_one_of_several_concurrent_callers_counts(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    _fill(db)
    calls: list[str] = []
    count_new = service_totals._count_new

    def count_and_record(conn: Connection, projects_sql: str, count_sql: str, max_events: int) -> None:
        calls.append(projects_sql)
        count_new(conn, projects_sql, count_sql, max_events)

    monkeypatch.setattr(service_totals, "_count_new", count_and_record)
    answers = run_numbered_concurrently(
        db, 10, lambda conn, _: service_totals.get_stats(conn, max_age=timedelta(minutes=1))
    )
    assert {answer["events"] for answer in answers} == {5}
    assert len(calls) == len(set(calls)) == 2


def test_a_refresh_counts_a_bounded_number_of_events(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    _fill(db)
    _fill(db)
    monkeypatch.setattr(service_totals, "_MAX_EVENTS_PER_CALL", 3)
    assert [_read(db)["events"] for _ in range(5)] == [3, 6, 9, 10, 10]
    assert _read(db)["claims"] == 6


def _post(db: Database, sender: Agent, **arguments: Any) -> int:
    with db.transaction() as conn:
        return posts.create(conn, sender.ctx, "hello", **arguments).post_id


def _ack(db: Database, *agents: Agent, post: int) -> None:
    with db.transaction() as conn:
        for agent in agents:
            posts.ack(conn, agent.ctx, [post])


@pytest.mark.parametrize("events_per_call", [1, 2, 50_000])
def test_shares_count_each_post_once(db: Database, monkeypatch: pytest.MonkeyPatch, events_per_call: int) -> None:
    monkeypatch.setattr(service_totals, "_MAX_HANDOFF_EVENTS_PER_CALL", events_per_call)
    with db.transaction() as conn:
        project = make_project(conn)
        alice, bob, carol = (make_agent(conn, project, name) for name in ("alice", "bob", "carol"))
    # Acknowledged by two, who count once; by its sender, which does not count; not at all; by its only addressee.
    both = _post(db, alice, to_lane="main", ref="PR 1")
    _ack(db, bob, carol, post=both)
    _ack(db, alice, post=_post(db, alice, to_actor="bob", ref="PR 2"))
    _post(db, alice, to_actor="bob")
    _ack(db, alice, post=_post(db, alice, to_actor="alice", ref="PR 3"))
    for _ in range(10):
        totals = _read(db)
    assert (totals["acked_share"], totals["anchored_share"]) == (0.5, 0.75)


def test_acks_of_the_same_time_count_a_post_once(db: Database) -> None:
    with db.transaction() as conn:
        project = make_project(conn)
        alice, bob, carol = (make_agent(conn, project, name) for name in ("alice", "bob", "carol"))
        # A clock that was set back: the following events all get the time of the last one.
        conn.execute(
            "UPDATE project_clock SET last_at = clock_timestamp() + interval '1 hour' WHERE project_id = %s",
            (project.id,),
        )
    post, other = _post(db, alice, to_lane="main"), _post(db, alice, to_lane="main")
    # An ack of the sender counts nothing, also with the time of the first ack by another participant.
    for agent in (alice, bob, carol):
        _ack(db, agent, post=post)
        _read(db)
    assert _read(db)["acked_share"] == 0.5
    _ack(db, bob, carol, post=other)
    assert _read(db)["acked_share"] == 1


def test_totals_of_the_previous_version_have_no_shares(db: Database) -> None:
    _fill(db)
    _read(db)
    with db.transaction() as conn:
        conn.execute("UPDATE service_stats SET body = body - 'acked_share' - 'anchored_share'")
    totals = _read(db, timedelta(minutes=1))
    assert (totals["posts"], totals["acked_share"], totals["anchored_share"]) == (1, None, None)
