"""The first ten minutes: the checklist of a new owner, and the page of a new token that sees the agent connect."""

import re

import pytest
from playwright.sync_api import Browser as Chromium
from playwright.sync_api import expect

from bus.coordination import posts, presence
from bus.db import Database
from bus.rules.token_format import fingerprint
from bus.tenancy import projects, tokens
from bus.tenancy.owners import Owner
from tests.factories import Agent, make_agent, make_owner, make_project
from tests.webapp.browser import open_page
from tests.webapp.live_server import running_live_server
from tests.webapp.sample_data import SampleData, project_path
from tests.webapp.scenario_steps import sign_in
from tests.webapp.web_client import Browser, WebApp


@pytest.fixture
def newcomer(db: Database) -> Owner:
    with db.transaction() as conn:
        return make_owner(conn, "newcomer")


def _connect(db: Database, agent: Agent, client: str | None = None) -> None:
    """Record a call of the agent, as the gateway does."""
    with db.transaction() as conn:
        clients = {agent.ctx.participation_id: client} if client else {}
        presence.record_seen(conn, {agent.ctx.participation_id: 0.0}, clients)
        assert agent.ctx.token_id is not None
        tokens.record_use(conn, [agent.ctx.token_id])


def _done(page: str) -> list[bool]:
    return [kind == "done" for kind in re.findall(r'<li(?: class="(done)")?><strong>', page)]


def test_the_dashboard_of_a_new_owner_is_its_checklist(site: WebApp, db: Database, newcomer: Owner) -> None:
    with db.connection() as conn:
        browser = site.new_browser().sign_in(conn, newcomer)
    page = browser.get("/admin/").text
    assert "Start with a project" in page
    assert _done(page) == [False] * 5
    with db.transaction() as conn:
        project = make_project(conn, "apollo", newcomer)
    page = browser.get("/admin/").text
    assert _done(page) == [True, False, False, False, False]
    assert f"/admin/projects/{project.id}/participants/new" in page
    with db.transaction() as conn:
        alice = make_agent(conn, project, "alice")
    page = browser.get("/admin/").text
    assert _done(page) == [True, True, False, False, False]
    assert "Waiting for" in page
    _connect(db, alice)
    part = browser.get("/admin/", headers={"X-Part": "1"}).text
    assert "<html" not in part
    assert "</a> connected" in part
    assert "Start a session on the bus" in part
    assert _done(part) == [True, True, True, False, False]
    # Lists of the inbox can be opened all the same.
    assert "All clear" in browser.get("/admin/?state=overdue").text
    with db.transaction() as conn:
        posts.create(conn, alice.ctx, "hello", to_lane="review", subject="The first one")
    page = browser.get("/admin/").text
    assert "The first one" in page
    assert "checklist" not in page


def test_two_connected_agents_end_the_checklist(site: WebApp, db: Database, newcomer: Owner) -> None:
    with db.transaction() as conn:
        project = make_project(conn, "apollo", newcomer)
        agents = [make_agent(conn, project) for _ in range(2)]
    with db.connection() as conn:
        browser = site.new_browser().sign_in(conn, newcomer)
    for agent in agents:
        assert "checklist" in browser.get("/admin/").text
        _connect(db, agent)
    assert "checklist" not in browser.get("/admin/").text


def test_an_archived_project_is_no_first_step(site: WebApp, db: Database, newcomer: Owner) -> None:
    with db.transaction() as conn:
        projects.archive(conn, make_project(conn, "old", newcomer).id, actor="newcomer")
    with db.connection() as conn:
        browser = site.new_browser().sign_in(conn, newcomer)
    assert "Start with a project" in browser.get("/admin/").text


def test_the_page_of_a_token_masks_it_and_waits_for_the_agent(ada: Browser, sample: SampleData, db: Database) -> None:
    ada.get(project_path(sample, "participants/new"))
    card = ada.get(ada.submit("", name="zoe").location).text
    (token,) = set(
        re.findall(r"lbus_\w+", card.replace(card[card.index("data:application") : card.index("Download")], ""))
    )
    assert len(re.findall(f'<span class="secret">{token}</span>', card)) == len(re.findall(token, card)) - 1
    assert "Waiting for zoe" in card
    (address,) = re.findall(r'data-live="([^"]*/connection)"', card)
    with db.connection() as conn:
        agent = tokens.find_caller(conn, fingerprint(token))
    assert agent is not None
    assert "Waiting for zoe" in ada.get(address, headers={"X-Part": "1"}).text
    _connect(db, Agent(agent, token, "ada/zoe", "zoe", "apollo", "ada"), "claude-code")
    part = ada.get(address, headers={"X-Part": "1"}).text
    assert "zoe connected" in part
    assert "with Claude Code" in part
    assert "lbus_" not in part
    assert "zoe connected" in ada.get(address).text
    inside, token_id = project_path(sample).rstrip("/"), address.split("/")[-2]
    # The token of another participation, or of another project.
    assert (
        ada.get(
            f"{inside}/participants/{sample.route_values['participation_id']}/tokens/{token_id}/connection"
        ).status_code
        == 404
    )
    assert ada.get(address.replace(inside, f"/admin/projects/{sample.empty_project.id}")).status_code == 404


def test_a_client_is_chosen_by_keyboard_and_remembered(
    chromium: Chromium, database_url: str, db: Database, sample: SampleData
) -> None:
    with running_live_server(database_url) as url, open_page(chromium) as page:
        page.context.grant_permissions(["clipboard-read", "clipboard-write"])
        sign_in(page, url, db, sample.owner)
        for name in ("yves", "yann"):
            page.goto(f"{url}{project_path(sample, 'participants/new')}")
            page.get_by_label("Name").fill(name)
            page.get_by_role("button", name="Create token").click()
            expect(page.get_by_text(f"Waiting for {name}")).to_be_visible()
            if name == "yves":
                expect(page.locator("#prompt")).to_be_visible()
                page.get_by_role("radio", name="Any agent").focus()
                page.keyboard.press("ArrowRight")
            expect(page.get_by_role("radio", name="Claude Code")).to_be_checked()
            expect(page.locator("#prompt")).to_be_hidden()
            expect(page.locator("#client-claude_code")).to_contain_text("claude mcp add")
        secret = page.locator("#token .secret")
        assert "blur" in secret.evaluate("one => getComputedStyle(one).filter")
        page.get_by_role("button", name="Copy the token").click()
        assert page.evaluate("navigator.clipboard.readText()").startswith("lbus_")
        page.get_by_label("Show token").check()
        assert secret.evaluate("one => getComputedStyle(one).filter") == "none"
        token = secret.inner_text()
        with db.transaction() as conn:
            caller = tokens.find_caller(conn, fingerprint(token))
            assert caller is not None
            tokens.record_use(conn, [caller.token_id or 0])
        expect(page.locator(".connection-card.connected")).to_contain_text("yann connected", timeout=10_000)
        expect(page.locator("#announce")).to_have_text("yann connected")
