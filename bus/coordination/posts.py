"""Posts to a lane or a participant, and their acknowledgement. The interface calls them handoffs."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cached_property

import msgspec

from bus import limits
from bus.coordination import text_search
from bus.coordination.give_back import CursorMove
from bus.coordination.idempotency import validate_and_fingerprint
from bus.coordination.post_titles import build_title
from bus.ctx import Ctx
from bus.db import Connection
from bus.errors import BusError, InvalidArgument
from bus.rules import validation
from bus.tenancy import participants
from bus.tenancy.authentication import fetch_as_caller


@dataclass(frozen=True, slots=True)
class CreatedPost:
    """A delivered post.

    Attributes:
        post_id: the number of its event.
        recipients: the number of its deliveries.
        reach: names of recipients that can be reached `now`, at their next tool call (`next_step`) and at their
            `next_turn`; at most 20. None if all of them only at their next turn.
    """

    post_id: int
    created_at: datetime
    recipients: int
    unread: int
    reach: dict[str, list[str]] | None = None


class DeliveryCounts(msgspec.Struct, frozen=True):
    """The recipients of a post by delivery state; each is in one of the three.

    Attributes:
        queued: not shown to the recipient yet.
        surfaced: shown in a result and not acked. May lag by two seconds.
    """

    queued: int
    surfaced: int
    acked: int


class Post(msgspec.Struct, frozen=True, rename={"sender": "from"}):
    """A post as one caller sees it, decoded from the JSON that PostgreSQL makes (bus_post_page).

    Attributes:
        sender: qualified name.
        acked: whether the caller has acked it, if it was delivered to the caller; else whether anyone has.
        body_length: the number of characters of the body if `body` is only its beginning; else None.
        acked_by: the participants who have acked it, oldest ack first, at most 50.
        deliveries: for its sender; None for others.
        taken_by: the label of the session of the caller's participation that acked it, if that is another one.
    """

    post_id: int
    sender: str
    to_lane: str | None
    to_actor: str | None
    subject: str | None
    body: str
    ref: str | None
    tag: str | None
    created_at: datetime
    acked: bool
    body_length: int | None = None
    reply_to: int | None = None
    acked_by: list[str] = []
    deliveries: DeliveryCounts | None = None
    taken_by: str | None = None

    @property
    def title(self) -> str:
        """The subject, else the beginning of the first line of the body."""
        return build_title(self.subject, self.body)


@dataclass(frozen=True)
class PostPage:
    """A page of posts, newest first; `next_before` asks for the next page.

    Attributes:
        posts_json: the posts as a JSON array, which a process that shows them passes on without decoding it.
        has_cut_bodies: whether a body is only its beginning; `body_length` is then its whole length.
        surfacing: ids of those that were delivered to the caller and have not been shown to its session before. A
            process that shows them passes them to surfacing.mark_surfaced.
        cursor_move: the move of the ack cursor past the acks of these posts, to undo if the answer does not reach the
            client; None if there was none.
    """

    posts_json: str = "[]"
    next_before: int | None = None
    unread: int = 0
    has_cut_bodies: bool = False
    surfacing: list[int] = field(default_factory=list)
    cursor_move: CursorMove | None = None

    @cached_property
    def posts(self) -> list[Post]:
        """The posts."""
        return _posts_decoder.decode(self.posts_json)


_posts_decoder = msgspec.json.Decoder(list[Post])


@dataclass(frozen=True, slots=True)
class Ack:
    """The caller's first ack of a post.

    Attributes:
        taken_by: the label of the session of the caller's participation that acked it, if that is another one.
    """

    post_id: int
    acked_at: datetime
    taken_by: str | None = None


def create(
    conn: Connection,
    ctx: Ctx,
    body: str,
    *,
    to_lane: str | None = None,
    to_actor: str | None = None,
    subject: str | None = None,
    ref: str | None = None,
    tag: str | None = None,
    reply_to: int | None = None,
    ack_within_seconds: int | None = None,
    idempotency_key: str | None = None,
) -> CreatedPost:
    """Post to a lane, to a participant, or to both (one delivery per recipient).

    Args:
        body: 1 to 8000 characters; never written to the ledger.
        to_lane: its present members except the caller; later members receive the post while it is unacked.
        ref: the artifact that the post is about: a PR, a commit, an ADR.
        reply_to: the id of the post that this one answers.
        ack_within_seconds: 1 to 86400; after this time an unacked post is overdue.
    Raises:
        BusError: `invalid_argument` without an address; `unknown_recipient`; `not_found` for reply_to;
            `key_reuse`.
    Locks: the idempotency key, then the project clock (bus_post in sql/posts.sql).
    """
    validation.free_text(body, "body", limits.MAX_BODY_LENGTH)
    if to_lane is None and to_actor is None:
        raise InvalidArgument("A post needs an address; give to_lane or to_actor.")
    if to_lane is not None:
        to_lane = validation.name(to_lane, "to_lane")
    to_handle = to_label = None
    if to_actor is not None:
        to_handle, to_label = validation.qualified_name(to_actor, "to_actor")
    if subject is not None:
        validation.free_text(subject, "subject", limits.MAX_SUBJECT_LENGTH)
    if ref is not None:
        ref = validation.name(ref, "ref", limits.MAX_REF_LENGTH)
    if tag is not None:
        tag = validation.name(tag, "tag")
    if reply_to is not None:
        validation.integer(reply_to, "reply_to", 1, limits.MAX_INTEGER)
    if ack_within_seconds is not None:
        validation.integer(ack_within_seconds, "ack_within_seconds", 1, limits.MAX_DURATION_SECONDS)
    key, fingerprint = validate_and_fingerprint(
        "post",
        idempotency_key,
        body=body,
        to_lane=to_lane,
        to_actor=to_actor,
        subject=subject,
        ref=ref,
        tag=tag,
        reply_to=reply_to,
        ack_within_seconds=ack_within_seconds,
    )
    try:
        post_id, created_at, recipients, unread, reach = conn.fetch_one(
            "SELECT p.*, bus_reach(%s, p.post_id)"
            " FROM bus_post(%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s) p",
            (
                ctx.project_id,
                ctx.participation_id,
                ctx.token_id,
                body,
                to_lane,
                to_handle,
                None if to_label is None else validation.label_key(to_label),
                to_actor,
                subject,
                ref,
                tag,
                reply_to,
                ack_within_seconds,
                key,
                fingerprint,
                ctx.session,
            ),
        )
    except BusError as error:
        raise participants.with_suggestions(error) from None
    return CreatedPost(post_id=post_id, created_at=created_at, recipients=recipients, unread=unread, reach=reach)


def ack(conn: Connection, ctx: Ctx, post_ids: Sequence[int]) -> list[Ack]:
    """Acknowledge posts, all of them or none. Repeating an ack changes nothing and returns the first time.

    Args:
        post_ids: 1 to 100 posts of the project, addressed to the caller or to others.
    Raises:
        BusError: `not_found`, naming the ids that are not posts of this project.
    Locks: the project clock, then the deliveries (bus_ack_posts in sql/posts.sql).
    """
    if not 1 <= len(post_ids) <= limits.MAX_POSTS_PER_ACK:
        raise InvalidArgument(f"Ack from 1 to {limits.MAX_POSTS_PER_ACK} posts at once.")
    for post_id in post_ids:
        validation.integer(post_id, "post_id", 1, limits.MAX_INTEGER)
    rows = conn.fetch_all(
        "SELECT * FROM bus_ack_posts(%s, %s, %s::bigint[], %s)",
        (ctx.participation_id, ctx.token_id, list(post_ids), ctx.session),
    )
    acks = {post_id: Ack(post_id=post_id, acked_at=acked_at, taken_by=taken_by) for post_id, acked_at, taken_by in rows}
    return [acks[post_id] for post_id in dict.fromkeys(post_ids)]


# `{page_ids}` has at most `limit` + 1 ids; bus_post_page (sql/posts.sql) makes the JSON of the first `limit`.
_POSTS_SQL = """
    SELECT page.posts, page.next_before, page.has_cut_bodies, page.surfacing
    FROM (SELECT array_agg(p.id ORDER BY p.id DESC) AS ids FROM ({page_ids}) AS p) AS found
    CROSS JOIN LATERAL bus_post_page(%(project)s, %(me)s, found.ids, %(limit)s, %(page_bytes)s,
                                     %(whole_length)s, %(min_preview)s, %(max_preview)s, %(preview_budget)s,
                                     %(session)s) AS page
