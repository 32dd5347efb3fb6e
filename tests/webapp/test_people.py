"""Two people in one project, each in a browser of their own, with agents of their own."""

import re
from typing import Any

import pytest

from bus.coordination import ledger, posts, task_queries, tasks
from bus.ctx import Ctx
from bus.db import Database
from bus.errors import NotAuthenticated
from bus.notifications import outbox
from bus.rules.token_format import access_token_fingerprint, fingerprint
from bus.tenancy import invite_queries, memberships, owners, tokens
from bus.tenancy.owners import Owner
from bus.tenancy.projects import Project
from tests.factories import join_as, make_agent, make_member, make_owner, make_project
from tests.webapp import oauth_requests
from tests.webapp.web_client import Browser, WebApp

_LABELS = ("claude-1", "codex-1", "gemini-1")


@pytest.fixture
def people(db: Database) -> tuple[Owner, Owner]:
    with db.transaction() as conn:
        return make_owner(conn, "ada"), make_owner(conn, "bob")


@pytest.fixture
def project(db: Database, people: tuple[Owner, Owner]) -> Project:
    with db.transaction() as conn:
        return make_project(conn, "apollo", people[0])


@pytest.fixture
def browsers(site: WebApp, db: Database, people: tuple[Owner, Owner]) -> tuple[Browser, Browser]:
    with db.connection() as conn:
        ada, bob = (site.new_browser().sign_in(conn, person) for person in people)
    return ada, bob


def _url(project: Project, path: str) -> str:
    return f"/admin/projects/{project.id}/{path}"


def _invite(ada: Browser, project: Project, **fields: str) -> str:
    """Create an invite on the page, and return its code from the card."""
    ada.get(_url(project, "people/"))
    card = ada.follow_redirects(ada.submit(_url(project, "people/invites"), **fields))
    code = re.search(r"/join/(inv_[0-9a-z]+)", card.text)
    assert code is not None
    return code[1]


def _accept(bob: Browser, code: str) -> None:
    assert "Join ada/apollo" in bob.get(f"/join/{code}/accept/").text
    board = bob.follow_redirects(bob.submit(f"/join/{code}/accept/person"))
    assert (board.status_code, "You joined the project" in board.text) == (200, True)


def _add_agent(browser: Browser, db: Database, project: Project, label: str) -> Ctx:
    browser.get(_url(project, "participants/new"))
    card = browser.follow_redirects(browser.submit("", name=label))
    token = re.search(r"lbus_[0-9A-Za-z]{49}", card.text.replace("<wbr>", ""))
    assert token is not None, card.text
    with db.connection() as conn:
        ctx = tokens.find_caller(conn, fingerprint(token[0]))
    assert ctx is not None
    return ctx


