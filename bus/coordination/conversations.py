"""Handoffs as people follow them: a post with its answers, and how far each recipient has come with it."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from bus import limits
from bus.coordination import posts
from bus.coordination.posts import Post
from bus.ctx import Ctx
from bus.db import Connection

# Shown of a thread at most; longer ones end with the newest.
MAX_POSTS = 200
MAX_RECIPIENTS = 20
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class RecipientStatus:
    """How far one recipient has come: `queued` (nothing has shown it yet), `surfaced` or `acked`, and since when."""

    actor: str
    state: str
    since: datetime | None


@dataclass(frozen=True, slots=True)
class DeliveryProgress:
    """How far a post has come.

    Attributes:
        recipients: at most RECIPIENTS, those who have not acked first.
        total: how many there are.
        unacked: how many of them have not acked.
        ack_due_at: until when its sender wanted an ack.
        overdue: whether that has passed without one.
        replies: how many answers it has, counted up to 100.
    """

    recipients: list[RecipientStatus]
    recipient_count: int
    unacked_count: int
    ack_due_at: datetime | None
    is_overdue: bool
    reply_count: int


_DELIVERY_PROGRESS_SQL = """
    SELECT o.id, counted.n, counted.unacked, o.ack_due_at,
           coalesce(o.ack_due_at < clock_timestamp() AND o.acked_at IS NULL, false),
           (SELECT count(*) FROM (SELECT FROM post r WHERE r.project_id = o.project_id AND r.reply_to = o.id LIMIT 100)
             AS answers),
           ARRAY(SELECT jsonb_build_array(
                    bus_participation_name(d.participation_id),
                    CASE WHEN d.acked_at IS NOT NULL THEN 'acked' WHEN d.surfaced_at IS NOT NULL THEN 'surfaced'
                         ELSE 'queued' END,
                    bus_epoch_milliseconds(coalesce(d.acked_at, d.surfaced_at)))
                 FROM delivery d WHERE d.project_id = o.project_id AND d.post_id = o.id
                 ORDER BY d.acked_at IS NOT NULL, d.participation_id LIMIT %(recipients)s)
    FROM post o
    CROSS JOIN LATERAL (
        SELECT count(*) AS n, count(*) FILTER (WHERE d.acked_at IS NULL) AS unacked
        FROM delivery d WHERE d.project_id = o.project_id AND d.post_id = o.id) AS counted
    WHERE o.project_id = %(project)s AND o.id = ANY (%(ids)s)
"""


def get_delivery_progress(conn: Connection, ctx: Ctx, post_ids: Sequence[int]) -> dict[int, DeliveryProgress]:
    """How far posts of the caller's project have come, by their ids."""
    rows = conn.fetch_all(
        _DELIVERY_PROGRESS_SQL, {"project": ctx.project_id, "ids": list(post_ids), "recipients": MAX_RECIPIENTS}
    )
    return {
        post_id: DeliveryProgress(
            [RecipientStatus(actor, state, _from_milliseconds(since)) for actor, state, since in recipients],
            total,
            unacked,
            due,
            overdue,
            replies,
        )
        for post_id, total, unacked, due, overdue, replies, recipients in rows
    }


def list_conversation(conn: Connection, ctx: Ctx, post_id: int) -> list[Post]:
    """The thread that a post is part of, oldest first, at most MOST posts; empty where there is no such post.

    An answer to an answer belongs to the thread too.
    """
    rows = conn.fetch_all(
        "WITH RECURSIVE up (id, reply_to, depth) AS ("
        "  SELECT o.id, o.reply_to, 0 FROM post o WHERE o.project_id = %(project)s AND o.id = %(post)s"
        "  UNION ALL SELECT o.id, o.reply_to, up.depth + 1 FROM up"
        "    JOIN post o ON o.project_id = %(project)s AND o.id = up.reply_to WHERE up.depth < %(most)s),"
        " down (id, depth) AS ("
        "  (SELECT up.id, 0 FROM up ORDER BY up.depth DESC LIMIT 1)"
        "  UNION ALL SELECT o.id, down.depth + 1 FROM down"
        "    JOIN post o ON o.project_id = %(project)s AND o.reply_to = down.id WHERE down.depth < %(most)s)"
        # What was taken is enough to know: a recursion is not run further than its reader asks.
        " SELECT id FROM (SELECT id FROM down LIMIT %(scanned)s) AS found ORDER BY id DESC LIMIT %(most)s",
        {"project": ctx.project_id, "post": post_id, "most": MAX_POSTS, "scanned": 5 * MAX_POSTS},
    )
    ids = [number for (number,) in rows]
    found: list[Post] = []
    # A page of posts is bounded by its bytes too, so a long thread takes several.
    while ids:
        page = posts.list_by_id(conn, ctx, ids[: limits.MAX_POSTS_PER_ACK]).posts
        if not page:
            break
        found += page
        ids = [number for number in ids if number < page[-1].post_id]
    return found[::-1]


def _from_milliseconds(ms: int | None) -> datetime | None:
    return None if ms is None else _EPOCH + timedelta(milliseconds=ms)
