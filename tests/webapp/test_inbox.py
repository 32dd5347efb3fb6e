"""The inbox: its lists, its rows, acting in place, and the counts that every page shows."""

import re

from bus.coordination import posts
from bus.db import Connection, Database
from bus.tenancy.projects import Project
from tests.factories import Agent, make_agent, make_owner, make_project
from tests.webapp.sample_data import SampleData, project_path
from tests.webapp.web_client import Browser, WebApp


def _titles(page: str) -> list[str]:
    return re.findall(r'class="item-link"[^>]*>([^<]+)<', page)


def _make_overdue(conn: Connection, project: Project, sender: Agent, subject: str) -> int:
    post_id = posts.create(conn, sender.ctx, "please", to_lane="core", subject=subject, ack_within_seconds=60).post_id
    conn.execute(
        "UPDATE post SET ack_due_at = clock_timestamp() - interval '2 hours' WHERE project_id = %s AND id = %s",
        (project.id, post_id),
    )
    return post_id


def test_the_first_page_after_sign_in_lists_what_waits(ada: Browser, sample: SampleData, db: Database) -> None:
    page = ada.get("/admin/").text
    # The overdue one first, then from the oldest on. An acknowledged one is not listed.
    assert _titles(page) == [
        "Who owns the invoices now?",
        "Looks good to me. One index can go.",
        "Leave the index in until Monday, please.",
        "Freeze",
    ]
    assert "<title>(4) Inbox" in page
    assert 'id="favicon" href="/static/bus-overdue.svg' in page
    with db.transaction() as conn:
        agent = make_agent(conn, sample.empty_project, "writer")
        _make_overdue(conn, sample.empty_project, agent, "Later, and overdue elsewhere")
    assert _titles(ada.get("/admin/?state=overdue").text) == [
        "Who owns the invoices now?",
        "Later, and overdue elsewhere",
    ]
    only = ada.get(f"/admin/?project={sample.empty_project.id}").text
    assert _titles(only) == ["Later, and overdue elsewhere"]
    assert "Remove filter Project: website" in only
    assert "Review the migration" in ada.get("/admin/?state=blocked").text
    assert "src/orders/total.py" in ada.get("/admin/?state=conflicts").text
    assert "<title>(5) " in ada.get("/account/").text


def test_a_row_is_acknowledged_and_answered_in_place(ada: Browser, sample: SampleData) -> None:
    post_id, project_id = sample.route_values["post_id"], sample.full_project.id
    page = ada.get("/admin/?state=for-you").text
    assert _titles(page) == ["Migration 42 is ready"]
    assert f'formaction="/admin/projects/{project_id}/handoffs/{post_id}/ack"' in page
    reply = ada.get(f"/admin/?state=for-you&reply={project_id}-{post_id}")
    assert "autofocus" in reply.text
    answer = ada.submit(project_path(sample, f"handoffs/{post_id}/reply"), body="On it.")
    assert (answer.status_code, answer.location) == (303, "/admin/?state=for-you")
    ada.get("/admin/?state=for-you")
    data = {"csrf_token": ada.get_csrf_token(), "next": "/admin/?state=for-you"}
    acked = ada.post(project_path(sample, f"handoffs/{post_id}/ack"), data=data)
    assert (acked.status_code, acked.location) == (303, "/admin/?state=for-you")
    empty = ada.get("/admin/?state=for-you").text
    assert "All clear" in empty
    # Only addresses of this site are returned to.
    data["next"] = "https://evil.example/"
    elsewhere = ada.post(project_path(sample, f"handoffs/{post_id}/ack"), data=data)
    assert elsewhere.location == project_path(sample, f"handoffs/{post_id}")


def test_the_inbox_shows_nothing_of_others(site: WebApp, ada: Browser, sample: SampleData, db: Database) -> None:
    with db.transaction() as conn:
        eve = make_owner(conn, "eve")
        make_project(conn, "eves", eve)
    with db.connection() as conn:
        browser = site.new_browser().sign_in(conn, eve)
    for state in ("for-you", "unanswered", "overdue", "blocked", "conflicts"):
        page = browser.get(f"/admin/?state={state}&project={sample.full_project.id}").text
        assert _titles(page) == []
        assert "apollo" not in page
    assert "<title>Inbox" in browser.get("/admin/").text


def test_the_script_gets_the_counts_with_each_part(ada: Browser, sample: SampleData) -> None:
    part = ada.get("/admin/", headers={"X-Part": "1"})
    assert part.headers["X-Inbox"] == "4 1"
    assert "<html" not in part.text
    elsewhere = ada.get(project_path(sample, "ledger/"), headers={"X-Part": "1"})
    assert elsewhere.headers["X-Inbox"] == "4 1"
    unchanged = ada.get("/admin/", headers={"X-Part": "1", "If-None-Match": part.headers["ETag"]})
    assert (unchanged.status_code, unchanged.headers["X-Inbox"]) == (304, "4 1")


def test_empty_filters_are_left_out_of_addresses(ada: Browser, sample: SampleData) -> None:
    answer = ada.get(project_path(sample, "handoffs/?to_lane=&ref=PR+118&tag="))
    assert (answer.status_code, answer.location) == (302, project_path(sample, "handoffs/?ref=PR+118"))
    assert ada.get(project_path(sample, "ledger/?type=")).location == project_path(sample, "ledger/")


def test_a_post_without_a_subject_has_the_same_title_everywhere(ada: Browser, sample: SampleData) -> None:
    title = "Who owns the invoices now?"
    (post_id,) = set(re.findall(r'handoffs/(\d+)">' + re.escape(title), ada.get("/admin/").text))
    for path in ("", "board/", "handoffs/", "ledger/", f"handoffs/{post_id}", f"ledger/{post_id}"):
        assert title in ada.get(project_path(sample, path)).text, path
