"""Tools of presence: register, who_is_active."""

from typing import Annotated

from msgspec import Meta

from bus import limits
from bus.coordination import presence
from bus.ctx import Ctx
from bus.db import Connection
from mcp_gateway.tool_registry import tool
from mcp_gateway.tools.arguments import BeforeName, Lane, Seconds


@tool(idempotent=True, notifies="presence inbox ledger", always_load=True)
def register(
    conn: Connection,
    ctx: Ctx,
    lane: Lane,
    status: Annotated[str, Meta(max_length=limits.MAX_STATUS_LENGTH)] = "",
) -> presence.Registration:
    """Register your lane, whose posts reach you, and your status."""
    return presence.register(conn, ctx, lane, status=status)


@tool(read_only=True)
def who_is_active(
    conn: Connection,
    ctx: Ctx,
    lane: Lane | None = None,
    within_seconds: Seconds | None = None,
    before: BeforeName | None = None,
) -> presence.ActiveParticipantPage:
    """Who is active: participants seen recently, with lane and status."""
    return presence.list_active(conn, ctx, lane=lane, within_seconds=within_seconds, before=before)
