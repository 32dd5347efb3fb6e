"""Long polls: what a waiting call waits for, whether it is ready, and the queue for a surface.

No function here waits. A gateway keeps the calls open, passes all of them to `find_ready` after a change notification
or at an interval, and polls those that are returned. Results are always read from PostgreSQL, so a notification that
is lost or arrives twice changes nothing.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from bus.coordination import give_back, leases, posts, tasks
from bus.coordination.give_back import CursorMove
from bus.ctx import Ctx
from bus.db import Connection
from bus.errors import InvalidArgument
from bus.rules import surfaces
from bus.scopes import includes
from bus.tenancy import authentication

WAIT_KINDS = ("inbox", "acks", "lease", "task", "any")
# The time in which the first in the queue can lease a surface that became free, before the next one is notified.
LEASE_GRACE_SECONDS = 2.0
# A queue position expires this long after its gateway last renewed it.
QUEUE_POSITION_TTL_SECONDS = 30.0
TASK_OFFER_SECONDS = 60.0
# The time in which a session acks a post that it was woken for, before another one is woken.
POST_OFFER_SECONDS = 60.0
_ACK_BATCH_SIZE = 500
_INITIAL_ACK_WINDOW = 100


@dataclass(frozen=True, slots=True)
class WaitRequest:
    """One waiting call.

    Attributes:
        kinds: what it waits for: some of inbox, acks, lease, task.
        surface: the normalised surface, if it waits for a lease.
        take: whether a task is started, and not only offered.
        queue_position: its position in the queue for a surface; positions rise in the order of arrival.
    """

    ctx: Ctx
    kinds: frozenset[str]
    surface: str | None = None
    take: bool = False
    queue_position: int | None = None

    @property
    def is_single_statement(self) -> bool:
        """Whether polling needs no transaction, since it changes nothing."""
        return self.kinds == {"inbox"} and self.ctx.session is None


WaitResult: TypeAlias = tuple[str, posts.PostPage | leases.LeasePage | tasks.NextTask]
"""The kind that ended a wait, and the result of the read tool of that kind."""


def begin_wait(
    conn: Connection, ctx: Ctx, kind: str = "any", *, surface: str | None = None, take: bool = False
) -> WaitRequest:
    """Validate a wait and enqueue it for its surface, if it has one; `end_waits` removes it from the queue.

    Args:
        kind: one of WAIT_KINDS; `any` is inbox, acks and task, and lease if a surface is given. With a token that may
            only read it is inbox and acks.
    Raises:
        BusError: `invalid_argument`.
        InsufficientScope: the token may only read, and the wait would keep others waiting: for a surface it takes a
            place in a queue, and a task is offered to a single caller at a time.
    """
    if kind not in WAIT_KINDS:
        raise InvalidArgument(f"kind must be one of: {', '.join(WAIT_KINDS)}.")
    if kind == "lease" and surface is None:
        raise InvalidArgument('kind "lease" needs surface: the file or glob to wait for.')
    if surface is not None and kind not in ("lease", "any"):
        raise InvalidArgument(f'surface goes with kind "lease" or "any", not with "{kind}"; leave it out.')
    if take and kind not in ("task", "any"):
        raise InvalidArgument(f'take goes with kind "task" or "any", not with "{kind}"; leave it out.')
    kinds = {"inbox", "acks", "task"} if kind == "any" else {kind}
    if not includes(ctx.scope, "write"):
        if take or surface is not None or kind in ("lease", "task"):
            authentication.require_scope(conn, ctx, "write")
        kinds -= {"task"}
    if surface is None:
        return WaitRequest(ctx, frozenset(kinds), take=take)
    surface = leases.normalise_for_project(conn, ctx, surface)
    # Notified and abandoned positions remain in the table until the next wait deletes them.
    conn.execute(
        "DELETE FROM waiter WHERE project_id = %s AND alive_until < clock_timestamp() - interval '1 minute'",
        (ctx.project_id,),
    )
    (queue_position,) = conn.fetch_one(
        "INSERT INTO waiter (project_id, participation_id, surface, alive_until, session_key)"
        " SELECT c.project_id, %s, %s, clock_timestamp() + make_interval(secs => %s), %s"
        " FROM bus_authenticate(%s, %s, false) c RETURNING id",
        (
            ctx.participation_id,
            surface,
            QUEUE_POSITION_TTL_SECONDS,
            ctx.session,
            ctx.participation_id,
            ctx.token_id,
        ),
    )
    return WaitRequest(ctx, frozenset(kinds | {"lease"}), surface=surface, take=take, queue_position=queue_position)


def end_waits(conn: Connection, requests: Sequence[WaitRequest]) -> None:
    """Remove waits from the queue. A notified wait keeps its position until its grace period has passed."""
    positions = _list_queue_positions(requests)
    if positions:
        conn.execute(
            "DELETE FROM waiter WHERE project_id = ANY (%s) AND id = ANY (%s) AND told_at IS NULL",
            (_list_project_ids(requests), positions),
        )


def renew(conn: Connection, requests: Sequence[WaitRequest]) -> None:
    """Extend the queue positions of waits that are still open."""
    positions = _list_queue_positions(requests)
    if positions:
        conn.execute(
            "UPDATE waiter SET alive_until = clock_timestamp() + make_interval(secs => %s)"
            " WHERE project_id = ANY (%s) AND id = ANY (%s) AND told_at IS NULL",
            (QUEUE_POSITION_TTL_SECONDS, _list_project_ids(requests), positions),
        )


def _list_queue_positions(requests: Sequence[WaitRequest]) -> list[int]:
    return sorted(request.queue_position for request in requests if request.queue_position is not None)


def _list_project_ids(requests: Sequence[WaitRequest]) -> list[int]:
    return sorted({request.ctx.project_id for request in requests if request.queue_position is not None})


def poll(conn: Connection, request: WaitRequest) -> WaitResult | None:
    """Return what the caller waits for if it is ready, else None.

    Call it inside a transaction unless `is_single_statement`.

    Raises:
        NotAuthenticated, OwnerSuspended: the caller has lost its access.
    """
    ctx = request.ctx
    if ctx.session is not None and "acks" in request.kinds:
        # Offering posts locks the clock, and no cursor is locked after it.
        conn.execute(
            "SELECT bus_session_cursor(c.project_id, %(me)s, %(session)s, true)"
            " FROM bus_authenticate(%(me)s, %(token)s, false) c",
            {"me": ctx.participation_id, "session": ctx.session, "token": ctx.token_id},
        )
    if "inbox" in request.kinds:
        inbox = _find_mail(conn, ctx)
        if inbox is not None:
            return "inbox", inbox
    if "acks" in request.kinds:
        newly_acked = _find_newly_acked(conn, ctx)
        if newly_acked is not None:
            return "acks", newly_acked
    if "task" in request.kinds:
        next_task = tasks.start_next(conn, ctx) if request.take else tasks.offer_next(conn, ctx, TASK_OFFER_SECONDS)
        if next_task.task is not None:
            return "task", next_task
    if request.surface is not None and _try_take_turn(conn, request):
        return "lease", leases.LeasePage(leases=[], next_before=None, unread=0)
    return None


def _find_mail(conn: Connection, ctx: Ctx) -> posts.PostPage | None:
    """Return the unacked posts that end the wait of a caller: of a session, those that it is to take up."""
    if ctx.session is None:
        inbox = posts.list_posts(conn, ctx, to_me=True, unacked_only=True, whole_bodies=False)
        return inbox if inbox.posts else None
    (post_ids,) = conn.fetch_one(
        "SELECT bus_offer_posts(%s, %s, %s, %s)",
        (
            ctx.participation_id,
            ctx.token_id,
            ctx.session,
            # A session that cannot ack keeps a post from no other session.
            POST_OFFER_SECONDS if includes(ctx.scope, "write") else 0.0,
        ),
    )
    return None if post_ids is None else posts.list_by_id(conn, ctx, post_ids, whole_bodies=False)


def give_back_result(conn: Connection, request: WaitRequest, result: WaitResult) -> None:
    """Give back what the end of a wait has taken, because its answer did not reach the client.

    Locks: the project clock, if a task was started.
    """
    kind, page = result
    if isinstance(page, tasks.NextTask):
        give_back_next_task(conn, request.ctx, page)
    elif isinstance(page, posts.PostPage) and page.cursor_move is not None:
        give_back.move_ack_cursor_back(conn, request.ctx, page.cursor_move)
    elif kind == "inbox" and isinstance(page, posts.PostPage):
        give_back.withdraw_post_offers(conn, request.ctx, [post.post_id for post in page.posts])
    elif kind == "lease" and request.queue_position is not None:
        give_back.leave_queue(conn, request.ctx, request.queue_position)


def give_back_next_task(conn: Connection, ctx: Ctx, next_task: tasks.NextTask) -> None:
    """Reopen the task that was started, or withdraw the offer.

    Locks: the project clock, if a task was started.
    """
    if isinstance(next_task.taken, give_back.TakenTask):
        give_back.give_back_task(conn, ctx, next_task.taken)
    elif next_task.taken is not None:
        give_back.withdraw_offer(conn, ctx, next_task.taken)


def _find_newly_acked(conn: Connection, ctx: Ctx) -> posts.PostPage | None:
    """Return the caller's posts that others acked after the ack cursor, and advance the cursor past those acks."""
    # The cursor is locked first and everything else is read afterwards, as in whats_new.
    cursor = _lock_ack_cursor(conn, ctx)
    last_read, post_ids = cursor, set[int]()
    # A session waits for acks of its own posts and of posts without a session, also by other sessions of its
    # participation.
    conditions = (
        " AND a.participation_id <> %(me)s"
        if ctx.session is None
        else " AND (a.participation_id <> %(me)s OR a.session_key <> %(session)s) AND coalesce((SELECT"
        " p.session_key FROM event p WHERE p.project_id = %(project)s AND p.seq = o.id) = %(session)s, true)"
    )
    while True:
        rows = conn.fetch_all(
            "SELECT a.seq, o.id FROM (SELECT e.seq, e.participation_id, e.session_key,"
            " (e.payload ->> 'post_id')::bigint AS post_id"
            " FROM event e WHERE e.project_id = %(project)s AND e.type = 'ack' AND e.seq > %(last_read)s"
            " ORDER BY e.seq LIMIT %(limit)s) AS a LEFT JOIN post o ON o.project_id = %(project)s AND o.id = a.post_id"
            f" AND o.participation_id = %(me)s{conditions} ORDER BY a.seq",
            {
                "project": ctx.project_id,
                "last_read": last_read,
                "me": ctx.participation_id,
                "session": ctx.session,
                "limit": _ACK_BATCH_SIZE,
            },
        )
        if not rows:
            break
        last_read = rows[-1][0]
        post_ids.update(post_id for _, post_id in rows if post_id is not None)
        if len(rows) < _ACK_BATCH_SIZE or post_ids:
            break
    if last_read > cursor:
        _advance_ack_cursor(conn, ctx, last_read)
    if not post_ids:
        return None
    page = posts.list_by_id(conn, ctx, sorted(post_ids))
    return dataclasses.replace(page, cursor_move=CursorMove(before=cursor, after=last_read))


