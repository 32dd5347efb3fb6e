"""`llm-bus report`, and the format of reports."""

import json
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from bus.analytics.reports import EventTypeShare, ProjectReport
from bus.coordination import posts, sequences
from bus.db import Database
from cli.exit_codes import ExitCode
from cli.report import format_report, format_summary_table
from tests import factories
from tests.cli import bus_process


@pytest.fixture
def project(database_url: str) -> str:
    """A project with five events: two posts, one acked and anchored, and two claims."""
    with closing(Database(database_url, pool_size=1)) as database, database.transaction() as conn:
        storefront = factories.make_project(conn, "storefront")
        ada, bob = (factories.make_agent(conn, storefront, name) for name in ("ada", "bob"))
        post = posts.create(conn, ada.ctx, "please look", to_actor="bob", ref="PR-1").post_id
        posts.ack(conn, bob.ctx, [post])
        posts.create(conn, ada.ctx, "hello", to_actor="bob")
        for _ in range(2):
            sequences.claim(conn, ada.ctx, "adr")
    return f"{storefront.owner}/{storefront.name}"


def test_the_report_of_a_project_is_a_table(database_url: str, project: str) -> None:
    result = bus_process.run_command("report", project, DATABASE_URL=database_url)
    assert (result.returncode, result.stderr) == (ExitCode.OK, "")
    table = [" ".join(line.split()) for line in result.stdout.splitlines()]
    assert table[0] == f"LLM Bus report: {project}"
    for line in ("agents 2", "events 5", "post 2 40.0%", "handoffs and acks together 60.0%", "acknowledged 1 50.0%"):
        assert line in table
    end = table.index("tasks shipped 0")
    assert table[end - 2 : end] == ["numbers claimed 2", "adr 2"]
    assert table[end + 2] == "time by reachability posts seen median p90 acked median p90"
    assert table[end + 3].startswith("At its next turn 2 1 ")
    assert table[end + 6].startswith("Unknown client 2 1 ")


def test_a_short_project_name_is_accepted(database_url: str, project: str) -> None:
    result = bus_process.run_command("report", "storefront", "--json", DATABASE_URL=database_url)
    report = json.loads(result.stdout)
    assert report["projects"] == [project]
    assert (report["events"], report["acked_share"], report["claimed"]) == (5, 0.5, {"adr": 2})
    assert datetime.fromisoformat(report["first_event_at"]) <= datetime.fromisoformat(report["last_event_at"])


def test_an_unknown_project_is_an_error(database_url: str) -> None:
    result = bus_process.run_command("report", "nowhere", DATABASE_URL=database_url)
    assert (result.returncode, result.stdout) == (ExitCode.NOT_FOUND, "")
    assert "no project nowhere" in result.stderr


_EMPTY = ProjectReport(
    projects=("owner/demo",),
    agents=0,
    events=0,
    mix=(),
    handoff_and_ack_share=None,
    handoffs=0,
    acked=0,
    acked_share=None,
    surface_median_seconds=None,
    surface_p90_seconds=None,
    ack_median_seconds=None,
    ack_p90_seconds=None,
    anchored=0,
    anchored_share=None,
    leases=0,
    collisions=0,
    claims=0,
    claimed={},
    tasks_shipped=0,
    first_event_at=None,
    last_event_at=None,
)
_HUGE = replace(
    _EMPTY,
    projects=(f"{'o' * 64}/{'p' * 64}",),
    events=10**10,
    mix=(EventTypeShare("presence_lapse", 10**10, 1.0),),
    handoffs=10**9,
    acked_share=1.0,
    anchored_share=1.0,
    ack_median_seconds=3.0e6,
    claims=13 * 10**9,
    claimed={f"{'s' * 60}-{number}": 10**9 for number in range(13)},
    first_event_at=datetime(2026, 1, 1, tzinfo=UTC),
    last_event_at=datetime(2031, 1, 1, tzinfo=UTC),
)


@pytest.mark.parametrize("report", [_EMPTY, _HUGE])
def test_a_report_is_at_most_eighty_columns_wide(report: ProjectReport) -> None:
    text = f"{format_report(report, f'LLM Bus report: {report.projects[0]}')}\n{format_summary_table([report, _EMPTY])}"
    assert max(len(line) for line in text.splitlines()) <= 80


def test_an_empty_report_has_dashes_for_shares_and_medians() -> None:
    text = format_report(_EMPTY, "LLM Bus report: owner/demo")
    assert "No events yet." in text
    assert [line.split()[-1] for line in text.splitlines() if "median" in line or "together" in line] == ["–"] * 3


def test_claims_of_sequences_after_the_first_ten_are_added_up() -> None:
    assert "in other sequences" in format_report(_HUGE, "x")
    assert f" {3 * 10**9}\n" in format_report(_HUGE, "x")
