"""Leases: "I am editing this", on files and globs. Advisory: contention is reported, nobody is blocked."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from bus import limits
from bus.coordination.caller_transaction import CallerTransaction
from bus.ctx import Ctx
from bus.db import Connection
from bus.errors import BusError, InvalidArgument, NotFound
from bus.rules import surfaces, validation
from bus.tenancy import audit
from bus.tenancy.caller_queries import fetch_as_caller

MODES = ("exclusive", "shared")
ALL_SURFACES = "*"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# Each round decides every glob that it meets; a new one must arrive in between to cause another.
_MAX_OVERLAP_ROUNDS = 20


@dataclass(frozen=True, slots=True)
class OverlappingLease:
    """A live lease of somebody else that overlaps."""

    actor: str
    surface: str
    expires_at: datetime
    expires_in_seconds: int
    note: str | None


@dataclass(frozen=True, slots=True)
class Lease:
    """The caller's lease.

    Attributes:
        fence: rises with every lease of the project; of two that overlap the higher one came second.
        renewed: whether the caller held it already: then the fence stays.
        others: live leases of other participants that overlap and contend, oldest first, at most 20.
    """

    lease_id: int
    surface: str
    expires_at: datetime
    fence: int
    renewed: bool
    others: list[OverlappingLease]
    unread: int


@dataclass(frozen=True, slots=True)
class LiveLease:
    """A live lease."""

    surface: str
    actor: str
    expires_at: datetime
    expires_in_seconds: int
    note: str | None
    mode: str
    fence: int


@dataclass(frozen=True, slots=True)
class LeasePage:
    """A page of live leases, newest first; `next_before` asks for the next page."""

    leases: list[LiveLease]
    next_before: int | None
    unread: int


@dataclass(frozen=True, slots=True)
class ReleaseResult:
    """How many of the caller's leases ended."""

    released: int
    unread: int


def acquire(
    conn: Connection,
    ctx: Ctx,
    surface: str,
    *,
    ttl: timedelta = timedelta(seconds=1800),
    note: str | None = None,
    mode: str = "exclusive",
) -> Lease:
    """Record that the caller works on `surface` until `ttl` has passed; never blocks.

    Args:
        surface: repo-relative POSIX path or glob, at most 200 characters; normalised.
        ttl: 1 second to 24 hours.
        mode: `shared` leases do not contend with each other.
    Returns:
        The lease, with `others`: live leases of other participants whose surface overlaps.
    Raises:
        BusError: `invalid_argument` when the surface is empty or leaves the repository (`..`).
    Locks: the project clock (through bus_lease in sql/leases.sql).
    Source: docs/decisions/0004-leases.md
    """
    wanted = surfaces.normalise(surface)
    seconds = int(ttl.total_seconds())
    validation.integer(seconds, "ttl_seconds", 1, limits.MAX_DURATION_SECONDS)
    if note is not None:
        validation.free_text(note, "note", limits.MAX_NOTE_LENGTH)
    if mode not in MODES:
        raise InvalidArgument(f"mode must be one of: {', '.join(MODES)}.")
    prefix = surfaces.literal_prefix(wanted)
    overlapping: list[str] = []
    disjoint: list[str] = []
    for _ in range(_MAX_OVERLAP_ROUNDS):
        undecided, fence, expires_at, renewed, others, unread = conn.fetch_one(
            "SELECT * FROM bus_lease(%s, %s, %s, %s, %s, %s, %s, %s, %s::text[], %s::text[])",
            (
                ctx.participation_id,
                ctx.token_id,
                wanted,
                prefix,
                _list_ancestors(prefix),
                seconds,
                note,
                mode,
                overlapping,
                disjoint,
            ),
        )
        if undecided is None:
            found = [_build_overlapping_lease(*other, seconds=seconds, expires_at=expires_at) for other in others]
            return Lease(fence, wanted, expires_at, fence, renewed, found, unread)
        for other in undecided:
            (overlapping if surfaces.overlaps(wanted, other) else disjoint).append(other)
    raise BusError("unavailable", "Too many leases change at once here; nothing was changed. Try again.")


def release(conn: Connection, ctx: Ctx, surface: str) -> ReleaseResult:
    """End the caller's lease on a surface; `*` ends all of its leases. Releasing nothing is fine and adds no event.

    Locks: the project clock, then the leases (bus_release).
    """
    wanted = None if surface == ALL_SURFACES else surfaces.normalise(surface)
    return ReleaseResult(
        *conn.fetch_one("SELECT * FROM bus_release(%s, %s, %s)", (ctx.participation_id, ctx.token_id, wanted))
    )


