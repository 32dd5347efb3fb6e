"""Leases: "I am editing this", on files and globs. Advisory: contention is reported and blocks no one."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from bus import limits
from bus.coordination.transactions import CallerTransaction
from bus.ctx import Ctx
from bus.db import Connection
from bus.db.pagination import count_rows_that_fit, paginate
from bus.db.timestamps import from_epoch_milliseconds
from bus.errors import InvalidArgument, NotFound, Unavailable
from bus.rules import surfaces, validation
from bus.rules.enums import LEASE_MODES
from bus.tenancy import audit, authentication
from bus.tenancy.authentication import fetch_all_as_caller

ALL_SURFACES = "*"
_LIST_BATCH_SIZE = 200
# Each round compares every glob that it meets; only a lease acquired in between causes another round.
_MAX_OVERLAP_ROUNDS = 20


@dataclass(frozen=True, slots=True)
class OverlappingLease:
    """A live lease of another participant or session that overlaps.

    Attributes:
        session: the label of the session that holds it, if that is another session of the caller's participation.
    """

    actor: str
    surface: str
    expires_at: datetime
    expires_in_seconds: int
    note: str | None
    session: str | None = None


@dataclass(frozen=True, slots=True)
class Lease:
    """The caller's lease.

    Attributes:
        fence: rises with every lease of the project; of two overlapping leases the higher came second.
        renewed: whether the caller held the lease already; the fence is then unchanged.
        others: live leases of other participants and sessions that overlap and contend, oldest first, at most 20.
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
    """A live lease.

    Attributes:
        session: the label of the session that holds it; None without one.
        mine: true for leases of the caller's session, its parent and its sub-agents; None otherwise, and for callers
            that name no session.
    """

    surface: str
    actor: str
    expires_at: datetime
    expires_in_seconds: int
    note: str | None
    mode: str
    fence: int
    session: str | None = None
    mine: bool | None = None


@dataclass(frozen=True, slots=True)
class LeasePage:
    """A page of live leases, newest first; `next_before` asks for the next page."""

    leases: list[LiveLease]
    next_before: int | None
    unread: int


@dataclass(frozen=True, slots=True)
class ReleaseResult:
    """The number of the caller's leases that ended."""

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
        surface: repository-relative POSIX path or glob, at most 200 characters; normalised.
        ttl: 1 second to 24 hours.
        mode: `shared` leases do not contend with each other.
    Returns:
        The lease, with `others`: live leases of other participants whose surface overlaps.
    Raises:
        InvalidArgument: the surface is empty or leaves the repository (`..`).
        Unavailable: leases in this place change too fast.
    Locks: the project clock (through bus_lease in sql/leases.sql).
    Source: docs/decisions/0004-leases.md
    """
    surface = surfaces.normalise(surface)
    ttl_seconds = int(ttl.total_seconds())
    validation.integer(ttl_seconds, "ttl_seconds", 1, limits.MAX_DURATION_SECONDS)
    if note is not None:
        validation.free_text(note, "note", limits.MAX_NOTE_LENGTH)
    if mode not in LEASE_MODES:
        raise InvalidArgument(f"mode must be one of: {', '.join(LEASE_MODES)}.")
    prefix = surfaces.literal_prefix(surface)
    folded = surfaces.fold_case(surface)
    overlapping: list[str] = []
    disjoint: list[str] = []
    for _ in range(_MAX_OVERLAP_ROUNDS):
        must_fold, undecided, fence, expires_at, renewed, others, unread = conn.fetch_one(
            "SELECT * FROM bus_lease(%s, %s, %s, %s, %s, %s, %s, %s, %s::text[], %s::text[], %s, %s)",
            (
                ctx.participation_id,
                ctx.token_id,
                surface,
                prefix,
                _list_ancestors(prefix),
                ttl_seconds,
                note,
                mode,
                overlapping,
                disjoint,
                surface == folded,
                ctx.session,
            ),
        )
        if must_fold:
            surface, prefix = folded, surfaces.literal_prefix(folded)
            continue
        if undecided is None:
            # The moment of the answer by the database's clock, not the host's.
            now = expires_at - timedelta(seconds=ttl_seconds)
            return Lease(
                lease_id=fence,
                surface=surface,
                expires_at=expires_at,
                fence=fence,
                renewed=renewed,
                others=[_build_overlapping_lease(*other, now=now) for other in others],
                unread=unread,
            )
        for other_surface in undecided:
            (overlapping if surfaces.overlaps(surface, other_surface) else disjoint).append(other_surface)
    raise Unavailable("Too many leases change at once here; nothing was changed. Try again.")


def release(conn: Connection, ctx: Ctx, surface: str) -> ReleaseResult:
    """End the lease of the caller's session on a surface; `*` ends all of its leases.

    Without a live lease it adds no event.

    Locks: the project clock, then the leases (bus_release in sql/leases.sql).
    """
    normalised = None if surface == ALL_SURFACES else normalise_for_project(conn, ctx, surface)
    released, unread = conn.fetch_one(
        "SELECT * FROM bus_release(%s, %s, %s, %s)", (ctx.participation_id, ctx.token_id, normalised, ctx.session)
    )
    return ReleaseResult(released=released, unread=unread)


def normalise_for_project(conn: Connection, ctx: Ctx, surface: str) -> str:
    """Normalise a surface as the caller's project keeps it: in lower case if its paths ignore case."""
    normalised = surfaces.normalise(surface)
    folded = surfaces.fold_case(normalised)
    if folded == normalised:
        return normalised
    row = conn.fetch_one_or_none("SELECT case_insensitive_paths FROM project WHERE id = %s", (ctx.project_id,))
    return folded if row is not None and row[0] else normalised