def test_two_people_with_three_agents_each_work_in_one_project(
    db: Database, project: Project, people: tuple[Owner, Owner], browsers: tuple[Browser, Browser]
) -> None:
    ada, bob = browsers
    assert bob.get(_url(project, "board/")).status_code == 404
    _accept(bob, _invite(ada, project, role="member"))
    assert "ada/apollo" in bob.get("/admin/projects/").text
    agents = {
        handle: {label: _add_agent(browser, db, project, label) for label in _LABELS}
        for handle, browser in (("ada", ada), ("bob", bob))
    }
    with db.transaction() as conn:
        for label in _LABELS:
            # Each to the agent of the same label of the other owner.
            sent = posts.create(conn, agents["bob"][label].with_session(None), f"to {label}", to_actor=f"ada/{label}")
            (received,) = posts.list_posts(conn, agents["ada"][label], to_me=True).posts
            assert (received.post_id, received.sender) == (sent.post_id, f"bob/{label}")
            assert posts.list_posts(conn, agents["bob"][label], to_me=True).posts == []
        asked = posts.create(conn, agents["ada"]["codex-1"], "Which index can go?", to_actor="bob")
        task = tasks.create(conn, agents["bob"]["codex-1"], "Drop the index", owner="codex-1").task_id
    board = ada.get(_url(project, "board/")).text
    assert "bob/codex-1" in board
    # A bare label would mean another agent to each of them, so both are shown with their handles.
    for browser in browsers:
        for page in ("board/", "participants/", ""):
            shown = browser.get(_url(project, page)).text
            assert re.search(r">\s*ada/codex-1<", shown), page
    # The handoff waits in bob's inbox, though the project is not his; he answers and acknowledges it there.
    assert "Which index can go?" in bob.get("/admin/?state=for-you").text
    thread = _url(project, f"handoffs/{asked.post_id}")
    bob.get(thread)
    assert bob.submit(f"{thread}/ack").status_code == 303
    assert "acknowledged by you" in bob.get(thread).text
    bob.submit(f"{thread}/reply", body="The second one.")
    assert "The second one." in ada.get(thread).text
    # A page of ada's agent shows bob no way to hold its token; ada may revoke bob's, and not rotate it.
    theirs = bob.get(_url(project, f"participants/{agents['ada']['codex-1'].participation_id}")).text
    assert "Rotate" not in theirs
    assert "Revoke" not in theirs
    his = ada.get(_url(project, f"participants/{agents['bob']['codex-1'].participation_id}")).text
    assert "Rotate" not in his
    assert "Revoke all tokens" in his
    # Removal is felt by the next call and the next page.
    ada.get(_url(project, "people/"))
    assert ada.submit(_url(project, f"people/{people[1].id}/remove")).status_code == 303
    assert bob.get(_url(project, "board/")).status_code == 404
    assert "apollo" not in bob.get("/admin/projects/").text
    assert "Which index" not in bob.get("/search?q=index").text
    with db.connection() as conn:
        for label in _LABELS:
            with pytest.raises(NotAuthenticated):
                ledger.query_events(conn, agents["bob"][label])
        assert task_queries.get_task(conn, agents["ada"]["codex-1"], task).status == "open"
    assert "The second one." in ada.get(thread).text


def test_a_role_is_changed_and_left_on_the_page(
    db: Database, project: Project, people: tuple[Owner, Owner], browsers: tuple[Browser, Browser]
) -> None:
    ada, bob = browsers
    _accept(bob, _invite(ada, project, role="viewer"))
    assert 'action="' + _url(project, "people/leave") in bob.get(_url(project, "people/")).text
    assert "Invite a person" not in bob.get(_url(project, "people/")).text
    refused = bob.get(_url(project, "handoffs/new"))
    assert (refused.status_code, "Your role in this project is viewer" in refused.text) == (403, True)
    ada.get(_url(project, "people/"))
    assert ada.submit(_url(project, f"people/{people[1].id}/role"), role="lead").status_code == 303
    assert "Invite a person" in bob.get(_url(project, "people/")).text
    assert bob.submit(_url(project, "people/leave")).status_code == 303
    assert bob.get(_url(project, "people/")).status_code == 404
    with db.connection() as conn:
        assert memberships.find_role(conn, people[1].id, project.id) is None


def test_the_page_of_an_invite_says_who_invites_and_asks_to_sign_in(
    site: WebApp, project: Project, browsers: tuple[Browser, Browser], stranger: Browser
) -> None:
    ada, _ = browsers
    code = _invite(ada, project, role="viewer", email="carol@example.org")
    page = stranger.get(f"/join/{code}").text
    assert "invites you" in page
    assert "viewer" in page
    assert "curl" not in page
    answer = stranger.get(f"/join/{code}/accept/")
    assert answer.location.startswith("/sign-in")
    assert stranger.post(f"/join/{code}/accept/person", data={}).status_code == 400


def test_an_invite_for_another_address_is_refused_with_a_reason(
    project: Project, browsers: tuple[Browser, Browser]
) -> None:
    ada, bob = browsers
    code = _invite(ada, project, email="carol@example.org")
    bob.get(f"/join/{code}/accept/")
    answer = bob.submit(f"/join/{code}/accept/person")
    assert (answer.status_code, "another e-mail address" in answer.text) == (403, True)


