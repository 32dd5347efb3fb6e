"""The kept report: made once for many who ask, made anew when there is something new, and gone with its project."""

import threading
from datetime import timedelta

import pytest

from bus.analytics import report_cache, reports
from bus.analytics.reports import ProjectReport
from bus.coordination import posts, sequences
from bus.db import Connection, Database
from bus.errors import BusError
from bus.operations import project_purge
from bus.tenancy.projects import Project
from tests.concurrency import BARRIER_TIMEOUT_SECONDS, run_jobs_concurrently
from tests.factories import Agent, make_agent, make_project


def test_a_report_is_kept_as_it_was_made_and_made_anew_when_it_is_old(
    conn: Connection, project: Project, ada: Agent, bob: Agent
) -> None:
    post = posts.create(conn, ada.ctx, "x", to_actor="bob", ref="PR 1").post_id
    posts.ack(conn, bob.ctx, [post])
    sequences.claim(conn, ada.ctx, "adr")
    first = report_cache.get_report(conn, project.id)
    assert first.report == reports.build_report(conn, project.id)
    assert (first.last_seq, first.is_refreshing) == (3, False)
    sequences.claim(conn, ada.ctx, "adr")
    # Read back it is what it was, to the last digit.
    assert report_cache.get_report(conn, project.id) == first
    _age(conn, project, timedelta(minutes=2))
    second = report_cache.get_report(conn, project.id)
    assert second.report is not None
    assert (second.last_seq, second.report.events, second.report.claims) == (4, 4, 2)
    # Nothing happened since: it stays good for longer. One that took long stays good for longer too.
    _age(conn, project, timedelta(minutes=2))
    assert report_cache.get_report(conn, project.id).generated_at != second.generated_at
    sequences.claim(conn, ada.ctx, "adr")
    conn.execute("UPDATE report SET took_seconds = 10")
    assert report_cache.get_report(conn, project.id).last_seq == 4
    _age(conn, project, timedelta(minutes=6))
    assert report_cache.get_report(conn, project.id).last_seq == 5


def test_who_dies_making_a_report_is_not_waited_for_for_ever(conn: Connection, project: Project, ada: Agent) -> None:
    sequences.claim(conn, ada.ctx, "adr")
    conn.execute(
        "INSERT INTO report (project_id, busy_until) VALUES (%s, clock_timestamp() + interval '1 minute')",
        (project.id,),
    )
    assert report_cache.get_report(conn, project.id) == report_cache.CachedReport(None, 0, None, True)
    conn.execute("UPDATE report SET busy_until = clock_timestamp()")
    found = report_cache.get_report(conn, project.id)
    assert found.report is not None
    assert not found.is_refreshing


def test_there_is_no_report_of_what_is_not_there(conn: Connection, project: Project) -> None:
    for gone in (2**40, project.id):
        if gone == project.id:
            project_purge.begin_purge(conn, project.id, actor="test")
        with pytest.raises(BusError) as caught:
            report_cache.get_report(conn, gone)
        assert caught.value.code == "not_found"
    assert conn.fetch_one("SELECT count(*) FROM report") == (0,)


def test_of_many_who_ask_at_one_moment_one_makes_the_report(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    with db.transaction() as conn:
        project = make_project(conn)
        sequences.claim(conn, make_agent(conn, project).ctx, "adr")
    made: list[int] = []
    others_are_done = threading.Event()
    make = reports.build_report

    def noted(conn: Connection, project_id: int) -> ProjectReport:
        made.append(project_id)
        # It takes until all others have their answer.
        assert others_are_done.wait(BARRIER_TIMEOUT_SECONDS)
        return make(conn, project_id)

    monkeypatch.setattr(reports, "project_report", noted)
    answers: list[report_cache.CachedReport] = []

    def ask() -> report_cache.CachedReport:
        with db.connection() as conn:
            found = report_cache.get_report(conn, project.id)
        answers.append(found)
        if len(answers) == 7:
            others_are_done.set()
        return found

    outcomes = run_jobs_concurrently(*[ask] * 8)
    assert made == [project.id]
    assert sorted((one.report is None, one.being_made) for one in outcomes) == [(False, False), *[(True, True)] * 7]


def _age(conn: Connection, project: Project, by: timedelta) -> None:
    """Make the kept report older: no test can sleep for minutes."""
    conn.execute("UPDATE report SET made_at = made_at - %s::interval WHERE project_id = %s", (by, project.id))
