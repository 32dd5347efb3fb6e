"""Tools of sequences: claim, seed_sequence, latest_claims, list_sequences."""

from typing import Annotated

from msgspec import Meta

from bus import limits
from bus.coordination import sequences
from bus.ctx import Ctx
from bus.db import Connection
from mcp_gateway.tool_registry import tool
from mcp_gateway.tools.arguments import BeforeName, IdempotencyKey, Note, SequenceName


@tool(notifies="ledger", batch="write", always_load=True)
def claim(
    conn: Connection,
    ctx: Ctx,
    sequence: SequenceName,
    note: Note | None = None,
    idempotency_key: IdempotencyKey | None = None,
) -> sequences.Claim:
    """Claim the next number of a sequence (adr, migration) before you name anything."""
    return sequences.claim(conn, ctx, sequence, note=note, idempotency_key=idempotency_key)


@tool(idempotent=True, notifies="ledger")
def seed_sequence(
    conn: Connection,
    ctx: Ctx,
    sequence: SequenceName,
    current: Annotated[int, Meta(ge=0, le=limits.MAX_INTEGER, description="Last number already in use")],
    prefix: Annotated[str, Meta(max_length=limits.MAX_PREFIX_LENGTH)] | None = None,
    pad: Annotated[int, Meta(ge=0, le=limits.MAX_PAD, description="Digits to pad to")] | None = None,
) -> sequences.SeedResult:
    """Seed a sequence with the last number that the repository already uses, once, before the first claim."""
    return sequences.seed(conn, ctx, sequence, current, prefix=prefix, pad=pad)


@tool(read_only=True)
def latest_claims(conn: Connection, ctx: Ctx, before: BeforeName | None = None) -> sequences.LatestClaimPage:
    """The latest claim of each sequence: number and participant."""
    return sequences.list_latest_claims(conn, ctx, before=before)


@tool(read_only=True)
def list_sequences(conn: Connection, ctx: Ctx, before: BeforeName | None = None) -> sequences.SequencePage:
    """List sequences with the number that the next claim returns. Listing reserves nothing."""
    return sequences.list_sequences(conn, ctx, before=before)