"""


def list_posts(
    conn: Connection,
    ctx: Ctx,
    *,
    to_lane: str | None = None,
    to_me: bool = False,
    tag: str | None = None,
    ref: str | None = None,
    unacked_only: bool = False,
    reply_to: int | None = None,
    text: str | None = None,
    post_ids: Sequence[int] | None = None,
    before: int | None = None,
    limit: int = 50,
    whole_bodies: bool = True,
) -> PostPage:
    """List posts of the project, newest first. Reading changes nothing.

    Args:
        to_me: only posts that were delivered to the caller: its inbox.
        unacked_only: only posts whose `acked` is false.
        text: only posts that contain all of its words, in subject, ref or body; a part in double quotes is a phrase.
        post_ids: only these posts; ids of other projects' posts are ignored.
        before: a post id; only older posts.
        limit: 1 to 200. A page ends early when its bodies together exceed limits.MAX_PAGE_BYTES.
        whole_bodies: whether bodies are whole also where those of the page together exceed
            limits.MAX_WHOLE_BODIES_LENGTH. Else each is cut after limits.MAX_PREVIEW_LENGTH characters, or fewer where
            the page has many, and `body_length` says how long it is.
    """
    filters = ["o.project_id = %(project)s"]
    if before is not None:
        validation.integer(before, "before", 1, limits.MAX_INTEGER)
        filters.append("o.id < %(before)s")
    if to_lane is not None:
        to_lane = validation.name(to_lane, "to_lane")
        filters.append("o.to_lane = %(to_lane)s")
    if tag is not None:
        tag = validation.name(tag, "tag")
        filters.append("o.tag = %(tag)s")
    if ref is not None:
        ref = validation.name(ref, "ref", limits.MAX_REF_LENGTH)
        filters.append("o.ref = %(ref)s")
    if reply_to is not None:
        validation.integer(reply_to, "reply_to", 1, limits.MAX_INTEGER)
        filters.append("o.reply_to = %(reply_to)s")
    if post_ids is not None:
        filters.append("o.id = ANY (%(ids)s)")
    validation.integer(limit, "limit", 1, 200)
    matches = None
    if text is not None:
        has_other_filters = len(filters) > 1 + (before is not None) or to_me or unacked_only
        candidate_count = text_search.MAX_CANDIDATES if has_other_filters else limit + 1
        matches = text_search.find_ids(conn, ctx.project_id, "post", text, before=before, limit=candidate_count)
        filters.append("o.id = ANY (%(matches)s)")
    page = _fetch_page(
        conn,
        ctx,
        _build_page_ids_sql(filters, to_me, unacked_only),
        to_lane=to_lane,
        tag=tag,
        ref=ref,
        reply_to=reply_to,
        ids=None if post_ids is None else list(post_ids),
        matches=matches,
        before=before,
        limit=limit,
        whole_bodies=whole_bodies,
    )
    if matches is not None and len(matches) == text_search.MAX_CANDIDATES and page.next_before is None:
        # Older posts may match as well.
        page = replace(page, next_before=matches[-1])
    return page


def list_by_id(conn: Connection, ctx: Ctx, post_ids: Sequence[int], *, whole_bodies: bool = True) -> PostPage:
    """List the newest of the given posts, as many as a page holds; ids of other projects' posts are ignored."""
    return list_posts(conn, ctx, post_ids=post_ids, limit=limits.MAX_POSTS_PER_ACK, whole_bodies=whole_bodies)


