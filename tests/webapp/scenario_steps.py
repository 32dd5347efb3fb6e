"""Steps of end-to-end tests: signing in, calling a tool."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import anyio
import httpx2
from mcp.client import Client
from mcp.client.streamable_http import streamable_http_client
from playwright.sync_api import Page, expect

from bus.auth import login_links
from bus.db import Database
from bus.tenancy.owners import Owner


def sign_in(page: Page, url: str, db: Database, owner: Owner) -> None:
    """Sign in with a one-time link, up to the inbox."""
    with db.connection() as conn:
        page.goto(f"{url}/sign-in/link/{login_links.create_login_link(conn, owner, actor='cli')}")
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Inbox")


def call_tool(url: str, token: str, tool: str, **arguments: Any) -> dict[str, Any]:
    """Call a tool through the client of the MCP SDK."""

    async def call() -> dict[str, Any]:
        async with httpx2.AsyncClient(headers={"Authorization": f"Bearer {token}"}, timeout=120) as http:
            async with Client(streamable_http_client(url, http_client=http), mode="auto") as client:
                result = await client.call_tool(tool, arguments)
                assert not result.is_error, result
                content: dict[str, Any] = result.structured_content
                return content

    # Playwright runs its own event loop in this thread.
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(anyio.run, call).result()
