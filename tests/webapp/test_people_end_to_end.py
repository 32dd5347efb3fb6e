"""Two people in two real browsers, with agents that call a real gateway, in one project."""

import re
from collections.abc import Iterator

import httpx2
import pytest
from playwright.sync_api import Browser, Page, expect

from bus.db import Database
from tests.factories import make_owner, make_project
from tests.mcp_gateway.processes import running_gateways
from tests.webapp.browser import PHONE_VIEWPORT, open_page
from tests.webapp.live_server import running_live_server
from tests.webapp.scenario_steps import call_tool, sign_in


@pytest.fixture
def mcp(database_url: str) -> Iterator[str]:
    with running_gateways(database_url) as (process,):
        yield process.url


def _add_agent(page: Page, base: str, label: str) -> str:
    page.goto(f"{base}/participants/new")
    page.get_by_label("Name").fill(label)
    page.get_by_role("button", name="Create token").click()
    return page.locator("#token").inner_text()


def test_two_people_work_in_one_project_until_one_is_removed(
    chromium: Browser, database_url: str, mcp: str, db: Database
) -> None:
    with db.transaction() as conn:
        ada, bob = make_owner(conn, "ada"), make_owner(conn, "bob")
        project = make_project(conn, "apollo", ada)
    with (
        running_live_server(database_url, MCP_URL=mcp) as url,
        open_page(chromium) as adas,
        open_page(chromium, viewport=PHONE_VIEWPORT) as bobs,
    ):
        base = f"{url}/admin/projects/{project.id}"
        sign_in(adas, url, db, ada)
        adas.goto(f"{base}/people/")
        adas.get_by_label("Role", exact=True).select_option("member")
        adas.get_by_role("button", name="Create invite").click()
        link = adas.locator("#link").inner_text()
        sign_in(bobs, url, db, bob)
        bobs.goto(link)
        bobs.get_by_role("link", name="Accept invite").click()
        expect(bobs.get_by_text("You are signed in as bob.")).to_be_visible()
        bobs.get_by_role("button", name="Join project").click()
        expect(bobs.get_by_text("You joined the project.")).to_be_visible()
        # Both call their agents the same.
        tokens = {page: _add_agent(page, base, "claude-1") for page in (adas, bobs)}
        assert call_tool(mcp, tokens[bobs], "whoami")["actor"] == "bob/claude-1"
        sent = call_tool(mcp, tokens[bobs], "post", body="Is the lock short enough?", to_actor="ada/claude-1")
        (post,) = call_tool(mcp, tokens[adas], "read_posts", to_me=True)["posts"]
        assert (post["post_id"], post["from"]) == (sent["post_id"], "bob/claude-1")
        # ada's board shows the agent of bob, and bob answers a question of ada's agent.
        adas.goto(f"{base}/board/")
        expect(adas.get_by_role("link", name="bob/claude-1")).to_be_visible()
        asked = call_tool(mcp, tokens[adas], "post", body="Yes. May I merge?", to_actor="bob")
        bobs.goto(f"{base}/handoffs/{asked['post_id']}")
        bobs.get_by_role("button", name=f"Acknowledge post #{asked['post_id']}").click()
        expect(bobs.get_by_text("acknowledged by you")).to_be_visible()
        assert bobs.evaluate("document.scrollingElement.scrollWidth <= document.scrollingElement.clientWidth")
        (mine,) = (one for one in call_tool(mcp, tokens[adas], "read_posts")["posts"] if one["from"] == "ada/claude-1")
        assert mine["acked_by"] == ["bob"]
        # Removed: the open board closes, the next page is none, the next call is refused.
        bobs.goto(f"{base}/board/")
        adas.goto(f"{base}/people/")
        adas.get_by_label("Remove bob").click()
        adas.get_by_role("button", name="Remove person").click()
        expect(adas.get_by_text("Removed, with all of their agents here.")).to_be_visible()
        bobs.reload()
        expect(bobs.get_by_role("heading", level=1)).to_have_text(re.compile("not found", re.IGNORECASE))
        body = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "whoami", "arguments": {}}}
        headers = {"Authorization": f"Bearer {tokens[bobs]}", "Accept": "application/json, text/event-stream"}
        assert httpx2.post(mcp, json=body, headers=headers).status_code == 401