def _fetch_page(conn: Connection, ctx: Ctx, page_ids_sql: str, *, whole_bodies: bool, **params: object) -> PostPage:
    unread, rows = fetch_as_caller(
        conn,
        ctx,
        _POSTS_SQL.format(page_ids=page_ids_sql),
        "1",
        page_bytes=limits.MAX_PAGE_BYTES if whole_bodies else limits.MAX_CUT_PAGE_BYTES,
        whole_length=None if whole_bodies else limits.MAX_WHOLE_BODIES_LENGTH,
        min_preview=limits.MIN_PREVIEW_LENGTH,
        max_preview=limits.MAX_PREVIEW_LENGTH,
        preview_budget=limits.PREVIEW_BUDGET,
        session=ctx.session,
        **params,
    )
    if not rows:
        return PostPage(unread=unread)
    ((posts_json, next_before, has_cut_bodies, surfacing),) = rows
    return PostPage(posts_json, next_before, unread, has_cut_bodies, surfacing or [])


def _build_page_ids_sql(filters: list[str], to_me: bool, unacked_only: bool) -> str:
    """Build SQL for the ids of a page. Each variant reads index ranges that end in the post's id."""
    where = " AND ".join(filters)
    order = "ORDER BY id DESC LIMIT %(limit)s + 1"
    delivered_to_me = (
        "SELECT d.post_id AS id FROM delivery d"
        # Without further filters the posts need not be read to find the page.
        + (" JOIN post o ON o.project_id = d.project_id AND o.id = d.post_id" if len(filters) > 1 else "")
        + " WHERE d.project_id = %(project)s AND d.participation_id = %(me)s AND "
        + (f"{where} AND " if len(filters) > 1 else "")
        + ("d.post_id < %(before)s AND " if "o.id < %(before)s" in filters else "")
    )
    if to_me:
        return f"{delivered_to_me} {'d.acked_at IS NULL' if unacked_only else 'd.addressed'} {order}"
    if unacked_only:
        # Posts without any ack, and posts that the caller has not acked although another recipient has. A sender's
        # ack of its own post confirms nothing, so such a post counts as unacked for all but its sender.
        without_any_ack = (
            f"SELECT o.id FROM post o WHERE {where} AND o.acked_at IS NULL AND (o.participation_id <> %(me)s OR"
            # A scalar subquery: for NOT EXISTS PostgreSQL would hash the deliveries of all projects.
            " (SELECT own.acked_at FROM delivery own WHERE own.project_id = o.project_id AND own.post_id = o.id"
            " AND own.participation_id = o.participation_id) IS NULL)"
        )
        unacked_by_me = f"{delivered_to_me} d.acked_at IS NULL"
        return f"SELECT id FROM (({without_any_ack} {order}) UNION ({unacked_by_me} {order})) AS unacked {order}"
    return f"SELECT o.id FROM post o WHERE {where} {order}"
