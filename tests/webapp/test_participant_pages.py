"""Participants, their tokens, and invites as an owner manages them in the web."""

import re

from bus.db import Database
from bus.tenancy import audit, invite_queries, participant_queries, participation_queries, tokens
from tests.factories import make_agent
from tests.webapp.sample_data import SampleData, project_path
from tests.webapp.shown_tokens import TOKEN, shown_once, works
from tests.webapp.web_client import Browser, WebApp


def test_a_token_is_rotated_added_and_revoked(ada: Browser, sample: SampleData, db: Database) -> None:
    with db.transaction() as conn:
        agent = make_agent(conn, sample.full_project, "rotated")
    page = project_path(sample, f"participants/{agent.ctx.participation_id}")
    ada.get(page)
    second = shown_once(ada, ada.submit(f"{page}/tokens", label="laptop", lives="7"))
    assert works(db, agent.token)
    assert works(db, second)
    ada.get(page)
    third = shown_once(ada, ada.submit(f"{page}/rotate"))
    assert [works(db, token) for token in (agent.token, second, third)] == [False, False, True]
    shown = ada.get(page).text
    assert "laptop" in shown
    with db.connection() as conn:
        newest = tokens.list_tokens(conn, agent.ctx.participation_id)[0]
    ada.submit(f"{page}/tokens/{newest.id}/revoke")
    assert not works(db, third)
    ada.get(page)
    fourth = shown_once(ada, ada.submit(f"{page}/rotate"))
    ada.get(page)
    ada.submit(f"{page}/revoke")
    assert not works(db, fourth)


def test_a_token_of_the_original_is_listed_as_legacy_until_it_is_rotated(
    ada: Browser, sample: SampleData, db: Database
) -> None:
    with db.transaction() as conn:
        agent = make_agent(conn, sample.full_project, "imported")
        conn.execute("UPDATE token SET legacy = true WHERE id = %s", (agent.ctx.token_id,))
    page = project_path(sample, f"participants/{agent.ctx.participation_id}")
    shown = ada.get(page).text
    assert ">legacy<" in shown
    assert "rotate it when it suits you" in shown
    ada.submit(f"{page}/rotate")
    shown = ada.get(page).text
    # The revoked token stays in the list, and needs nothing any longer.
    assert ">legacy<" in shown
    assert "rotate it when it suits you" not in shown


def test_credentials_are_shown_only_in_the_browser_that_created_them(
    site: WebApp, ada: Browser, sample: SampleData, db: Database
) -> None:
    with db.connection() as conn:
        other = site.new_browser().sign_in(conn, sample.owner)
    ada.get(project_path(sample, "participants/new"))
    address = ada.submit("", name="secret-agent").location
    assert other.get(address).status_code == 404
    card = ada.get(address)
    assert card.status_code == 200
    (token,) = set(TOKEN.findall(card.text))
    with db.connection() as conn:
        stored = conn.fetch_all("SELECT lookup || box FROM sealed")
    assert all(token.encode() not in row[0] for row in stored)


def test_the_token_page_has_setup_for_every_client_and_a_file(ada: Browser, sample: SampleData) -> None:
    ada.get(project_path(sample, "participants/new"))
    card = ada.get(ada.submit("", name="secret-agent").location).text
    for client in ("Claude Code", "Codex", "Cursor", "Gemini CLI", "VS Code", "OpenCode", "Windsurf"):
        assert client in card
    assert 'download="mcp.json" href="data:application/json' in card


def test_a_participation_is_changed_and_removed(ada: Browser, sample: SampleData, db: Database) -> None:
    with db.transaction() as conn:
        agent = make_agent(conn, sample.full_project, "termed")
    page = project_path(sample, f"participants/{agent.ctx.participation_id}")
    ada.get(page)
    ada.submit(f"{page}/terms", lane="docs", is_admin="y")
    with db.connection() as conn:
        seen = participant_queries.get_participation_detail(
            conn, sample.owner.id, sample.full_project.id, agent.ctx.participation_id
        )
    assert (seen.granted_lane, seen.is_admin) == ("docs", True)
    ada.get(page)
    ada.submit(f"{page}/remove")
    assert ada.get(page).status_code == 404
    assert not works(db, agent.token)


