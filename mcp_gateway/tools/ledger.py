"""Tool of the ledger: query_events."""

from typing import Annotated

from msgspec import Meta

from bus import limits
from bus.coordination import ledger
from bus.ctx import Ctx
from bus.db import Connection
from bus.rules.enums import EventType
from mcp_gateway.tool_registry import tool
from mcp_gateway.tools.arguments import Actor, BeforeId, Ref, SequenceName, Tag

Timestamp = Annotated[str, Meta(max_length=64, description="ISO 8601")]


@tool(read_only=True)
def query_events(
    conn: Connection,
    ctx: Ctx,
    actor: Actor | None = None,
    type: EventType | None = None,  # noqa: A002 - the name in the tool contract
    sequence: SequenceName | None = None,
    number: Annotated[int, Meta(ge=0, le=limits.MAX_INTEGER)] | None = None,
    ref: Ref | None = None,
    tag: Tag | None = None,
    since: Timestamp | None = None,
    until: Timestamp | None = None,
    last_n: Annotated[int, Meta(ge=1, le=1000)] | None = None,
    limit: Annotated[int, Meta(ge=1, le=1000)] = 100,
    before: BeforeId | None = None,
) -> ledger.EventPage:
    """Query events of the ledger by exact filters, newest first. Use whats_new for news."""
    return ledger.query_events(
        conn,
        ctx,
        actor=actor,
        type=type,
        sequence=sequence,
        number=number,
        ref=ref,
        tag=tag,
        since=since,
        until=until,
        last_n=last_n,
        limit=limit,
        before=before,
    )
