"""Journeys of people and agents from the first start to work: real browser, real gateway, real MCP client."""

import json
import re
import shlex
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx2
import pytest
from playwright.sync_api import Browser, Page, expect

from bus.auth import login_links
from bus.db import Database
from bus.tenancy.owners import Owner
from tests import servers
from tests.concurrency import stretched
from tests.factories import make_agent, make_owner, make_project
from tests.mcp_gateway.processes import running_gateways
from tests.webapp.browser import PHONE_VIEWPORT, open_page
from tests.webapp.live_server import running_live_server
from tests.webapp.scenario_steps import call_tool, sign_in

_TOKEN = re.compile(r"lbus_[0-9A-Za-z]{49}")


@pytest.fixture(scope="module")
def database_url() -> Iterator[str]:
    """One database for all journeys: a gateway of its own for each took most of their time."""
    with servers.cloned_database() as url:
        yield url


@pytest.fixture(scope="module")
def mcp(database_url: str) -> Iterator[str]:
    """The endpoint of a gateway over the same database."""
    with running_gateways(database_url) as (process,):
        yield process.url


@pytest.fixture(scope="module")
def url(database_url: str, mcp: str) -> Iterator[str]:
    with running_live_server(database_url, MCP_URL=mcp) as address:
        yield address


@pytest.fixture
def ada(db: Database) -> Iterator[Owner]:
    with db.transaction() as conn:
        owner = make_owner(conn, "ada")
    yield owner
    # Free the handles for the next journey, which uses the same ones.
    with db.transaction() as conn:
        conn.fetch_all("UPDATE owner SET handle = 'gone-' || id, email = 'gone-' || id || '@example.org' RETURNING 1")
        conn.fetch_all("DELETE FROM owner_handle WHERE handle !~ '^gone-' RETURNING 1")


@contextmanager
def _signed_in(browser: Browser, url: str, db: Database, owner: Owner, **options: Any) -> Iterator[Page]:
    with open_page(browser, **options) as page:
        sign_in(page, url, db, owner)
        yield page


def _is_refused(url: str, token: str) -> bool:
    body = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "whoami", "arguments": {}}}
    headers = {"Authorization": f"Bearer {token}", "Accept": "application/json, text/event-stream"}
    return httpx2.post(url, json=body, headers=headers).status_code == 401


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({}, marks=pytest.mark.exhaustive),
        {"viewport": PHONE_VIEWPORT, "color_scheme": "dark", "has_touch": True},
        {"java_script_enabled": False},
    ],
    ids=["laptop", "dark phone", "no scripts"],
)
def test_a_new_owner_connects_the_first_agent(
    chromium: Browser, url: str, mcp: str, db: Database, ada: Owner, options: dict[str, Any]
) -> None:
    with _signed_in(chromium, url, db, ada, **options) as page:
        started = time.monotonic()
        # Without unanswered handoffs there is no number.
        expect(page.locator("[data-inbox]")).to_be_hidden()
        page.get_by_role("link", name="Create project").click()
        page.get_by_label("Name").fill("apollo")
        page.get_by_role("button", name="Create project").click()
        page.get_by_role("link", name="Add agent").click()
        page.get_by_label("Name").fill("api-agent")
        page.get_by_role("button", name="Create token").click()
        token = page.locator("#token").inner_text()
        assert _TOKEN.fullmatch(token)
        assert token in page.locator("#prompt").inner_text()
        words = shlex.split(page.locator("#client-claude_code").inner_text())
        assert words[:2] == ["export", f"LLM_BUS_TOKEN={token}"]
        assert words[-1] == "Authorization: Bearer ${LLM_BUS_TOKEN}"
        with page.expect_download() as download:
            page.get_by_role("link", name="Download mcp.json").click()
        config = json.loads(download.value.path().read_text())
        assert config["mcpServers"]["llm-bus"]["headers"]["Authorization"] == f"Bearer {token}"
        assert config["mcpServers"]["llm-bus"]["url"] == mcp
        page.get_by_role("link", name="Done").click()
        expect(page.get_by_text("Waiting for api-agent.")).to_be_visible()
        me = call_tool(mcp, token, "whoami")
        assert (me["actor"], me["project"]) == ("ada/api-agent", "apollo")
        call_tool(mcp, token, "register", lane="core", status="getting to know the code")
        if options.get("java_script_enabled") is False:
            page.reload()
        # With scripts the page updates itself.
        expect(page.get_by_text("getting to know the code").first).to_be_visible(timeout=20_000)
        expect(page.get_by_text("Waiting for the first agent")).to_be_hidden()
        assert time.monotonic() - started < stretched(60)
        assert page.evaluate("document.scrollingElement.scrollWidth <= document.scrollingElement.clientWidth")


