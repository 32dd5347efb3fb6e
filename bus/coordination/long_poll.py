"""Waiting for what concerns the caller: what there is, whose turn it is, and who among many may have news.

Nothing here waits. A door keeps the calls open, asks `due` about all of them at once when a hint came or a tick
passed, and lets those look who may have news. What is told is always read here, so a hint that was lost or came twice
changes nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from bus.coordination import leases, posts, tasks
from bus.ctx import Ctx
from bus.db import Connection
from bus.errors import InvalidArgument
from bus.limits import MAX_INTEGER
from bus.rules import surfaces

WAIT_KINDS = ("inbox", "acks", "lease", "task", "any")
# Whoever was told that a surface is free has this long to lease it before the next in line is told.
LEASE_GRACE_SECONDS = 2.0
# A place in line is kept this long after its door was last heard of.
QUEUE_POSITION_TTL_SECONDS = 30.0
TASK_OFFER_SECONDS = 60.0
_BATCH_SIZE = 500
_INITIAL_ACK_WINDOW = 100


@dataclass(frozen=True, slots=True)
class WaitRequest:
    """One call that waits.

    Attributes:
        kinds: what it waits for: some of inbox, acks, lease, task.
        surface: the normalised surface, where it waits for a lease.
        take: whether a task is started, and not only offered.
        place: its place in the line for a surface; places rise in the order of arrival.
    """

    ctx: Ctx
    kinds: frozenset[str]
    surface: str | None = None
    take: bool = False
    queue_position: int | None = None

    @property
    def is_single_statement(self) -> bool:
        """Whether looking needs no transaction: what it reads is not moved by being told."""
        return self.kinds == {"inbox"}


WaitResult: TypeAlias = tuple[str, posts.PostPage | leases.LeasePage | tasks.NextTask]
"""What ends a wait: its kind, and what the read tool of that kind would answer."""


def begin_wait(
    conn: Connection, ctx: Ctx, kind: str = "any", *, surface: str | None = None, take: bool = False
) -> WaitRequest:
    """Take a place among those who wait; `end` gives it back.

    Args:
        kind: one of KINDS; `any` is inbox, acks and task, and lease where a surface is given.
    Raises:
        BusError: `invalid_argument`.
    """
    if kind not in WAIT_KINDS:
        raise InvalidArgument(f"kind must be one of: {', '.join(WAIT_KINDS)}.")
    if kind == "lease" and surface is None:
        raise InvalidArgument('kind "lease" needs surface: the file or glob to wait for.')
    if surface is not None and kind not in ("lease", "any"):
        raise InvalidArgument(f'surface goes with kind "lease" or "any", not with "{kind}"; leave it out.')
    if take and kind not in ("task", "any"):
        raise InvalidArgument(f'take goes with kind "task" or "any", not with "{kind}"; leave it out.')
    wanted = None if surface is None else surfaces.normalise(surface)
    kinds = {"inbox", "acks", "task"} if kind == "any" else {kind}
    if wanted is None:
        return WaitRequest(ctx, frozenset(kinds), take=take)
    # Whoever was told, or went away without a word, leaves a place behind: it goes when the next one comes.
    conn.execute(
        "DELETE FROM waiter WHERE project_id = %s AND alive_until < clock_timestamp() - interval '1 minute'",
        (ctx.project_id,),
    )
    (place,) = conn.fetch_one(
        "INSERT INTO waiter (project_id, participation_id, surface, alive_until)"
        " SELECT c.project_id, %s, %s, clock_timestamp() + make_interval(secs => %s) FROM bus_authenticate(%s, %s, false) c"
        " RETURNING id",
        (ctx.participation_id, wanted, QUEUE_POSITION_TTL_SECONDS, ctx.participation_id, ctx.token_id),
    )
    return WaitRequest(ctx, frozenset(kinds | {"lease"}), wanted, take, place)


def end_waits(conn: Connection, requests: Sequence[WaitRequest]) -> None:
    """Give places in line back; one that was told keeps the others off until its grace has passed."""
    places = sorted(wait.queue_position for wait in requests if wait.queue_position is not None)
    if places:
        conn.execute(
            "DELETE FROM waiter WHERE project_id = ANY (%s) AND id = ANY (%s) AND told_at IS NULL",
            (sorted({wait.ctx.project_id for wait in requests}), places),
        )


def renew(conn: Connection, requests: Sequence[WaitRequest]) -> None:
    """Say that these calls still wait."""
    held = [wait for wait in requests if wait.queue_position is not None]
    projects = sorted({wait.ctx.project_id for wait in held})
    if projects:
        conn.execute(
            "UPDATE waiter SET alive_until = clock_timestamp() + make_interval(secs => %s)"
            " WHERE project_id = ANY (%s) AND id = ANY (%s) AND told_at IS NULL",
            (
                QUEUE_POSITION_TTL_SECONDS,
                projects,
                sorted(wait.queue_position for wait in held if wait.queue_position is not None),
            ),
        )


def poll(conn: Connection, request: WaitRequest) -> WaitResult | None:
    """What the caller waits for, if it is there. Call it inside a transaction, but for `is_one_statement`.

    Raises:
        NotAuthenticated, OwnerSuspended: the caller may no longer call.
    """
    ctx = request.ctx
    if "inbox" in request.kinds:
        inbox = posts.list_posts(conn, ctx, to_me=True, unacked_only=True)
        if inbox.posts:
            return "inbox", inbox
    if "acks" in request.kinds:
        acked = _find_newly_acked(conn, ctx)
        if acked is not None:
            return "acks", acked
    if "task" in request.kinds:
        found = tasks.start_next(conn, ctx) if request.take else tasks.offer_next(conn, ctx, TASK_OFFER_SECONDS)
        if found.task is not None:
            return "task", found
    if request.surface is not None and _try_take_turn(conn, request):
        return "lease", leases.LeasePage([], None, 0)
    return None


def _find_newly_acked(conn: Connection, ctx: Ctx) -> posts.PostPage | None:
    """The caller's posts that others acked since it was last told, each ack once."""
    # The cursor is locked first and everything else is read afterwards, as in whats_new.
    conn.execute(
        "INSERT INTO ack_cursor (project_id, participation_id, seq)"
        " SELECT c.project_id, %s, greatest(k.last_seq - %s, 0) FROM bus_authenticate(%s, %s, false) c"
        " JOIN project_clock k ON k.project_id = c.project_id ON CONFLICT DO NOTHING",
        (ctx.participation_id, _INITIAL_ACK_WINDOW, ctx.participation_id, ctx.token_id),
    )
    (start,) = conn.fetch_one(
        "SELECT seq FROM ack_cursor WHERE project_id = %s AND participation_id = %s FOR UPDATE",
        (ctx.project_id, ctx.participation_id),
    )
    seen, found = start, []
    while True:
        rows = conn.fetch_all(
            "SELECT a.seq, o.id FROM (SELECT e.seq, e.participation_id, (e.payload ->> 'post_id')::bigint AS post_id"
            " FROM event e WHERE e.project_id = %(project)s AND e.type = 'ack' AND e.seq > %(seen)s"
            " ORDER BY e.seq LIMIT %(batch)s) AS a LEFT JOIN post o ON o.project_id = %(project)s AND o.id = a.post_id"
            " AND o.participation_id = %(me)s AND a.participation_id <> %(me)s ORDER BY a.seq",
            {"project": ctx.project_id, "seen": seen, "me": ctx.participation_id, "batch": _BATCH_SIZE},
        )
        if not rows:
            break
        seen = rows[-1][0]
        found += [post_id for _, post_id in rows if post_id is not None]
        if len(rows) < _BATCH_SIZE or found:
            break
    if seen > start:
        conn.execute(
            "UPDATE ack_cursor SET seq = %s WHERE project_id = %s AND participation_id = %s",
            (seen, ctx.project_id, ctx.participation_id),
        )
    return posts.list_by_id(conn, ctx, sorted(set(found))) if found else None