def _lock_ack_cursor(conn: Connection, ctx: Ctx) -> int:
    """Lock the ack cursor of the caller, which begins 100 events before the end of the ledger, and return it."""
    if ctx.session is not None:
        (cursor,) = conn.fetch_one(
            "SELECT coalesce((SELECT k.ack_seq FROM session_cursor k WHERE k.project_id = %(project)s"
            " AND k.participation_id = %(me)s AND k.key = %(session)s FOR UPDATE), c.last_seq - %(window)s)"
            " FROM project_clock c WHERE c.project_id = %(project)s",
            {
                "project": ctx.project_id,
                "me": ctx.participation_id,
                "session": ctx.session,
                "window": _INITIAL_ACK_WINDOW,
            },
        )
        return max(int(cursor), 0)
    conn.execute(
        "INSERT INTO ack_cursor (project_id, participation_id, seq)"
        " SELECT c.project_id, %s, greatest(k.last_seq - %s, 0) FROM bus_authenticate(%s, %s, false) c"
        " JOIN project_clock k ON k.project_id = c.project_id ON CONFLICT DO NOTHING",
        (ctx.participation_id, _INITIAL_ACK_WINDOW, ctx.participation_id, ctx.token_id),
    )
    (cursor,) = conn.fetch_one(
        "SELECT seq FROM ack_cursor WHERE project_id = %s AND participation_id = %s FOR UPDATE",
        (ctx.project_id, ctx.participation_id),
    )
    return int(cursor)