def test_an_agent_receives_a_handoff_of_a_person_at_once(
    chromium: Browser, url: str, mcp: str, db: Database, ada: Owner
) -> None:
    with db.transaction() as conn:
        project = make_project(conn, "apollo", ada)
        agent = make_agent(conn, project, "api-agent")
    with _signed_in(chromium, url, db, ada) as page:
        page.goto(f"{url}/admin/projects/{project.id}/handoffs/new")
        page.get_by_label("To", exact=True).fill("api-agent")
        page.get_by_label("Message").fill("Please look at the prices.")
        page.get_by_role("button", name="Send handoff").click()
        (post,) = call_tool(mcp, agent.token, "read_posts", to_me=True)["posts"]
        assert (post["from"], post["body"]) == ("ada", "Please look at the prices.")
        call_tool(mcp, agent.token, "ack", post_id=post["post_id"])
        answer = call_tool(
            mcp, agent.token, "post", body="They are right.", to_actor=post["from"], reply_to=post["post_id"]
        )
        page.reload()
        expect(page.locator("#thread").get_by_text("They are right.")).to_be_visible()
        expect(page.locator(f"#post-{post['post_id']}").get_by_text("acknowledged").first).to_be_visible()
        page.get_by_role("button", name=f"Acknowledge post #{answer['post_id']}").click()
        expect(page.get_by_text("acknowledged by you")).to_be_visible()
    (mine,) = call_tool(mcp, agent.token, "read_posts", reply_to=post["post_id"])["posts"]
    assert mine["acked_by"] == ["ada"]


def test_an_agent_joins_with_the_prompt_of_an_invite(
    chromium: Browser, url: str, mcp: str, db: Database, ada: Owner
) -> None:
    with db.transaction() as conn:
        project = make_project(conn, 'it\'s "apollo" $(touch x)', ada)
    with _signed_in(chromium, url, db, ada) as page:
        page.goto(f"{url}/admin/projects/{project.id}/")
        page.get_by_role("link", name="Send invite").click()
        page.get_by_label("Lane").fill("docs")
        page.get_by_role("button", name="Create invite").click()
        prompt = page.locator("#prompt").inner_text()
        line = next(part for part in prompt.split("\n\n") if part.startswith("curl "))
        refused = _shell(line.replace("CHOOSE-A-NAME", "a/b"))
        assert refused.returncode == 22
        # --fail-with-body prints the reason.
        assert json.loads(refused.stdout)["error"] == "invalid_argument"
        done = _shell(line.replace("CHOOSE-A-NAME", "docs-agent"))
        assert done.returncode == 0, done.stderr
        joined = json.loads(done.stdout)
        assert call_tool(mcp, joined["token"], "whoami")["lane"] == "docs"
        words = shlex.split(joined["connect_command"])
        assert words[:2] == ["export", f"LLM_BUS_TOKEN={joined['token']}"]
        assert words[-1] == "Authorization: Bearer ${LLM_BUS_TOKEN}"
        over = _shell(line.replace("CHOOSE-A-NAME", "another"))
        assert (over.returncode, json.loads(over.stdout)["error"]) == (22, "exhausted")
        page.get_by_role("link", name="Done").click()
        expect(page.get_by_role("cell", name="docs-agent")).to_be_visible()
        expect(page.get_by_text("used", exact=True)).to_be_visible()


