"""Two people in two real browsers, each with three agents that call a real gateway, in one project."""

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


_LABELS = ("claude-1", "codex-1", "opencode-1")
_LANES = {"claude-1": "core", "codex-1": "docs", "opencode-1": "core"}


def _invite(page: Page, base: str, role: str) -> str:
    page.goto(f"{base}/people/")
    page.get_by_label("Role", exact=True).select_option(role)
    page.get_by_role("button", name="Create invite").click()
    return page.locator("#link").inner_text()


def _join(page: Page, link: str) -> None:
    page.goto(link)
    page.get_by_role("link", name="Accept invite").click()
    expect(page.get_by_text("You are signed in as bob.")).to_be_visible()
    page.get_by_role("button", name="Join project").click()
    expect(page.get_by_text("You joined the project.")).to_be_visible()


def _shown_actors(page: Page, base: str) -> set[str]:
    page.goto(f"{base}/board/")
    riders = page.locator(".rider[data-actor]")
    return {riders.nth(number).get_attribute("data-actor") or "" for number in range(riders.count())}


def _call_status(mcp: str, token: str) -> int:
    body = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "whoami", "arguments": {}}}
    headers = {"Authorization": f"Bearer {token}", "Accept": "application/json, text/event-stream"}
    return httpx2.post(mcp, json=body, headers=headers).status_code


def test_two_people_with_three_agents_each_work_in_one_project(
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
        sign_in(bobs, url, db, bob)
        _join(bobs, _invite(adas, base, "member"))
        # Both call their agents the same.
        tokens = {
            f"{handle}/{label}": _add_agent(page, base, label)
            for handle, page in (("ada", adas), ("bob", bobs))
            for label in _LABELS
        }
        for actor, token in tokens.items():
            lane = _LANES[actor.partition("/")[2]]
            assert call_tool(mcp, token, "register", lane=lane, status=f"{actor} works")["actor"] == actor
        # A lane reaches the agents of both, and an agent of the other person is addressed by its qualified name.
        sent = call_tool(
            mcp,
            tokens["bob/claude-1"],
            "post",
            body="Is the lock short enough?",
            to_lane="docs",
            to_actor="ada/claude-1",
        )
        assert sent["recipients"] == 3
        (post,) = call_tool(mcp, tokens["ada/claude-1"], "read_posts", to_me=True)["posts"]
        assert (post["post_id"], post["from"]) == (sent["post_id"], "bob/claude-1")
        call_tool(mcp, tokens["ada/codex-1"], "ack", post_ids=[sent["post_id"]])
        call_tool(mcp, tokens["bob/codex-1"], "ack", post_ids=[sent["post_id"]])
        # A label alone is an agent of the caller's own person.
        call_tool(mcp, tokens["bob/codex-1"], "post", body="Please review.", to_actor="claude-1")
        for actor, count in (("bob/claude-1", 1), ("ada/claude-1", 1)):
            assert len(call_tool(mcp, tokens[actor], "read_posts", to_me=True)["posts"]) == count
        # Each sees the six agents; bob answers a question of ada's agent on a phone.
        asked = call_tool(mcp, tokens["ada/claude-1"], "post", body="Yes. May I merge?", to_actor="bob")
        for page in (adas, bobs):
            assert _shown_actors(page, base) == set(tokens)
            assert page.evaluate("document.scrollingElement.scrollWidth <= document.scrollingElement.clientWidth")
        bobs.goto(f"{base}/handoffs/{asked['post_id']}")
        bobs.get_by_role("button", name=f"Acknowledge post #{asked['post_id']}").click()
        expect(bobs.get_by_text("acknowledged by you")).to_be_visible()
        posts = {one["post_id"]: one for one in call_tool(mcp, tokens["ada/claude-1"], "read_posts")["posts"]}
        assert posts[asked["post_id"]]["acked_by"] == ["bob"]
        assert sorted(posts[sent["post_id"]]["acked_by"]) == ["ada/codex-1", "bob/codex-1"]
        # Removed: the next page is none, and the next call of each agent is refused.
        bobs.goto(f"{base}/board/")
        adas.goto(f"{base}/people/")
        adas.get_by_label("Remove bob").click()
        adas.get_by_role("button", name="Remove person").click()
        expect(adas.get_by_text("Removed, with all of their agents here.")).to_be_visible()
        bobs.reload()
        expect(bobs.get_by_role("heading", level=1)).to_have_text(re.compile("not found", re.IGNORECASE))
        assert {actor for actor, token in tokens.items() if _call_status(mcp, token) == 401} == {
            f"bob/{label}" for label in _LABELS
        }
        # Joined again to view: the old tokens stay dead. Then left: the next page is none again.
        _join(bobs, _invite(adas, base, "viewer"))
        assert _shown_actors(bobs, base) == {f"ada/{label}" for label in _LABELS}
        assert _call_status(mcp, tokens["bob/claude-1"]) == 401
        bobs.goto(f"{base}/people/")
        bobs.get_by_text("Leave…").click()
        bobs.get_by_role("button", name="Leave project").click()
        bobs.goto(f"{base}/board/")
        expect(bobs.get_by_role("heading", level=1)).to_have_text(re.compile("not found", re.IGNORECASE))
        assert _shown_actors(adas, base) == {f"ada/{label}" for label in _LABELS}