def _advance_ack_cursor(conn: Connection, ctx: Ctx, seq: int) -> None:
    if ctx.session is None:
        conn.execute(
            "UPDATE ack_cursor SET seq = %s WHERE project_id = %s AND participation_id = %s",
            (seq, ctx.project_id, ctx.participation_id),
        )
    else:
        conn.execute(
            "UPDATE session_cursor SET ack_seq = %s WHERE project_id = %s AND participation_id = %s AND key = %s",
            (seq, ctx.project_id, ctx.participation_id, ctx.session),
        )


def _try_take_turn(conn: Connection, request: WaitRequest) -> bool:
    """Whether the surface is free and the request is first in its queue; if so, mark it as notified."""
    assert request.surface is not None
    if not leases.is_free(conn, request.ctx, request.surface):
        return False
    earlier = conn.fetch_all(
        "SELECT surface FROM waiter WHERE project_id = %s AND id < %s"
        " AND (participation_id <> %s OR NOT bus_is_same_session(session_key, %s)) AND CASE"
        " WHEN told_at IS NULL THEN alive_until > clock_timestamp()"
        " ELSE told_at > clock_timestamp() - make_interval(secs => %s) END",
        (
            request.ctx.project_id,
            request.queue_position,
            request.ctx.participation_id,
            request.ctx.session,
            LEASE_GRACE_SECONDS,
        ),
    )
    if any(surfaces.overlaps(request.surface, surface) for (surface,) in earlier):
        return False
    conn.execute(
        "UPDATE waiter SET told_at = clock_timestamp() WHERE project_id = %s AND id = %s",
        (request.ctx.project_id, request.queue_position),
    )
    return True


