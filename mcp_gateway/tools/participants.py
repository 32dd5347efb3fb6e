"""Tools of identity and administration: whoami, list_participants, admin_provision, admin_rotate, admin_revoke."""

from typing import Any

from bus import scopes
from bus.ctx import Ctx
from bus.db import Connection
from bus.rules.enums import ParticipantKind
from bus.scopes import FULL_SCOPE, Scope
from bus.tenancy import participant_queries, participations, tokens
from bus.tenancy.participations import IssuedParticipation
from mcp_gateway.render import render
from mcp_gateway.tool_registry import tool
from mcp_gateway.tools.arguments import Actor, BeforeName, Label, Lane


@tool(read_only=True)
def whoami(conn: Connection, ctx: Ctx) -> dict[str, Any]:
    """Who you are: name, project, lane and number of unread posts."""
    me = participant_queries.whoami(conn, ctx)
    identity = {**render(me), "unread": me.unread}
    if not me.case_insensitive_paths:
        # Left out where it says nothing: every byte is context.
        del identity["case_insensitive_paths"]
    if ctx.scope != FULL_SCOPE:
        identity["scope"] = scopes.to_oauth(ctx.scope)
    return identity


@tool(read_only=True)
def list_participants(
    conn: Connection, ctx: Ctx, before: BeforeName | None = None
) -> participant_queries.ParticipantPage:
    """List the participants with lane and when last seen: the recipients of posts."""
    return participant_queries.list_participants(conn, ctx, before=before)


@tool(transaction=True, scope="admin", notifies="members")
def admin_provision(
    conn: Connection,
    ctx: Ctx,
    participant_name: Label,
    kind: ParticipantKind | None = None,
    lane: Lane | None = None,
    is_admin: bool = False,
    read_only: bool = False,
) -> IssuedParticipation:
    """Add (provision) a participant. The token is shown only once: pass it on, never post it."""
    scope: Scope = "read" if read_only else FULL_SCOPE
    return participations.provision(conn, ctx, participant_name, kind=kind, lane=lane, is_admin=is_admin, scope=scope)


@tool(transaction=True, scope="admin", destructive=True, notifies="members")
def admin_rotate(conn: Connection, ctx: Ctx, participant_name: Actor) -> IssuedParticipation:
    """Rotate a participant's token: issue a new one; its old tokens stop working."""
    return tokens.rotate_as_admin(conn, ctx, participant_name)


@tool(transaction=True, scope="admin", destructive=True, idempotent=True, notifies="members")
def admin_revoke(conn: Connection, ctx: Ctx, participant_name: Actor) -> tokens.RevokeResult:
    """Revoke all tokens of a participant; they stop working at once."""
    return tokens.revoke_as_admin(conn, ctx, participant_name)
