"""Tool of long polls: wait_for."""

from typing import Annotated, Literal

from msgspec import Meta

from bus.coordination import long_poll
from bus.ctx import Ctx
from bus.db import Connection
from mcp_gateway.tool_registry import tool
from mcp_gateway.tools.arguments import Surface

WaitKind = Literal["inbox", "acks", "lease", "task", "any"]
DEFAULT_TIMEOUT_SECONDS = 25


# Waiting for a surface or a task keeps others waiting, so that needs a wider scope (bus/coordination/long_poll.py).
@tool(scope="read", is_long_poll=True, always_load=True)
def wait_for(
    conn: Connection,
    ctx: Ctx,
    kind: WaitKind = "any",
    surface: Surface | None = None,
    take: bool = False,
    timeout_seconds: Annotated[int, Meta(ge=1, le=50)] = DEFAULT_TIMEOUT_SECONDS,
) -> long_poll.WaitRequest:
    """Wait for posts (inbox), acks, a free surface (lease) or a ready task, which take starts."""
    return long_poll.begin_wait(conn, ctx, kind, surface=surface, take=take)
