"""The audit log in the interface: filtered by owners and operators, exported by operators."""

import csv
import io
import json

import pytest

from bus.db import Database
from bus.tenancy import audit
from tests.factories import make_owner, make_project
from tests.webapp.sample_data import SampleData, project_path
from tests.webapp.web_client import Browser


def test_the_audit_log_of_all_owners_is_filtered_and_exported_in_batches(
    operator_browser: Browser, db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    with db.transaction() as conn:
        ada, eve = make_owner(conn, "ada"), make_owner(conn, "eve")
        apollo = make_project(conn, "apollo", ada)
        make_project(conn, "apollo", eve)
        audit.record(conn, ada.id, "cli", "x.y", "=HYPERLINK(1)", project_id=apollo.id)
        for number in range(25):
            audit.record(conn, eve.id, "eve", "token.rotate", f"eve/{number}")
    monkeypatch.setattr("webapp.pages.operator.audit.BATCH_SIZE", 10)

    def lines(query: str) -> list[dict[str, object]]:
        text = operator_browser.get(f"/operator/audit/export.jsonl?{query}").text
        return [json.loads(line) for line in text.splitlines()]

    assert [one["subject"] for one in lines("actor=eve")] == [f"eve/{number}" for number in reversed(range(25))]
    assert {one["owner"] for one in lines("owner=ada")} == {"ada"}
    assert len(lines("action=token&owner=eve@example.org")) == 25
    assert lines("action=token&owner=ada") == []
    assert len(lines("project=ada/apollo")) == 2
    assert len(lines(f"project={apollo.id}&action=x.y")) == 1
    assert lines("until=2020-01-01") == []
    rows = list(csv.DictReader(io.StringIO(operator_browser.get("/operator/audit/export.csv?action=x").text)))
    assert [row["subject"] for row in rows] == ["'=HYPERLINK(1)"]
    for wrong in ("since=yesterday", "owner=unknown", "project=nothing", "project=apollo"):
        assert operator_browser.get(f"/operator/audit/export.csv?{wrong}").status_code in (400, 409), wrong
        page = operator_browser.get(f"/operator/audit/?{wrong}")
        assert (page.status_code, 'role="alert"' in page.text) == (200, True), wrong
    assert operator_browser.get("/operator/audit/export.exe").status_code == 404
    assert "eve/24" in operator_browser.get("/operator/audit/?actor=eve").text


def test_an_owner_filters_only_their_own_audit_log(ada: Browser, sample: SampleData, db: Database) -> None:
    with db.transaction() as conn:
        other = make_project(conn, "apollo")
        audit.record(conn, other.owner_id, "ada", "token.rotate", "theirs", project_id=other.id)
    page = ada.get("/admin/audit/?action=project.archive").text
    assert page.count("project.archive") >= 1
    assert "invite.create" not in page
    for query in ("", "?actor=ada", f"?project={other.id}", "?project=apollo", "?action=token"):
        assert "theirs" not in ada.get(f"/admin/audit/{query}").text
    assert "invite.create" in ada.get("/admin/audit/?project=apollo&action=invite").text
    assert "There is no project nothing." in ada.get("/admin/audit/?project=nothing").text
    page_of_project = project_path(sample, "audit/")
    assert "project.archive" not in ada.get(page_of_project).text
    assert "invite.revoke" in ada.get(f"{page_of_project}?action=invite.revoke").text
    assert "enter a date such as 2026-01-31" in ada.get(f"{page_of_project}?since=soon").text


def test_filters_of_the_audit_log_are_chips_with_clean_addresses(ada: Browser, sample: SampleData) -> None:
    page = ada.get("/admin/audit/?action=token&actor=cli").text
    assert 'href="/admin/audit/?action=token&amp;actor=cli" aria-current="page">Tokens' in page
    assert 'href="/admin/audit/?action=token" aria-label="Remove filter By: cli"' in page
    # A subject with a chip of its own is not repeated as an active filter.
    assert "Remove filter Action" not in page
    assert "Remove filter Action: webhook.add" in ada.get("/admin/audit/?action=webhook.add").text
    for path in ("/admin/audit/", project_path(sample, "audit/")):
        assert ada.get(f"{path}?action=token&actor=&since=").location == f"{path}?action=token"
    # Fields suggest what the list shows, and take dates.
    page = ada.get("/admin/audit/").text
    assert '<option value="webhook.add">' in page
    assert '<input id="since" maxlength="64" name="since" type="date"' in page


def test_the_last_day_of_an_audit_filter_counts_whole(ada: Browser, sample: SampleData, db: Database) -> None:
    with db.transaction() as conn:
        (today,) = conn.fetch_one("SELECT (clock_timestamp() AT TIME ZONE 'UTC')::date::text")
        audit.record(conn, sample.owner.id, "cli", "token.rotate", "just now")
    assert (
        "just now"
        in ada.get(f"/admin/audit/?until={today}&since={today}&action=token.rotate").text.partition("<tbody")[2]
    )


def test_operators_get_clean_addresses_too(operator_browser: Browser, db: Database) -> None:
    assert operator_browser.get("/operator/audit/?owner=&action=token").location == "/operator/audit/?action=token"
