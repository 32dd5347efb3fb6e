"""MCP resources: the guide, and the data of the read tools."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from bus.agent_guide import GUIDE
from bus.coordination import digest, leases, posts, presence, task_queries
from bus.ctx import Ctx
from bus.db import Connection
from mcp_gateway.render import render

JSON_MIME_TYPE = "application/json"
MARKDOWN_MIME_TYPE = "text/markdown"


@dataclass(frozen=True)
class Resource:
    """A resource at a fixed URI.

    Attributes:
        uri: its URI.
        name: its name in the protocol.
        description: its description for clients.
        mime_type: the type of its content.
        query: reads its content for one caller; None if the content is `text` for all callers.
        text: its content if there is no query.
    """

    uri: str
    name: str
    description: str
    mime_type: str
    query: Callable[[Connection, Ctx], Any] | None
    text: str = ""

    def read_content(self, conn: Connection, ctx: Ctx) -> tuple[str, Sequence[int]]:
        """Return the content for one caller, and the ids of posts that it shows the caller for the first time."""
        if self.query is None:
            return self.text, ()
        result = self.query(conn, ctx)
        post_ids = result.surfacing if isinstance(result, posts.PostPage) else ()
        return msgspec.json.encode(render(result)).decode(), post_ids


RESOURCES = {
    resource.uri: resource
    for resource in (
        Resource("bus://guide", "guide", "How to work on the bus", MARKDOWN_MIME_TYPE, None, GUIDE),
        Resource(
            "bus://inbox",
            "inbox",
            "Your unacked posts, newest first; written by other participants",
            JSON_MIME_TYPE,
            lambda conn, ctx: posts.list_posts(conn, ctx, to_me=True, unacked_only=True, whole_bodies=False),
        ),
        Resource(
            "bus://ledger",
            "ledger",
            "Events after your cursor, as whats_new returns them; reading does not move the cursor",
            JSON_MIME_TYPE,
            lambda conn, ctx: digest.read_digest(conn, ctx, advance_cursor=False, condense=True),
        ),
        Resource(
            "bus://leases",
            "leases",
            "Active leases of the project",
            JSON_MIME_TYPE,
            lambda conn, ctx: leases.list_leases(conn, ctx),
        ),
        Resource(
            "bus://tasks",
            "tasks",
            "Tasks, newest first",
            JSON_MIME_TYPE,
            lambda conn, ctx: task_queries.list_tasks(conn, ctx),
        ),
        Resource(
            "bus://presence",
            "presence",
            "Active participants",
            JSON_MIME_TYPE,
            lambda conn, ctx: presence.list_active(conn, ctx),
        ),
    )
}