def test_an_invite_is_revoked_on_the_page(db: Database, project: Project, browsers: tuple[Browser, Browser]) -> None:
    ada, bob = browsers
    code = _invite(ada, project)
    with db.connection() as conn:
        (invite,) = invite_queries.list_invites(conn, project.id, for_people=True)
    ada.get(_url(project, "people/"))
    assert ada.submit(_url(project, f"people/invites/{invite.id}/revoke")).status_code == 303
    assert bob.get(f"/join/{code}/accept/").status_code == 404


def test_a_member_writes_nothing_while_the_projects_owner_is_suspended(
    db: Database, project: Project, people: tuple[Owner, Owner], browsers: tuple[Browser, Browser]
) -> None:
    ada, bob = browsers
    _accept(bob, _invite(ada, project))
    with db.transaction() as conn:
        owners.suspend(conn, people[0].id, reason="abuse", actor="op")
    assert bob.get(_url(project, "board/")).status_code == 200
    bob.get(_url(project, "handoffs/new"))
    answer = bob.submit("", body="hello", to_lane="core")
    assert (answer.status_code, "suspended" in answer.text) == (403, True)


def test_what_a_member_left_behind_is_not_offered_to_them(db: Database, site: WebApp, project: Project) -> None:
    """The audit log of a person who left has their own acts, and not the present name of the project."""
    with db.transaction() as conn:
        member = make_member(conn, project, handle="mia")
        memberships.remove(conn, project.id, member.id, acting_owner_id=member.id, actor="mia")
    with db.connection() as conn:
        browser = site.new_browser().sign_in(conn, member)
    page = browser.get("/admin/audit/").text
    assert "membership.remove" in page
    assert "apollo" not in page


def test_a_client_acts_as_the_participant_of_a_member_until_the_member_is_removed(
    db: Database, project: Project, people: tuple[Owner, Owner], browsers: tuple[Browser, Browser]
) -> None:
    _, bob = browsers
    oauth_requests.store_client(db)
    with db.transaction() as conn:
        adas = make_agent(conn, project, "codex-1")
        join_as(conn, project, people[1], "viewer")
    # A viewer brings no agents, so the project is not offered.
    assert "apollo" not in bob.get(oauth_requests.authorization_path()).text
    with db.transaction() as conn:
        terms: dict[str, Any] = {"acting_owner_id": people[0].id, "actor": "ada"}
        memberships.set_role(conn, project.id, people[1].id, "member", **terms)
    page = bob.get(oauth_requests.authorization_path())
    assert "a new participant in ada/apollo" in page.text
    assert "codex-1" not in page.text
    for foreign in (adas.ctx.participation_id, f"new-{project.id + 1}"):
        assert oauth_requests.consent(bob, target=str(foreign)).status_code == 400
    issued = oauth_requests.connect(bob, target=f"new-{project.id}", name="codex-1")
    with db.connection() as conn:
        caller = tokens.find_caller(conn, access_token_fingerprint(issued["access_token"], oauth_requests.RESOURCE))
        assert caller is not None
        (actor,) = conn.fetch_one("SELECT bus_participation_name(%s)", (caller.participation_id,))
        assert actor == "bob/codex-1"
        assert ledger.query_events(conn, caller).events == []
    with db.transaction() as conn:
        memberships.remove(conn, project.id, people[1].id, **terms)
    with db.connection() as conn, pytest.raises(NotAuthenticated):
        ledger.query_events(conn, caller)
    assert oauth_requests.refresh(bob, issued["refresh_token"]).get_json() == {"error": "invalid_grant"}
    assert "Example App" not in bob.get("/account/").text.partition('id="clients"')[2]


def test_the_audit_log_of_a_lead_hides_what_the_owner_alone_sets(db: Database, site: WebApp, project: Project) -> None:
    url = "https://hooks.example/services/s3cret"
    with db.transaction() as conn:
        outbox.add_webhook(conn, project.owner_id, url, project_id=project.id, actor="ada")
        lead = make_member(conn, project, "lead", "lea")
    with db.connection() as conn:
        pages = [
            site.new_browser().sign_in(conn, person).get(_url(project, "audit/")).text
            for person in (lead, owners.get(conn, "ada"))
        ]
    assert ["hooks.example" in page for page in pages] == [True, True]
    assert ["s3cret" in page for page in pages] == [False, True]
