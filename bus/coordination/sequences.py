"""Claims: atomic, gap-free numbers that two agents never share (the next ADR, the next migration)."""

from dataclasses import dataclass
from datetime import datetime

from bus import limits
from bus.coordination.idempotency import validate_and_fingerprint
from bus.ctx import Ctx
from bus.db import Connection
from bus.db.pagination import paginate
from bus.rules import sequence_format, validation
from bus.tenancy.authentication import fetch_all_as_caller, fetch_as_caller


@dataclass(frozen=True, slots=True)
class Claim:
    """A claimed number; `formatted` has the sequence's prefix and padding."""

    sequence: str
    number: int
    formatted: str
    note: str | None
    unread: int


@dataclass(frozen=True, slots=True)
class SeedResult:
    """A sequence after seeding: its last used number and the format of its numbers."""

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
    """A sequence.

    Attributes:
        last_used: the last number that was claimed or seeded.
        next, next_formatted: the next number to claim; None after the last possible number.
    """

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
    Locks: the idempotency key, the project clock, the sequence (bus_claim in sql/sequences.sql).
    Source: docs/decisions/0003-locks.md
    """
    validation.sequence_name(sequence)
    if note is not None:
        validation.free_text(note, "note", limits.MAX_NOTE_LENGTH)
    key, fingerprint = validate_and_fingerprint("claim", idempotency_key, sequence=sequence, note=note)
    number, formatted, claim_note, unread = conn.fetch_one(
        "SELECT * FROM bus_claim(%s, %s, %s, %s, %s, %s, %s)",
        (ctx.participation_id, ctx.token_id, sequence, note, key, fingerprint, ctx.session),
    )
    return Claim(sequence=sequence, number=number, formatted=formatted, note=claim_note, unread=unread)


def seed(
    conn: Connection,
    ctx: Ctx,
    sequence: str,
    current: int,
    *,
    prefix: str | None = None,
    pad: int | None = None,
) -> SeedResult:
    """Set the last used number of a sequence and the format of its numbers; the next claim gives `current` + 1.

    Args:
        current: the last number in use, 0 to 2^53 - 1; never below the stored value.
        prefix: at most 16 characters; None keeps the stored one.
        pad: digits to pad to, 0 to 12; None keeps the stored value.
    Raises:
        BusError: `conflict` below the stored value, which the message names; `forbidden` when the caller is not
            project-admin and the sequence exists and would change, or is new and would start above 10^9.
    Locks: the project clock, then the sequence (bus_seed in sql/sequences.sql).
    """
    validation.sequence_name(sequence)
    validation.integer(current, "current", 0, limits.MAX_INTEGER)
    if prefix:
        prefix = validation.name(prefix, "prefix", limits.MAX_PREFIX_LENGTH)
    if pad is not None:
        validation.integer(pad, "pad", 0, limits.MAX_PAD)
    return conn.fetch_one_as(
        SeedResult,
        "SELECT %(sequence)s::text AS sequence, s.* FROM"
        " bus_seed(%(me)s, %(token)s, %(sequence)s, %(current)s, %(prefix)s, %(pad)s, %(session)s) s",
        {
            "me": ctx.participation_id,
            "token": ctx.token_id,
            "sequence": sequence,
            "current": current,
            "prefix": prefix,
            "pad": pad,
            "session": ctx.session,
        },
    )


def list_latest_claims(conn: Connection, ctx: Ctx, *, before: str | None = None, limit: int = 500) -> LatestClaimPage:
    """List the last claim of each sequence, by name; `before` is the `next_before` of the page before."""
    if before is not None:
        validation.sequence_name(before, "before")
    validation.integer(limit, "limit", 1, 500)
    unread, rows = fetch_all_as_caller(
        conn,
        ctx,
        LatestClaim,
        "SELECT s.name AS sequence, s.claimed AS number, s.claimed_as AS formatted, s.claimed_by AS by,"
        " s.claimed_at AS at FROM sequence s"
        " WHERE s.project_id = %(project)s AND s.claimed_at IS NOT NULL AND s.name > %(before)s"
        " ORDER BY s.name LIMIT %(limit)s",
        "r.sequence",
        before=before or "",
        limit=limit + 1,
    )
    page, has_more = paginate(rows, limit)
    return LatestClaimPage(sequences=list(page), next_before=page[-1].sequence if has_more else None, unread=unread)


def list_sequences(conn: Connection, ctx: Ctx, *, before: str | None = None, limit: int = 500) -> SequencePage:
    """List the sequences of the project by name; `before` is the `next_before` of the page before."""
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
    page, has_more = paginate(rows, limit)
    sequences = [_build_sequence(*row) for row in page]
    return SequencePage(sequences=sequences, next_before=sequences[-1].name if has_more else None, unread=unread)


def _build_sequence(name: str, prefix: str, pad: int, last_used: int) -> Sequence:
    next_number = None if last_used == limits.MAX_INTEGER else last_used + 1
    return Sequence(
        name=name,
        prefix=prefix,
        pad=pad,
        last_used=last_used,
        next=next_number,
        next_formatted=None if next_number is None else sequence_format.format_number(prefix, pad, next_number),
    )