def _try_take_turn(conn: Connection, request: WaitRequest) -> bool:
    """Whether the surface is free and the caller the first in line for it; then it is told, and keeps others off."""
    assert request.surface is not None
    if not leases.is_free(conn, request.ctx, request.surface):
        return False
    before = conn.fetch_all(
        "SELECT surface FROM waiter WHERE project_id = %s AND id < %s AND participation_id <> %s AND CASE"
        " WHEN told_at IS NULL THEN alive_until > clock_timestamp()"
        " ELSE told_at > clock_timestamp() - make_interval(secs => %s) END",
        (request.ctx.project_id, request.queue_position, request.ctx.participation_id, LEASE_GRACE_SECONDS),
    )
    if any(surfaces.overlaps(request.surface, surface) for (surface,) in before):
        return False
    conn.execute(
        "UPDATE waiter SET told_at = clock_timestamp() WHERE project_id = %s AND id = %s",
        (request.ctx.project_id, request.queue_position),
    )
    return True


def find_ready(conn: Connection, requests: Sequence[WaitRequest]) -> list[WaitRequest]:
    """Those who may have news, or may no longer wait at all. One statement, however many wait."""
    if not requests:
        return []
    rows = conn.fetch_all(
        _READY_SQL,
        {
            "projects": [wait.ctx.project_id for wait in requests],
            "participations": [wait.ctx.participation_id for wait in requests],
            "tokens": [wait.ctx.token_id for wait in requests],
            "inbox": ["inbox" in wait.kinds for wait in requests],
            "acks": ["acks" in wait.kinds for wait in requests],
            "task": ["task" in wait.kinds for wait in requests],
            "surfaces": [wait.surface for wait in requests],
            "prefixes": [None if wait.surface is None else surfaces.literal_prefix(wait.surface) for wait in requests],
        },
    )
    return [requests[number - 1] for (number,) in rows]


