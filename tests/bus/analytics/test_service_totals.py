"""Counts of the whole service: right, counted once, and in proportion to what is new."""

from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta

import pytest

from bus.analytics import service_totals
from bus.coordination import posts, sequences
from bus.db import Connection, Database
from bus.operations import project_purge
from bus.tenancy import projects
from tests.concurrency import run_numbered_concurrently
from tests.factories import make_agent, make_project

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


def _read(db: Database, fresh: timedelta = NOW) -> dict[str, object]:
    with db.transaction() as conn:
        return service_totals.get_stats(conn, max_age=fresh)


def test_an_empty_service_has_seen_nothing(db: Database) -> None:
    counts = _read(db)
    assert counts.pop("at")
    assert set(counts.values()) == {0}


def test_counts_are_right_and_go_on_from_where_they_were(db: Database) -> None:
    _fill(db)
    first = _read(db)
    expected = {"owners": 1, "projects": 1, "participants": 2, "events": 5, "posts": 1, "acks": 1, "claims": 3}
    assert {name: first[name] for name in expected} == expected
    project = _fill(db)
    second = _read(db)
    assert (second["events"], second["claims"], second["owners"]) == (10, 6, 2)
    # What is deleted has happened all the same.
    with db.transaction() as conn:
        project_purge.begin_purge(conn, project.id, actor="test")
    with db.transaction() as conn:
        assert project_purge.purge_step(conn, project.id) in (True, False)
    third = _read(db)
    assert (third["events"], third["projects"]) == (10, 1)


def test_fresh_counts_are_not_counted_again(db: Database) -> None:
    _fill(db)
    first = _read(db)
    _fill(db)
    assert _read(db, timedelta(minutes=1)) == first
    assert _read(db)["events"] == 10


def test_of_many_who_ask_at_once_one_counts(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    _fill(db)
    counted: list[int] = []
    count = service_totals._count_new_events

    def noted(conn: Connection) -> None:
        counted.append(1)
        count(conn)

    monkeypatch.setattr(service_totals, "_count", noted)
    answers = run_numbered_concurrently(
        db, 10, lambda conn, _: service_totals.get_stats(conn, max_age=timedelta(minutes=1))
    )
    assert {answer["events"] for answer in answers} == {5}
    assert counted == [1]


def test_more_than_fits_is_counted_in_several_goes(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    _fill(db)
    _fill(db)
    monkeypatch.setattr(service_totals, "_EVENTS_AT_ONCE", 3)
    assert [_read(db)["events"] for _ in range(5)] == [3, 6, 9, 10, 10]
    assert _read(db)["claims"] == 6
