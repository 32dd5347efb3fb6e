"""Tool of the digest: whats_new."""

from typing import Annotated

from msgspec import Meta

from bus import limits
from bus.coordination import digest
from bus.ctx import Ctx
from bus.db import Connection
from mcp_gateway.tool_registry import tool


# Not read-only: it moves the caller's cursor. That is part of reading, so any token may.
@tool(scope="read", reports_unread=False, batch="read", always_load=True)
def whats_new(
    conn: Connection,
    ctx: Ctx,
    advance_cursor: bool = True,
    limit: Annotated[int, Meta(ge=1, le=500)] = 100,
    since: Annotated[int, Meta(ge=0, le=limits.MAX_INTEGER, description="Re-read after this event")] | None = None,
) -> digest.Digest:
    """What is new since your last call. left_out counts your own events and, of many, posts in your inbox."""
    return digest.read_digest(conn, ctx, advance_cursor=advance_cursor, limit=limit, since=since, condense=True)
