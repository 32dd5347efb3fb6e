"""Posts to a lane or a participant, and their acknowledgement. The interface calls them handoffs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from bus import limits
from bus.coordination.give_back import CursorMove
from bus.coordination.idempotency import validate_and_fingerprint
from bus.ctx import Ctx
from bus.db import Connection, Row
from bus.db.pagination import paginate
from bus.errors import BusError, InvalidArgument
from bus.rules import validation
from bus.tenancy import participants
from bus.tenancy.authentication import fetch_as_caller

_MAX_TITLE_LENGTH = 80
TITLE_SQL = f"coalesce(o.subject, left(split_part(btrim(o.body, E' \\t\\r\\n'), E'\\n', 1), {_MAX_TITLE_LENGTH}))"
"""SQL for the title of the post `o`, equal to `Post.title`."""


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


@dataclass(frozen=True, slots=True)
class DeliveryCounts:
    """The recipients of a post by delivery state; each is in one of the three.

    Attributes:
        queued: not shown to the recipient yet.
        surfaced: shown in a result and not acked. May lag by two seconds.
    """

    queued: int
    surfaced: int
    acked: int


@dataclass(frozen=True, slots=True)
class Post:
    """A post as one caller sees it.

    Attributes:
        sender: qualified name.
        acked: whether the caller has acked it, if it was delivered to the caller; else whether anyone has.
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
    reply_to: int | None
    created_at: datetime
    acked: bool
    acked_by: list[str]
    deliveries: DeliveryCounts | None
    taken_by: str | None = None

    @property
    def title(self) -> str:
        """The subject, else the beginning of the first line of the body."""
        return self.subject or self.body.strip(" \t\r\n").partition("\n")[0][:_MAX_TITLE_LENGTH]


@dataclass(frozen=True, slots=True)
class PostPage:
    """A page of posts, newest first; `next_before` asks for the next page.

    Attributes:
        surfacing: ids of those that were delivered to the caller and have not been shown to its session before. A
            process that shows them passes them to `mark_surfaced`.
        cursor_move: the move of the ack cursor past the acks of these posts, to undo if the answer does not reach the
            client; None if there was none.
    """

    posts: list[Post]
    next_before: int | None
    unread: int
    surfacing: list[int] = field(default_factory=list)
    cursor_move: CursorMove | None = None


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
    Locks: the project clock, then the deliveries (bus_ack in sql/posts.sql).
    """
    if not 1 <= len(post_ids) <= limits.MAX_POSTS_PER_ACK:
        raise InvalidArgument(f"Ack from 1 to {limits.MAX_POSTS_PER_ACK} posts at once.")
    for post_id in post_ids:
        validation.integer(post_id, "post_id", 1, limits.MAX_INTEGER)
    rows = conn.fetch_all(
        "SELECT a.*, NULL::text FROM bus_ack(%(me)s, %(token)s, %(posts)s::bigint[]) a"
        if ctx.session is None
        else "SELECT a.*, bus_taken_by(%(project)s, %(me)s, a.post_id, %(session)s)"
        " FROM bus_ack(%(me)s, %(token)s, %(posts)s::bigint[], %(session)s) a",
        {
            "project": ctx.project_id,
            "me": ctx.participation_id,
            "token": ctx.token_id,
            "posts": list(post_ids),
            "session": ctx.session,
        },
    )
    acks = {post_id: Ack(post_id=post_id, acked_at=acked_at, taken_by=taken_by) for post_id, acked_at, taken_by in rows}
    return [acks[post_id] for post_id in dict.fromkeys(post_ids)]


_POSTS_SQL = """
    SELECT o.id, o.actor, o.to_lane, o.to_actor, o.subject, o.body, o.ref, o.tag, o.reply_to, o.created_at,
           CASE WHEN mine.addressed THEN mine.acked_at IS NOT NULL
                ELSE o.acked_at IS NOT NULL OR mine.acked_at IS NOT NULL END AS acked,
           ARRAY(SELECT bus_participation_name(d.participation_id) FROM delivery d
                 WHERE d.project_id = o.project_id AND d.post_id = o.id AND d.acked_at IS NOT NULL
                 ORDER BY d.acked_at, d.participation_id LIMIT 50) AS acked_by,
           CASE WHEN o.participation_id = %(me)s THEN (
                SELECT ARRAY[count(*) FILTER (WHERE d.acked_at IS NULL AND d.surfaced_at IS NULL),
                             count(*) FILTER (WHERE d.acked_at IS NULL AND d.surfaced_at IS NOT NULL),
                             count(*) FILTER (WHERE d.acked_at IS NOT NULL)]
                FROM delivery d WHERE d.project_id = o.project_id AND d.post_id = o.id AND d.addressed) END,
           {session_columns}
    FROM ({page_ids}) AS page
    JOIN post o ON o.project_id = %(project)s AND o.id = page.id
    LEFT JOIN delivery mine ON mine.project_id = o.project_id AND mine.post_id = o.id
                           AND mine.participation_id = %(me)s
    ORDER BY o.id DESC
