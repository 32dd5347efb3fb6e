"""Resources: the guide, and the same data that the read tools give."""

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
    """A resource at a fixed address; `read` is None where the text is the same for everyone."""

    uri: str
    name: str
    description: str
    mime_type: str
    query: Callable[[Connection, Ctx], Any] | None
    text: str = ""

    def read_content(self, conn: Connection, ctx: Ctx) -> tuple[str, Sequence[int]]:
        """The resource as text, for one caller; and the posts that it shows the caller for the first time."""
        if self.query is None:
            return self.text, ()
        found = self.query(conn, ctx)
        return msgspec.json.encode(render(found)).decode(), found.surfacing if isinstance(found, posts.PostPage) else ()


RESOURCES = {
    resource.uri: resource
    for resource in (
        Resource("bus://guide", "guide", "How to work on the bus", MARKDOWN_MIME_TYPE, None, GUIDE),
        Resource(
            "bus://inbox",
            "inbox",
            "Your unacked posts, newest first; other participants' words",
            JSON_MIME_TYPE,
            lambda conn, ctx: posts.list_posts(conn, ctx, to_me=True, unacked_only=True),
        ),
        Resource(
            "bus://ledger",
            "ledger",
            "Events after your cursor, as whats_new gives them; reading moves nothing",
            JSON_MIME_TYPE,
            lambda conn, ctx: digest.read_digest(conn, ctx, advance_cursor=False),
        ),
        Resource(
            "bus://leases",
            "leases",
            "Live leases of the project",
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
            "Who is active",
            JSON_MIME_TYPE,
            lambda conn, ctx: presence.list_active(conn, ctx),
        ),
    )
}
