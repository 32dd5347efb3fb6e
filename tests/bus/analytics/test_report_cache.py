"""The report cache: one build for concurrent callers, a new build after new events, deleted with its project."""

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


def test_a_report_is_cached_unchanged_and_rebuilt_when_it_is_too_old(
    conn: Connection, project: Project, ada: Agent, bob: Agent
) -> None:
    post = posts.create(conn, ada.ctx, "x", to_actor="bob", ref="PR 1").post_id
    posts.ack(conn, bob.ctx, [post])
    sequences.claim(conn, ada.ctx, "adr")
    first = report_cache.get_report(conn, project.id)
    assert first.report == reports.build_report(conn, project.id)
    assert (first.last_seq, first.is_refreshing) == (3, False)
    sequences.claim(conn, ada.ctx, "adr")
    # The cached report equals the built one, to the last digit.
    assert report_cache.get_report(conn, project.id) == first
    _make_older(conn, project, timedelta(minutes=2))
    second = report_cache.get_report(conn, project.id)
    assert second.report is not None
    assert (second.last_seq, second.report.events, second.report.claims) == (4, 4, 2)
    # Without new events a report stays fresh for longer, and so does one that took long to build.
    _make_older(conn, project, timedelta(minutes=2))
    assert report_cache.get_report(conn, project.id).generated_at != second.generated_at
    sequences.claim(conn, ada.ctx, "adr")
    conn.execute("UPDATE report SET took_seconds = 10")
    assert report_cache.get_report(conn, project.id).last_seq == 4
    _make_older(conn, project, timedelta(minutes=6))
    assert report_cache.get_report(conn, project.id).last_seq == 5


def test_the_lock_of_a_caller_that_died_expires(conn: Connection, project: Project, ada: Agent) -> None:
    sequences.claim(conn, ada.ctx, "adr")
    conn.execute(
        "INSERT INTO report (project_id, busy_until) VALUES (%s, clock_timestamp() + interval '1 minute')",
        (project.id,),
    )
    assert report_cache.get_report(conn, project.id) == report_cache.CachedReport(None, 0, None, True)
    conn.execute("UPDATE report SET busy_until = clock_timestamp()")
    rebuilt = report_cache.get_report(conn, project.id)
    assert rebuilt.report is not None
    assert not rebuilt.is_refreshing


def test_a_missing_or_purged_project_has_no_report(conn: Connection, project: Project) -> None:
    for project_id in (2**40, project.id):
        if project_id == project.id:
            project_purge.begin_purge(conn, project.id, actor="test")
        with pytest.raises(BusError) as caught:
            report_cache.get_report(conn, project_id)
        assert caught.value.code == "not_found"
    assert conn.fetch_one("SELECT count(*) FROM report") == (0,)


def test_one_of_several_concurrent_callers_builds_the_report(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    with db.transaction() as conn:
        project = make_project(conn)
        sequences.claim(conn, make_agent(conn, project).ctx, "adr")
    built: list[int] = []
    others_are_done = threading.Event()
    build_report = reports.build_report

    def build_slowly(conn: Connection, project_id: int) -> ProjectReport:
        built.append(project_id)
        # The build lasts until all other callers have their answer.
        assert others_are_done.wait(BARRIER_TIMEOUT_SECONDS)
        return build_report(conn, project_id)

    monkeypatch.setattr(reports, "build_report", build_slowly)
    answers: list[report_cache.CachedReport] = []

    def get() -> report_cache.CachedReport:
        with db.connection() as conn:
            cached = report_cache.get_report(conn, project.id)
        answers.append(cached)
        if len(answers) == 7:
            others_are_done.set()
        return cached

    outcomes = run_jobs_concurrently(*[get] * 8)
    assert built == [project.id]
    assert sorted((cached.report is None, cached.is_refreshing) for cached in outcomes) == [
        (False, False),
        *[(True, True)] * 7,
    ]


def _make_older(conn: Connection, project: Project, by: timedelta) -> None:
    """Make the cached report older, instead of sleeping for minutes."""
    conn.execute("UPDATE report SET made_at = made_at - %s::interval WHERE project_id = %s", (by, project.id))