def _shell(line: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(["sh", "-c", line], capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("scripts", [True, False], ids=["scripts", "no scripts"])
def test_a_person_accepts_an_invite_in_the_browser(
    chromium: Browser, url: str, mcp: str, db: Database, ada: Owner, scripts: bool
) -> None:
    with db.transaction() as conn:
        project = make_project(conn, "apollo", ada)
        eve = make_owner(conn, "eve")
    with _signed_in(chromium, url, db, ada, java_script_enabled=scripts) as page:
        page.goto(f"{url}/admin/projects/{project.id}/invites/new")
        page.get_by_label("Kind").select_option("human")
        page.get_by_role("button", name="Create invite").click()
        link = page.locator("#link").inner_text()
        with open_page(chromium, java_script_enabled=scripts) as other:
            other.goto(link)
            expect(other.get_by_role("heading", level=1)).to_have_text("You are invited to apollo")
            other.get_by_role("link", name="Accept invite").click()
            expect(other).to_have_url(re.compile("/sign-in"))
            with db.connection() as conn:
                other.goto(f"{url}/sign-in/link/{login_links.create_login_link(conn, eve, actor='cli')}")
            other.get_by_role("button", name="Sign in").click()
            # Signing in redirects to the requested page.
            expect(other.get_by_role("heading", level=1)).to_have_text("Join apollo")
            other.get_by_label("Name").fill("eve")
            other.get_by_role("button", name="Join project").click()
            token = other.locator("#token").inner_text()
            assert call_tool(mcp, token, "whoami")["actor"] == "ada/eve"
            # Joining gives a token, but no access to the other owner's pages.
            assert other.goto(f"{url}/admin/projects/{project.id}/").status == 404
        page.goto(f"{url}/admin/projects/{project.id}/invites/")
        expect(page.get_by_text("accepted by eve")).to_be_visible()


def test_rotating_ends_the_old_token_and_a_reload_issues_none(
    chromium: Browser, url: str, mcp: str, db: Database, ada: Owner
) -> None:
    with db.transaction() as conn:
        project = make_project(conn, "apollo", ada)
        agent = make_agent(conn, project, "api-agent")
    with _signed_in(chromium, url, db, ada, permissions=["clipboard-read", "clipboard-write"]) as page:
        page.goto(f"{url}/admin/projects/{project.id}/participants/{agent.ctx.participation_id}")
        page.get_by_text("Rotate…").click()
        page.get_by_role("button", name="Rotate tokens").click()
        token = page.locator("#token").inner_text()
        page.get_by_role("button", name="Copy the token").click()
        expect(page.get_by_role("status").filter(has_text="Copied")).to_be_attached()
        assert page.evaluate("navigator.clipboard.readText()") == token
        assert _is_refused(mcp, agent.token)
        assert call_tool(mcp, token, "whoami")["actor"] == "ada/api-agent"
        assert page.reload().status == 404
        expect(page.get_by_text("This page could be viewed once")).to_be_visible()
        assert token not in page.content()
        with db.connection() as conn:
            mine = "SELECT count(*) FROM token WHERE participation_id = %s"
            assert conn.fetch_one(mine, (agent.ctx.participation_id,)) == (2,)
        assert call_tool(mcp, token, "whoami")["actor"] == "ada/api-agent"


def test_two_owners_do_not_see_each_other(chromium: Browser, url: str, db: Database, ada: Owner) -> None:
    with db.transaction() as conn:
        project = make_project(conn, "apollo", ada)
        eve = make_owner(conn, "eve")
    with _signed_in(chromium, url, db, eve) as page:
        expect(page.get_by_text("Start with a project")).to_be_visible()
        for path in ("", "ledger/", "participants/", "settings/", "ledger/export.jsonl"):
            assert page.goto(f"{url}/admin/projects/{project.id}/{path}").status == 404
            assert "apollo" not in page.content()


def test_deleting_a_project_can_be_cancelled_and_requires_its_name(
    chromium: Browser, url: str, db: Database, ada: Owner
) -> None:
    with db.transaction() as conn:
        project = make_project(conn, "apollo", ada)
    with _signed_in(chromium, url, db, ada) as page:
        page.goto(f"{url}/admin/projects/{project.id}/settings/")
        page.get_by_text("Delete project…").click()
        page.get_by_role("dialog").get_by_role("button", name="Cancel").click()
        page.get_by_text("Delete project…").click()
        page.get_by_label("Type apollo to confirm").fill("apollo")
        page.get_by_role("button", name="Delete project").click()
        expect(page.get_by_text("apollo deleted.")).to_be_visible()
        expect(page.get_by_text("No projects yet")).to_be_visible()
