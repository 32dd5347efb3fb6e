"""Tool of invites: create_invite."""

from typing import Annotated

from msgspec import Meta

from bus import limits
from bus.ctx import Ctx
from bus.db import Connection
from bus.rules.enums import ParticipantKind
from bus.tenancy import invites
from mcp_gateway.tool_registry import tool
from mcp_gateway.tools.arguments import Label, Lane


@tool(transaction=True, scope="admin")
def create_invite(
    conn: Connection,
    ctx: Ctx,
    participant_name: Label | None = None,
    kind: ParticipantKind | None = None,
    lane: Lane | None = None,
    is_admin: bool = False,
    uses: Annotated[int, Meta(ge=1, le=limits.MAX_INVITE_USES)] = 1,
    ttl_hours: Annotated[int, Meta(ge=1, le=limits.MAX_INVITE_HOURS)] = 24,
) -> invites.CreatedInvite:
    """Create an invite to this project, to pass on to the person or agent that should join."""
    return invites.create(
        conn,
        ctx,
        participant_name=participant_name,
        kind=kind,
        lane=lane,
        is_admin=is_admin,
        uses=uses,
        ttl_hours=ttl_hours,
    )