# Any ack is looked at, since which are acks of the caller's posts would have to be found out one by one.
# A surface that somebody else still holds under the very same name is not free; every other case is looked at.
_READY_SQL = """
    SELECT w.n FROM unnest(%(projects)s::bigint[], %(participations)s::bigint[], %(tokens)s::bigint[],
                           %(inbox)s::boolean[], %(acks)s::boolean[], %(task)s::boolean[], %(surfaces)s::text[],
                           %(prefixes)s::text[])
           WITH ORDINALITY AS w (project_id, me, token_id, inbox, acks, task, surface, prefix, n)
    WHERE (w.inbox AND EXISTS (
            SELECT FROM delivery d WHERE d.project_id = w.project_id AND d.participation_id = w.me
              AND d.acked_at IS NULL))
       OR (w.acks AND (
            SELECT e.seq FROM event e WHERE e.project_id = w.project_id AND e.type = 'ack' ORDER BY e.seq DESC LIMIT 1
           ) > coalesce((SELECT k.seq FROM ack_cursor k
                         WHERE k.project_id = w.project_id AND k.participation_id = w.me), 0))
       OR (w.task AND EXISTS (
            SELECT FROM task t
            WHERE t.project_id = w.project_id AND t.status IN ('open', 'assigned') AND t.open_blockers = 0
              AND (t.participation_id IS NULL OR t.participation_id = w.me)
              AND (t.offered_until IS NULL OR t.offered_until <= clock_timestamp())))
       OR (w.surface IS NOT NULL AND NOT EXISTS (
            SELECT FROM lease l
            WHERE l.project_id = w.project_id AND l.prefix = w.prefix AND l.surface = w.surface
              AND l.participation_id <> w.me AND l.ended_at IS NULL AND l.expires_at > clock_timestamp()))
       OR NOT EXISTS (
            SELECT FROM participation p JOIN participant pt ON pt.id = p.participant_id
            JOIN project pj ON pj.id = p.project_id JOIN owner o ON o.id = pt.owner_id
            WHERE p.id = w.me AND p.removed_at IS NULL AND pt.removed_at IS NULL AND pj.purging_at IS NULL
              AND o.suspended_at IS NULL AND (w.token_id IS NULL OR EXISTS (
                SELECT FROM token t WHERE t.id = w.token_id AND bus_token_is_live(t.revoked_at, t.expires_at))))
    ORDER BY w.n
"""