def fold_live_leases(conn: Connection, project_id: int) -> None:
    """Put the live leases of a project into lower case, when its paths begin to ignore case.

    A holder of both spellings keeps both: the one in lower case covers the other until it expires.

    Locks: the project clock, then the leases.
    """
    conn.execute("SELECT bus_lock_clock(%s)", (project_id,))
    rows = conn.fetch_all(
        "SELECT id, participation_id, session_key, surface FROM lease"
        " WHERE project_id = %s AND ended_at IS NULL ORDER BY id",
        (project_id,),
    )
    held = {tuple(holder_and_surface) for _, *holder_and_surface in rows}
    for lease_id, *holder, surface in rows:
        folded = surfaces.fold_case(surface)
        if (*holder, folded) not in held:
            held.add((*holder, folded))
            conn.execute(
                "UPDATE lease SET surface = %s, prefix = %s WHERE project_id = %s AND id = %s",
                (folded, surfaces.literal_prefix(folded), project_id, lease_id),
            )


def force_release(conn: Connection, ctx: Ctx, fence: int) -> bool:
    """As project-admin, end a live lease of any participant. Recorded in the ledger and the audit log.

    Args:
        fence: identifies the lease, as `list_leases` shows it.
    Returns:
        Whether the lease was live; ending a lease that has ended changes nothing.
    Raises:
        BusError: `not_found` when the project never had such a lease; `forbidden` unless project-admin.
        InsufficientScope: the token does not allow it.
    Locks: the project clock, then the lease.
    """
    transaction = CallerTransaction(conn, ctx)
    if not transaction.is_admin:
        authentication.refuse_as_not_admin(conn, ctx)
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
    """List live leases, newest first; with `surface` only those that overlap it. Expired leases are left out.

    Args:
        before: a fence; only older leases.
        limit: 1 to 200. A page ends early when its texts together exceed limits.MAX_PAGE_BYTES.
    """
    normalised = None if surface is None else normalise_for_project(conn, ctx, surface)
    if before is not None:
        validation.integer(before, "before", 1, limits.MAX_INTEGER)
    validation.integer(limit, "limit", 1, 200)
    leases: list[LiveLease] = []
    unread = 0
    next_fence = before or limits.MAX_INTEGER
    # Overlap is decided here and not in SQL, so a page is filled from as many batches as necessary.
    while len(leases) <= limit:
        unread, batch = _fetch_live_leases(conn, ctx, normalised, next_fence)
        leases.extend(lease for lease in batch if normalised is None or surfaces.overlaps(normalised, lease.surface))
        if len(batch) <= _LIST_BATCH_SIZE:
            break
        next_fence = batch[-1].fence
    page, has_more = paginate(leases, count_rows_that_fit(leases, limit, limits.MAX_PAGE_BYTES, _text_size))
    return LeasePage(leases=list(page), next_before=page[-1].fence if has_more else None, unread=unread)


def is_free(conn: Connection, ctx: Ctx, surface: str) -> bool:
    """Whether no other participant or session has a live lease that overlaps a normalised surface."""
    prefix = surfaces.literal_prefix(surface)
    rows = conn.fetch_all(
        "SELECT DISTINCT l.surface FROM bus_authenticate(%s, %s, false) c,"
        " LATERAL bus_lease_candidates(c.project_id, %s, %s, clock_timestamp()) l"
        " WHERE l.participation_id <> %s OR NOT bus_is_same_session(l.session_key, %s)",
        (ctx.participation_id, ctx.token_id, prefix, _list_ancestors(prefix), ctx.participation_id, ctx.session),
    )
    return not any(surfaces.overlaps(surface, leased) for (leased,) in rows)


def _fetch_live_leases(conn: Connection, ctx: Ctx, surface: str | None, before: int) -> tuple[int, list[LiveLease]]:
    prefix = "" if surface is None else surfaces.literal_prefix(surface)
    return fetch_all_as_caller(
        conn,
        ctx,
        LiveLease,
        "SELECT l.surface, l.actor, l.expires_at,"
        " ceil(extract(epoch FROM l.expires_at - clock_timestamp()))::integer AS expires_in_seconds,"
        " l.note, l.mode, l.fence, bus_session_label(l.session_key) AS session,"
        " CASE WHEN %(session)s::text IS NOT NULL AND l.participation_id = %(me)s"
        "  AND bus_is_same_session(l.session_key, %(session)s) THEN true END AS mine"
        " FROM bus_lease_candidates(%(project)s, %(prefix)s, %(ancestors)s, clock_timestamp()) l"
        " WHERE l.fence < %(before)s ORDER BY l.fence DESC LIMIT %(limit)s",
        "r.fence DESC",
        prefix=prefix,
        ancestors=_list_ancestors(prefix),
        before=before,
        session=ctx.session,
        limit=_LIST_BATCH_SIZE + 1,
    )


def _text_size(lease: LiveLease) -> int:
    return len(lease.surface.encode()) + len((lease.note or "").encode()) + len(lease.actor)


def _list_ancestors(prefix: str) -> list[str]:
    """Return the prefix, every directory above it, and '' for the repository."""
    return list(_iterate_ancestors(prefix))


def _iterate_ancestors(prefix: str) -> Iterator[str]:
    while prefix:
        yield prefix
        prefix = prefix.rpartition("/")[0]
    yield ""


def _build_overlapping_lease(
    actor: str, surface: str, expires_milliseconds: int, note: str | None, session: str | None = None, *, now: datetime
) -> OverlappingLease:
    expires_at = from_epoch_milliseconds(expires_milliseconds)
    rounded_up_seconds = -(-(expires_at - now) // timedelta(seconds=1))
    return OverlappingLease(
        actor=actor,
        surface=surface,
        expires_at=expires_at,
        expires_in_seconds=max(0, rounded_up_seconds),
        note=note,
        session=session,
    )