def test_the_form_says_that_a_name_is_taken(ada: Browser, sample: SampleData) -> None:
    ada.get(project_path(sample, "participants/new"))
    for name, message in (
        ("api-agent", "in this project already"),
        ("retired", "not handed out again"),
        ("ada", "owner"),
    ):
        answer = ada.submit("", name=name)
        assert answer.status_code == 400
        assert message in answer.text


def test_an_invite_is_created_shown_once_listed_and_revoked(ada: Browser, sample: SampleData, db: Database) -> None:
    ada.get(project_path(sample, "invites/new"))
    assert ada.submit("", participant_name="api-agent").status_code == 400
    ada.get(project_path(sample, "invites/new"))
    made = ada.submit("", participant_name="fresh", lane="docs", ttl_hours="1")
    card = ada.get(made.location)
    (code,) = set(re.findall(r"inv_[0-9a-z]{26}", card.text))
    assert "--fail-with-body" in card.text
    assert ada.get(made.location).status_code == 404
    with db.connection() as conn:
        newest = invite_queries.list_invites(conn, sample.full_project.id)[0]
    assert (newest.participant_name, newest.lane, newest.created_by) == ("fresh", "docs", "ada")
    listed = ada.get(project_path(sample, "invites/")).text
    assert code not in listed
    for text in ("open", ">used<", "revoked", "eve@example.org", "newcomer"):
        assert text in listed
    ada.submit(project_path(sample, f"invites/{newest.id}/revoke"))
    with db.connection() as conn:
        assert invite_queries.list_invites(conn, sample.full_project.id)[0].state == "revoked"


def test_the_form_creates_an_invite_for_an_existing_participant(ada: Browser, sample: SampleData, db: Database) -> None:
    ada.get(project_path(sample, "invites/new"))
    assert ada.submit("", participant_id="nonsense").status_code == 404
    ada.get(project_path(sample, "invites/new"))
    ada.submit("", participant_id=str(sample.route_values["participant_id"]))
    with db.connection() as conn:
        assert (
            invite_queries.list_invites(conn, sample.full_project.id)[0].participant_id
            == sample.route_values["participant_id"]
        )


def test_participants_are_created_renamed_and_removed(ada: Browser, sample: SampleData, db: Database) -> None:
    ada.get("/admin/participants/new")
    page = ada.submit("", name="temp", kind="human").location
    ada.get(page)
    assert ada.submit(f"{page}/rename", name="retired").status_code == 400
    ada.get(page)
    ada.submit(f"{page}/rename", name="permanent")
    assert "permanent" in ada.get(page).text
    ada.submit(f"{page}/remove", confirm="temp")
    assert "removed." not in ada.get(page).text
    ada.submit(f"{page}/remove", confirm="permanent")
    shown = ada.get(page).text
    assert "won&#39;t be reused" in shown
    assert "permanent" in ada.get("/admin/participants/").text


def test_removing_a_participant_removes_it_from_every_project(ada: Browser, sample: SampleData, db: Database) -> None:
    with db.transaction() as conn:
        agent = make_agent(conn, sample.full_project, "double", lane="core")
        other = make_agent(conn, sample.empty_project, "double")
    page = f"/admin/participants/{agent.ctx.participant_id}"
    ada.get(page)
    ada.submit(f"{page}/remove", confirm="double")
    assert [works(db, one.token) for one in (agent, other)] == [False, False]
    with db.connection() as conn:
        assert participation_queries.find(conn, sample.empty_project.id, "double") is None
        actions = [act.action for act in audit.list_for_owner(conn, sample.owner.id)][:3]
    assert sorted(actions) == ["participant.remove", "participation.remove", "participation.remove"]