@dataclass(frozen=True, slots=True)
class SubscriptionState:
    """What somebody who watches a project was told last.

    Attributes:
        seq: the last event.
        inbox: how many posts wait (up to 100) and which is the newest; 0 where none does.
        is_admin: whether it is shown the tools of a project-admin.
    """

    ctx: Ctx
    last_seq: int
    inbox: tuple[int, int]
    is_admin: bool


@dataclass(frozen=True, slots=True)
class SubscriptionChange:
    """What is new for a watch: the state to watch from, and the types of the events in between."""

    state: SubscriptionState
    event_types: frozenset[str]


def fetch_changes(conn: Connection, states: Sequence[SubscriptionState]) -> list[SubscriptionChange | None]:
    """What is new for each of them; None for who may no longer watch. One statement, however many there are.

    Of a long absence only the types of the newest 500 events are told.
    """
    rows = conn.fetch_all(
        _CHANGES_SQL,
        {
            "projects": [watch.ctx.project_id for watch in states],
            "participations": [watch.ctx.participation_id for watch in states],
            "tokens": [watch.ctx.token_id for watch in states],
            "seqs": [watch.last_seq for watch in states],
        },
    )
    found: list[SubscriptionChange | None] = [None] * len(states)
    for number, is_admin, seq, waiting_, newest, types in rows:
        ctx = states[number - 1].ctx
        found[number - 1] = SubscriptionChange(
            SubscriptionState(ctx, seq, (waiting_, newest), is_admin), frozenset(types)
        )
    return found


def begin_subscription(conn: Connection, ctx: Ctx) -> SubscriptionState | None:
    """A watch that begins now; None for who may not watch."""
    (now,) = fetch_changes(conn, [SubscriptionState(ctx, MAX_INTEGER, (0, 0), False)])
    return now.state if now is not None else None


_CHANGES_SQL = """
    SELECT w.n, p.is_admin, k.last_seq, inbox.waiting, inbox.newest,
           ARRAY(SELECT DISTINCT e.type FROM (
                SELECT e.type FROM event e WHERE e.project_id = w.project_id AND e.seq > w.seq
                ORDER BY e.seq DESC LIMIT 500) AS e)
    FROM unnest(%(projects)s::bigint[], %(participations)s::bigint[], %(tokens)s::bigint[], %(seqs)s::bigint[])
         WITH ORDINALITY AS w (project_id, me, token_id, seq, n)
    JOIN participation p ON p.id = w.me AND p.removed_at IS NULL
    JOIN participant pt ON pt.id = p.participant_id AND pt.removed_at IS NULL
    JOIN project pj ON pj.id = p.project_id AND pj.purging_at IS NULL
    JOIN owner o ON o.id = pt.owner_id AND o.suspended_at IS NULL
    JOIN project_clock k ON k.project_id = w.project_id
    CROSS JOIN LATERAL (
        SELECT count(*)::integer AS waiting, coalesce(max(d.post_id), 0) AS newest FROM (
            SELECT d.post_id FROM delivery d
            WHERE d.project_id = w.project_id AND d.participation_id = w.me AND d.acked_at IS NULL
            ORDER BY d.post_id DESC LIMIT 100) AS d) AS inbox
    WHERE w.token_id IS NULL OR EXISTS (
        SELECT FROM token t WHERE t.id = w.token_id AND bus_token_is_live(t.revoked_at, t.expires_at))
    ORDER BY w.n
"""