def force_release(conn: Connection, ctx: Ctx, fence: int) -> bool:
    """As project-admin, end a live lease of any participant whose holder is stuck. Recorded in ledger and audit log.

    Args:
        fence: identifies the lease, as `list_leases` shows it.
    Returns:
        Whether the lease was live; ending one that has ended changes nothing.
    Raises:
        BusError: `not_found` when the project never had such a lease; `forbidden` unless project-admin.
    Locks: the project clock, then the lease.
    """
    transaction = CallerTransaction(conn, ctx)
    if not transaction.is_admin:
        raise BusError("forbidden", "Only a project-admin may do that; ask the owner or an admin of the project.")
    row = conn.fetch_one_or_none(
        "UPDATE lease SET ended_at = clock_timestamp(), ended_by = 'release'"
        " WHERE project_id = %s AND id = %s AND ended_at IS NULL AND expires_at > clock_timestamp()"
        " RETURNING surface, actor",
        (transaction.project_id, fence),
    )
    if row is None:
        lease_exists = conn.fetch_one_or_none(
            "SELECT 1 FROM lease WHERE project_id = %s AND id = %s", (transaction.project_id, fence)
        )
        if not lease_exists:
            raise NotFound("lease")
        return False
    surface, holder = row
    transaction.record_event("release", surface=surface, held_by=holder, fence=fence)
    transaction.finish()
    audit.record(
        conn,
        ctx.owner_id,
        transaction.actor,
        "lease.release",
        surface,
        project_id=ctx.project_id,
        held_by=holder,
        fence=fence,
    )
    return True


def list_leases(
    conn: Connection, ctx: Ctx, *, surface: str | None = None, before: int | None = None, limit: int = 200
) -> LeasePage:
    """Live leases, newest first; with `surface` only those that overlap it. An expired lease is gone at once.

    Args:
        before: a fence; only older leases.
        limit: 1 to 200.
    """
    wanted = None if surface is None else surfaces.normalise(surface)
    if before is not None:
        validation.integer(before, "before", 1, limits.MAX_INTEGER)
    validation.integer(limit, "limit", 1, 200)
    found: list[LiveLease] = []
    unread = 0
    position = before or limits.MAX_INTEGER
    # Whether two surfaces overlap is decided here, so a page is filled from as many batches as it takes.
    while len(found) <= limit:
        unread, batch = _fetch_live_leases(conn, ctx, wanted, position)
        found.extend(held for held in batch if wanted is None or surfaces.overlaps(wanted, held.surface))
        if len(batch) <= _BATCH_SIZE:
            break
        position = batch[-1].fence
    if len(found) > limit:
        return LeasePage(found[:limit], found[limit - 1].fence, unread)
    return LeasePage(found, None, unread)


def is_free(conn: Connection, ctx: Ctx, surface: str) -> bool:
    """Whether nobody but the caller holds a live lease that overlaps a normalised surface."""
    prefix = surfaces.literal_prefix(surface)
    rows = conn.fetch_all(
        "SELECT DISTINCT l.surface FROM bus_authenticate(%s, %s, false) c,"
        " LATERAL bus_lease_candidates(c.project_id, %s, %s, clock_timestamp()) l WHERE l.participation_id <> %s",
        (ctx.participation_id, ctx.token_id, prefix, _list_ancestors(prefix), ctx.participation_id),
    )
    return not any(surfaces.overlaps(surface, held) for (held,) in rows)


_BATCH_SIZE = 200


def _fetch_live_leases(conn: Connection, ctx: Ctx, surface: str | None, before: int) -> tuple[int, list[LiveLease]]:
    prefix = "" if surface is None else surfaces.literal_prefix(surface)
    unread, rows = fetch_as_caller(
        conn,
        ctx,
        "SELECT l.surface, l.actor, l.expires_at,"
        " ceil(extract(epoch FROM l.expires_at - clock_timestamp()))::integer, l.note, l.mode, l.fence"
        " FROM bus_lease_candidates(%(project)s, %(prefix)s, %(ancestors)s, clock_timestamp()) l"
        " WHERE l.fence < %(before)s ORDER BY l.fence DESC LIMIT %(limit)s",
        "r.fence DESC",
        prefix=prefix,
        ancestors=_list_ancestors(prefix),
        before=before,
        limit=_BATCH_SIZE + 1,
    )
    return unread, [LiveLease(*row) for row in rows]


def _list_ancestors(prefix: str) -> list[str]:
    """The prefix, every directory above it, and '' for the repository."""
    return list(_iterate_ancestors(prefix))


def _iterate_ancestors(prefix: str) -> Iterator[str]:
    while prefix:
        yield prefix
        prefix = prefix.rpartition("/")[0]
    yield ""


def _build_overlapping_lease(
    actor: str, surface: str, expires_ms: int, note: str | None, *, seconds: int, expires_at: datetime
) -> OverlappingLease:
    expires = _EPOCH + timedelta(milliseconds=expires_ms)
    # The database's clock, not ours: this lease's own end minus its length is the moment of the answer.
    now = expires_at - timedelta(seconds=seconds)
    left = max(0, -(-(expires - now) // timedelta(seconds=1)))
    return OverlappingLease(actor, surface, expires, left, note)
