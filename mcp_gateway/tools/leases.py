"""Tools of leases: lease, release, who_holds."""

from datetime import timedelta

from bus.coordination import leases
from bus.ctx import Ctx
from bus.db import Connection
from bus.rules.enums import LeaseMode
from mcp_gateway.tool_registry import tool
from mcp_gateway.tools.arguments import BeforeId, LeasedSurface, Note, Seconds, Surface


@tool(idempotent=True, notifies="leases ledger", batch="write", always_load=True)
def lease(
    conn: Connection,
    ctx: Ctx,
    surface: LeasedSurface,
    ttl_seconds: Seconds = 1800,
    note: Note | None = None,
    mode: LeaseMode = "exclusive",
) -> leases.Lease:
    """Lease what you will edit, or renew it. Never blocks: agree with the holders in others."""
    return leases.acquire(conn, ctx, surface, ttl=timedelta(seconds=ttl_seconds), note=note, mode=mode)


@tool(idempotent=True, notifies="leases ledger", batch="write", always_load=True)
def release(conn: Connection, ctx: Ctx, surface: Surface) -> leases.ReleaseResult:
    """Release a surface that you lease; * releases all."""
    return leases.release(conn, ctx, surface)


@tool(read_only=True)
def who_holds(
    conn: Connection, ctx: Ctx, surface: Surface | None = None, before: BeforeId | None = None
) -> leases.LeasePage:
    """Who holds what: active leases, or only those that overlap a surface."""
    return leases.list_leases(conn, ctx, surface=surface, before=before)
