"""Claims: atomic, gap-free numbers that two agents never share (the next ADR, the next migration)."""

from dataclasses import dataclass
from datetime import datetime

from bus import limits
from bus.coordination.idempotency import validate_and_fingerprint
from bus.ctx import Ctx
from bus.db import Connection
from bus.rules import sequence_format, validation
from bus.tenancy.caller_queries import fetch_as_caller, paginate


@dataclass(frozen=True, slots=True)
class Claim:
    """A number that is the caller's alone; `formatted` is it with the sequence's prefix and padding."""

    sequence: str
    number: int
    formatted: str
    note: str | None
    unread: int


@dataclass(frozen=True, slots=True)
class SeedResult:
    """A sequence after seeding: its last used number and how numbers are formatted."""

    sequence: str
    current: int
    prefix: str
    pad: int
    unread: int


@dataclass(frozen=True, slots=True)
class LatestClaim:
    """The last claim of a sequence."""

    sequence: str
    number: int
    formatted: str
    by: str
    at: datetime


@dataclass(frozen=True, slots=True)
class LatestClaimPage:
    """A page of latest claims, by sequence name; `next_before` asks for the next page."""

    sequences: list[LatestClaim]
    next_before: str | None
    unread: int


@dataclass(frozen=True, slots=True)
class Sequence:
    """A sequence; `last_used` is where its counter stands (claimed or seeded), `next` what a claim
    would give, None after the last possible number."""

    name: str
    prefix: str
    pad: int
    last_used: int
    next: int | None
    next_formatted: str | None


@dataclass(frozen=True, slots=True)
class SequencePage:
    """A page of sequences by name; `next_before` asks for the next page."""

    sequences: list[Sequence]
    next_before: str | None
    unread: int


def claim(
    conn: Connection, ctx: Ctx, sequence: str, *, note: str | None = None, idempotency_key: str | None = None
) -> Claim:
    """Take the next number of a sequence. First use starts it at 1.

    One statement with its own lock: concurrent callers get distinct numbers without a gap, and a call that
    does not commit consumes nothing.

    Raises:
        BusError: `invalid_argument`, `key_reuse`, `forbidden` (archived project), `conflict` at 2^53 - 1.
    Locks: the idempotency key, the sequence, the project clock (bus_claim in sql/sequences.sql).
    Source: docs/decisions/0003-locks.md
    """
    validation.sequence_name(sequence)
    if note is not None:
        validation.free_text(note, "note", limits.MAX_NOTE_LENGTH)
    key, fingerprint = validate_and_fingerprint("claim", idempotency_key, sequence=sequence, note=note)
    number, formatted, kept_note, unread = conn.fetch_one(
        "SELECT * FROM bus_claim(%s, %s, %s, %s, %s, %s)",
        (ctx.participation_id, ctx.token_id, sequence, note, key, fingerprint),
    )
    return Claim(sequence, number, formatted, kept_note, unread)


def seed(
    conn: Connection,
    ctx: Ctx,
    sequence: str,
    current: int,
    *,
    prefix: str | None = None,
    pad: int | None = None,
) -> SeedResult:
    """Set where a sequence stands and how its numbers look; the next claim gives `current + 1`.

    Args:
        current: the last number in use, 0 to 2^53 - 1; never below what is stored.
        prefix: at most 16 characters; None keeps what is set.
        pad: digits to pad to, 0 to 12; None keeps what is set.
    Raises:
        BusError: `conflict` below the stored value, naming it; `forbidden` when it exists, would change and the
            caller is not project-admin.
    Locks: the sequence, then the project clock (bus_seed).
    """
    validation.sequence_name(sequence)
    validation.integer(current, "current", 0, limits.MAX_INTEGER)
    if prefix:
        prefix = validation.name(prefix, "prefix", limits.MAX_PREFIX_LENGTH)
    if pad is not None:
        validation.integer(pad, "pad", 0, limits.MAX_PAD)
    row = conn.fetch_one(
        "SELECT * FROM bus_seed(%s, %s, %s, %s, %s, %s)",
        (ctx.participation_id, ctx.token_id, sequence, current, prefix, pad),
    )
    return SeedResult(sequence, *row)


def list_latest_claims(conn: Connection, ctx: Ctx, *, before: str | None = None, limit: int = 500) -> LatestClaimPage:
    """The last claim of each sequence, by name; `before` is the `next_before` of the page before."""
    if before is not None:
        validation.sequence_name(before, "before")
    validation.integer(limit, "limit", 1, 500)
    unread, rows = fetch_as_caller(
        conn,
        ctx,
        "SELECT s.name, s.claimed, s.claimed_as, s.claimed_by, s.claimed_at FROM sequence s"
        " WHERE s.project_id = %(project)s AND s.claimed_at IS NOT NULL AND s.name > %(before)s"
        " ORDER BY s.name LIMIT %(limit)s",
        "r.name",
        before=before or "",
        limit=limit + 1,
    )
    rows, next_before = paginate(rows, limit)
    return LatestClaimPage([LatestClaim(*row) for row in rows], next_before, unread)


def list_sequences(conn: Connection, ctx: Ctx, *, before: str | None = None, limit: int = 500) -> SequencePage:
    """Every sequence of the project by name, with the number that a claim would give next."""
    if before is not None:
        validation.sequence_name(before, "before")
    validation.integer(limit, "limit", 1, 500)
    unread, rows = fetch_as_caller(
        conn,
        ctx,
        "SELECT s.name, s.prefix, s.pad, s.current FROM sequence s"
        " WHERE s.project_id = %(project)s AND s.name > %(before)s ORDER BY s.name LIMIT %(limit)s",
        "r.name",
        before=before or "",
        limit=limit + 1,
    )
    rows, next_before = paginate(rows, limit)
    sequences = [
        Sequence(name, prefix, pad, current, None, None)
        if current == limits.MAX_INTEGER
        else Sequence(name, prefix, pad, current, current + 1, sequence_format.format_number(prefix, pad, current + 1))
        for name, prefix, pad, current in rows
    ]
    return SequencePage(sequences, next_before, unread)