def find_ready(conn: Connection, requests: Sequence[WaitRequest]) -> list[WaitRequest]:
    """Return the requests that may be ready or have lost their access. One statement for any number of requests."""
    if not requests:
        return []
    rows = conn.fetch_all(
        _READY_SQL,
        {
            "projects": [request.ctx.project_id for request in requests],
            "participations": [request.ctx.participation_id for request in requests],
            "tokens": [request.ctx.token_id for request in requests],
            "sessions": [request.ctx.session for request in requests],
            "inbox": ["inbox" in request.kinds for request in requests],
            "acks": ["acks" in request.kinds for request in requests],
            "task": ["task" in request.kinds for request in requests],
            "surfaces": [request.surface for request in requests],
            "prefixes": [
                None if request.surface is None else surfaces.literal_prefix(request.surface) for request in requests
            ],
        },
    )
    return [requests[position - 1] for (position,) in rows]


# Any newer ack makes a request ready, since finding the acks of the caller's posts would take a lookup for each.
# A surface that another participant leases under the same text is not free; every other case is polled.
_READY_SQL = """
    SELECT w.n FROM unnest(%(projects)s::bigint[], %(participations)s::bigint[], %(tokens)s::bigint[],
                           %(inbox)s::boolean[], %(acks)s::boolean[], %(task)s::boolean[], %(surfaces)s::text[],
                           %(prefixes)s::text[], %(sessions)s::text[])
           WITH ORDINALITY AS w (project_id, me, token_id, inbox, acks, task, surface, prefix, session, n)
    WHERE (w.inbox AND EXISTS (
            SELECT FROM delivery d WHERE d.project_id = w.project_id AND d.participation_id = w.me
              AND d.acked_at IS NULL AND (w.session IS NULL
                OR coalesce(d.offered_until <= clock_timestamp() OR d.offered_session = w.session, true)
                   AND NOT EXISTS (
                    SELECT FROM session_post h WHERE h.project_id = d.project_id AND h.key = w.session
                      AND h.participation_id = d.participation_id AND h.post_id = d.post_id))))
       OR (w.acks AND (
            SELECT e.seq FROM event e WHERE e.project_id = w.project_id AND e.type = 'ack' ORDER BY e.seq DESC LIMIT 1
           ) > coalesce(CASE WHEN w.session IS NULL THEN (
                SELECT k.seq FROM ack_cursor k WHERE k.project_id = w.project_id AND k.participation_id = w.me)
           ELSE (
                SELECT k.ack_seq FROM session_cursor k WHERE k.project_id = w.project_id
                  AND k.participation_id = w.me AND k.key = w.session) END, 0))
       OR (w.task AND EXISTS (
            SELECT FROM task t
            WHERE t.project_id = w.project_id AND t.status IN ('open', 'assigned') AND t.open_blockers = 0
              AND (t.participation_id IS NULL OR t.participation_id = w.me)
              AND (t.offered_until IS NULL OR t.offered_until <= clock_timestamp())))
       OR (w.surface IS NOT NULL AND NOT EXISTS (
            SELECT FROM lease l
            WHERE l.project_id = w.project_id AND l.prefix = w.prefix AND l.surface = w.surface
              AND (l.participation_id <> w.me OR NOT bus_is_same_session(l.session_key, w.session))
              AND l.ended_at IS NULL AND l.expires_at > clock_timestamp()))
       OR NOT bus_has_access(w.me)
       OR w.token_id IS NOT NULL AND NOT EXISTS (
            SELECT FROM token t WHERE t.id = w.token_id AND bus_token_is_live(t.revoked_at, t.expires_at))
    ORDER BY w.n
"""