"""


_WITHOUT_SESSION_SQL = (
    "mine.addressed AND mine.surfaced_at IS NULL AND mine.acked_at IS NULL AS is_surfacing, NULL::text AS taken_by"
)
_WITH_SESSION_SQL = """
    mine.addressed AND mine.acked_at IS NULL AND NOT EXISTS (
        SELECT FROM session_post h WHERE h.project_id = o.project_id AND h.participation_id = %(me)s
          AND h.key = %(session)s AND h.post_id = o.id) AS is_surfacing,
    CASE WHEN mine.acked_session <> %(session)s THEN bus_session_label(mine.acked_session) END AS taken_by
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
    before: int | None = None,
    limit: int = 50,
) -> PostPage:
    """List posts of the project, newest first. Reading changes nothing.

    Args:
        to_me: only posts that were delivered to the caller: its inbox.
        unacked_only: only posts whose `acked` is false.
        before: a post id; only older posts.
        limit: 1 to 200. A page ends early when its bodies together exceed limits.MAX_PAGE_BYTES.
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
    validation.integer(limit, "limit", 1, 200)
    unread, rows = fetch_as_caller(
        conn,
        ctx,
        _build_posts_sql(ctx, _build_page_ids_sql(filters, to_me, unacked_only)),
        "r.id DESC",
        session=ctx.session,
        to_lane=to_lane,
        tag=tag,
        ref=ref,
        reply_to=reply_to,
        before=before,
        limit=limit + 1,
    )
    return _build_page(rows, limit, unread)


def list_by_id(conn: Connection, ctx: Ctx, post_ids: Sequence[int]) -> PostPage:
    """List the newest of the given posts, as many as a page holds; ids of other projects' posts are ignored."""
    page_ids = (
        "SELECT o.id FROM post o WHERE o.project_id = %(project)s AND o.id = ANY (%(ids)s)"
        " ORDER BY id DESC LIMIT %(limit)s"
    )
    unread, rows = fetch_as_caller(
        conn,
        ctx,
        _build_posts_sql(ctx, page_ids),
        "r.id DESC",
        session=ctx.session,
        ids=list(post_ids),
        limit=limits.MAX_POSTS_PER_ACK + 1,
    )
    return _build_page(rows, limits.MAX_POSTS_PER_ACK, unread)


def _build_posts_sql(ctx: Ctx, page_ids: str) -> str:
    session_columns = _WITHOUT_SESSION_SQL if ctx.session is None else _WITH_SESSION_SQL
    return _POSTS_SQL.format(page_ids=page_ids, session_columns=session_columns)


def mark_surfaced(conn: Connection, seconds_since_surfaced: Mapping[tuple[int, int, int], float]) -> None:
    """Record which deliveries were shown to their recipients. The first time stands.

    Args:
        seconds_since_surfaced: ages by (project_id, participation_id, post_id); not times, since the host's clock may
            differ from PostgreSQL's.
    Locks: the deliveries; skips locked ones, which are being acked or withdrawn.
    """
    keys = sorted(seconds_since_surfaced)
    conn.execute(
        "UPDATE delivery d SET surfaced_at = clock_timestamp() - make_interval(secs => s.age)"
        " FROM unnest(%(projects)s::bigint[], %(participations)s::bigint[], %(posts)s::bigint[], %(ages)s::float8[])"
        " AS s (project_id, participation_id, post_id, age),"
        " LATERAL (SELECT o.ctid FROM delivery o WHERE o.project_id = s.project_id"
        "  AND o.participation_id = s.participation_id AND o.post_id = s.post_id AND o.surfaced_at IS NULL"
        "  FOR NO KEY UPDATE SKIP LOCKED) AS free"
        " WHERE d.ctid = free.ctid AND d.project_id = s.project_id",
        {
            "projects": [project for project, _, _ in keys],
            "participations": [participation for _, participation, _ in keys],
            "posts": [post for _, _, post in keys],
            "ages": [seconds_since_surfaced[key] for key in keys],
        },
    )


def _build_page(rows: list[Row], limit: int, unread: int) -> PostPage:
    page, has_more = paginate(rows, _count_rows_that_fit(rows[:limit]))
    posts, surfacing = [], []
    for row in page:
        (
            post_id,
            sender,
            to_lane,
            to_actor,
            subject,
            body,
            ref,
            tag,
            reply_to,
            created_at,
            acked,
            acked_by,
            deliveries,
            is_surfacing,
            taken_by,
        ) = row
        posts.append(
            Post(
                post_id=post_id,
                sender=sender,
                to_lane=to_lane,
                to_actor=to_actor,
                subject=subject,
                body=body,
                ref=ref,
                tag=tag,
                reply_to=reply_to,
                created_at=created_at,
                acked=acked,
                acked_by=acked_by,
                deliveries=None if deliveries is None else _build_delivery_counts(*deliveries),
                taken_by=taken_by,
            )
        )
        if is_surfacing:
            surfacing.append(post_id)
    return PostPage(
        posts=posts, next_before=posts[-1].post_id if has_more else None, unread=unread, surfacing=surfacing
    )


def _build_delivery_counts(queued: int, surfaced: int, acked: int) -> DeliveryCounts:
    return DeliveryCounts(queued=queued, surfaced=surfaced, acked=acked)


_BODY_COLUMN_INDEX = 5


def _count_rows_that_fit(rows: list[Row]) -> int:
    """Count the rows whose bodies together fit into limits.MAX_PAGE_BYTES; at least 1."""
    total_bytes = 0
    for index, row in enumerate(rows):
        total_bytes += len(row[_BODY_COLUMN_INDEX].encode())
        if total_bytes > limits.MAX_PAGE_BYTES:
            return max(index, 1)
    return max(len(rows), 1)


def _build_page_ids_sql(filters: list[str], to_me: bool, unacked_only: bool) -> str:
    """Build SQL for the ids of a page. Each variant reads index ranges that end in the post's id."""
    where = " AND ".join(filters)
    order = "ORDER BY id DESC LIMIT %(limit)s"
    delivered_to_me = (
        "SELECT d.post_id AS id FROM delivery d JOIN post o ON o.project_id = d.project_id AND o.id = d.post_id"
        f" WHERE d.project_id = %(project)s AND d.participation_id = %(me)s AND {where} AND "
    ) + ("d.post_id < %(before)s AND " if "o.id < %(before)s" in filters else "")
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
