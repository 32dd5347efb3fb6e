"""Conversations: a post with its replies, and the progress of each delivery."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime

from bus import limits
from bus.coordination import post_titles, posts
from bus.coordination.posts import Post
from bus.ctx import Ctx
from bus.db import Connection
from bus.db.capped_count import capped_count
from bus.db.timestamps import from_epoch_milliseconds

# A longer conversation is cut at its newest posts.
MAX_POSTS = 200
MAX_RECIPIENTS = 20
_REPLY_COUNT_CAP = 100


@dataclass(frozen=True, slots=True)
class RecipientStatus:
    """The state of one delivery: `queued` (not shown yet), `surfaced` or `acked`, and since when."""

    actor: str
    state: str
    since: datetime | None


@dataclass(frozen=True, slots=True)
class DeliveryProgress:
    """The deliveries of a post.

    Attributes:
        recipients: at most MAX_RECIPIENTS, those who have not acked first.
        recipient_count, unacked_count: the number of recipients, and of those who have not acked.
        ack_due_at: the deadline that the sender set.
        is_overdue: whether the deadline has passed without an ack.
        reply_count: counted up to 100.
    """

    recipients: list[RecipientStatus]
    recipient_count: int
    unacked_count: int
    ack_due_at: datetime | None
    is_overdue: bool
    reply_count: int


_REPLY_COUNT_SQL = capped_count("FROM post r WHERE r.project_id = o.project_id AND r.reply_to = o.id", _REPLY_COUNT_CAP)
_DELIVERY_PROGRESS_SQL = f"""
    SELECT o.id, counted.recipients, counted.unacked, o.ack_due_at,
           coalesce(o.ack_due_at < clock_timestamp() AND o.acked_at IS NULL, false), {_REPLY_COUNT_SQL},
           ARRAY(SELECT jsonb_build_array(
                    bus_participation_name(d.participation_id),
                    CASE WHEN d.acked_at IS NOT NULL THEN 'acked' WHEN d.surfaced_at IS NOT NULL THEN 'surfaced'
                         ELSE 'queued' END,
                    bus_epoch_milliseconds(coalesce(d.acked_at, d.surfaced_at)))
                 FROM delivery d WHERE d.project_id = o.project_id AND d.post_id = o.id
                 ORDER BY d.acked_at IS NOT NULL, d.participation_id LIMIT {MAX_RECIPIENTS})
    FROM post o
    CROSS JOIN LATERAL (
        SELECT count(*) AS recipients, count(*) FILTER (WHERE d.acked_at IS NULL) AS unacked
        FROM delivery d WHERE d.project_id = o.project_id AND d.post_id = o.id) AS counted
    WHERE o.project_id = %(project)s AND o.id = ANY (%(ids)s)
"""


def get_delivery_progress(conn: Connection, ctx: Ctx, post_ids: Sequence[int]) -> dict[int, DeliveryProgress]:
    """Return the delivery progress of posts of the caller's project, by post id."""
    rows = conn.fetch_all(_DELIVERY_PROGRESS_SQL, {"project": ctx.project_id, "ids": list(post_ids)})
    return {
        post_id: DeliveryProgress(
            recipients=[
                RecipientStatus(actor=actor, state=state, since=_from_optional_milliseconds(since))
                for actor, state, since in recipients
            ],
            recipient_count=recipient_count,
            unacked_count=unacked_count,
            ack_due_at=ack_due_at,
            is_overdue=is_overdue,
            reply_count=reply_count,
        )
        for post_id, recipient_count, unacked_count, ack_due_at, is_overdue, reply_count, recipients in rows
    }


def get_titles(conn: Connection, ctx: Ctx, post_ids: Collection[int]) -> dict[int, str]:
    """Return the titles of posts of the caller's project, by post id; unknown ids are missing."""
    if not post_ids:
        return {}
    rows = conn.fetch_all(
        f"SELECT o.id, {post_titles.TITLE_SQL} FROM post o WHERE o.project_id = %(project)s AND o.id = ANY (%(ids)s)",
        {"project": ctx.project_id, "ids": sorted(post_ids)},
    )
    return dict(rows)


def list_conversation(conn: Connection, ctx: Ctx, post_id: int) -> list[Post]:
    """List the conversation that a post belongs to, oldest first, with replies to replies.

    Returns:
        At most MAX_POSTS posts, the newest ones; empty if there is no such post.
    """
    rows = conn.fetch_all(
        "WITH RECURSIVE up (id, reply_to, depth) AS ("
        "  SELECT o.id, o.reply_to, 0 FROM post o WHERE o.project_id = %(project)s AND o.id = %(post)s"
        "  UNION ALL SELECT o.id, o.reply_to, up.depth + 1 FROM up"
        "    JOIN post o ON o.project_id = %(project)s AND o.id = up.reply_to WHERE up.depth < %(limit)s),"
        " down (id, depth) AS ("
        "  (SELECT up.id, 0 FROM up ORDER BY up.depth DESC LIMIT 1)"
        "  UNION ALL SELECT o.id, down.depth + 1 FROM down"
        "    JOIN post o ON o.project_id = %(project)s AND o.reply_to = down.id WHERE down.depth < %(limit)s)"
        # PostgreSQL evaluates a recursion only as far as the outer query reads it.
        " SELECT id FROM (SELECT id FROM down LIMIT %(scan_limit)s) AS scanned ORDER BY id DESC LIMIT %(limit)s",
        {"project": ctx.project_id, "post": post_id, "limit": MAX_POSTS, "scan_limit": 5 * MAX_POSTS},
    )
    remaining_ids = [row_id for (row_id,) in rows]
    conversation: list[Post] = []
    # A page of posts is bounded by bytes as well, so a long conversation takes several.
    while remaining_ids:
        page = posts.list_by_id(conn, ctx, remaining_ids[: limits.MAX_POSTS_PER_ACK]).posts
        if not page:
            break
        conversation += page
        remaining_ids = [row_id for row_id in remaining_ids if row_id < page[-1].post_id]
    return conversation[::-1]


def _from_optional_milliseconds(milliseconds: int | None) -> datetime | None:
    return None if milliseconds is None else from_epoch_milliseconds(milliseconds)
