"""The inbox of an owner: handoffs without an ack, blocked tasks and contended leases in the projects where it acts.

These are its own projects and those of other owners in which it is member or lead.

Each list holds at most MAX_ITEMS, and each count stops at COUNT_CAP, so reading costs in proportion to what is shown
and to the number of projects, at any length of the ledgers. Archived projects are left out: nothing in them can be
answered.
"""

from dataclasses import dataclass
from datetime import datetime

from bus.coordination import dashboard
from bus.coordination.dashboard import BlockedTask, ContendedSurface
from bus.coordination.post_titles import TITLE_SQL
from bus.db import Connection

MAX_ITEMS = 50
COUNT_CAP = 100
_MAX_EXCERPT_LENGTH = 100


@dataclass(frozen=True, slots=True)
class InboxPost:
    """A post that waits for an ack.

    Attributes:
        sender: qualified name.
        sender_is_person: whether the sender is a person rather than an agent.
        to_actor, to_lane: the address.
        excerpt: the beginning of the body, on one line.
        is_overdue: whether its deadline has passed.
        was_seen: whether it was shown to a recipient.
        is_for_me: whether it was delivered to the owner, who has not acked it.
        is_new_to_me: whether it was delivered to the owner and not shown before.
        my_participation_id: the owner's participation in the project, if there is one.
        reply_count: replies, counted up to COUNT_CAP.
    """

    project_id: int
    project_name: str
    post_id: int
    sender: str
    sender_is_person: bool
    to_actor: str | None
    recipient_is_person: bool
    to_lane: str | None
    title: str
    excerpt: str
    ref: str | None
    tag: str | None
    created_at: datetime
    ack_due_at: datetime | None
    is_overdue: bool
    was_seen: bool
    is_for_me: bool
    is_new_to_me: bool
    my_participation_id: int | None
    recipient_count: int
    reply_count: int


@dataclass(frozen=True, slots=True)
class InboxCounts:
    """The numbers beside the lists; each is counted up to COUNT_CAP, conflicts up to MAX_ITEMS."""

    for_me: int
    unanswered: int
    overdue: int
    blocked: int
    conflicts: int


# A viewer can answer nothing, so its projects are left out, as archived ones are.
_PROJECTS_SQL = (
    "(SELECT p.id, bus_project_name_for(%(owner)s, p.owner_id, p.name) AS name"
    " FROM bus_projects_of(%(owner)s) mine JOIN project p ON p.id = mine.project_id"
    " WHERE p.purging_at IS NULL AND p.archived_at IS NULL AND mine.role <> 'viewer'"
    " AND (%(project)s::bigint IS NULL OR p.id = %(project)s)) AS pj"
)
# The participation of the owner in the project `pj`: the participant with the empty label.
_MY_PARTICIPATION_SQL = """
    LEFT JOIN LATERAL (
        SELECT p.id FROM participant pt JOIN participation p ON p.participant_id = pt.id AND p.project_id = pj.id
        WHERE pt.owner_id = %(owner)s AND pt.label = '' AND p.removed_at IS NULL LIMIT 1) AS me ON true
"""
_UNANSWERED_SQL = "SELECT o.id FROM post o WHERE o.project_id = pj.id AND o.acked_at IS NULL"
_OVERDUE_SQL = (
    "SELECT o.id FROM post o WHERE o.project_id = pj.id AND o.ack_due_at IS NOT NULL AND o.acked_at IS NULL"
    " AND o.ack_due_at < clock_timestamp()"
)
_FOR_ME_SQL = (
    "SELECT d.post_id AS id FROM delivery d WHERE d.project_id = pj.id AND d.participation_id = me.id"
    " AND d.acked_at IS NULL"
)
# By index: in each project the first items of the list, which are then merged. Only the projects whose first item is
# among the first ones can contribute, so the number of rows read does not grow with the number of posts.
_HEADS_SQL = f"""
    SELECT pj.id, pj.name, me.id AS me FROM {_PROJECTS_SQL} {_MY_PARTICIPATION_SQL}
    CROSS JOIN LATERAL ({{ids}} ORDER BY {{order}} LIMIT 1) AS head
    JOIN post o ON o.project_id = pj.id AND o.id = head.id
    ORDER BY {{rank}} LIMIT {MAX_ITEMS}
"""
_POSTS_SQL = f"""
    SELECT pj.id AS project_id, pj.name AS project_name, o.id AS post_id, o.actor AS sender,
           coalesce((SELECT pt.kind = 'human' FROM participation p JOIN participant pt ON pt.id = p.participant_id
                     WHERE p.id = o.participation_id), false) AS sender_is_person,
           o.to_actor,
           coalesce((SELECT pt.kind = 'human' FROM participation p JOIN participant pt ON pt.id = p.participant_id
                     WHERE p.id = o.to_participation_id), false) AS recipient_is_person,
           o.to_lane, {TITLE_SQL} AS title,
           CASE WHEN o.subject IS NULL THEN ''
                ELSE left(regexp_replace(left(o.body, 4 * {_MAX_EXCERPT_LENGTH}), '\\s+', ' ', 'g'),
                          {_MAX_EXCERPT_LENGTH}) END AS excerpt,
           o.ref, o.tag, o.created_at, o.ack_due_at,
           coalesce(o.ack_due_at < clock_timestamp() AND o.acked_at IS NULL, false) AS is_overdue,
           EXISTS (SELECT FROM delivery d WHERE d.project_id = o.project_id AND d.post_id = o.id AND d.addressed
                   AND d.surfaced_at IS NOT NULL) AS was_seen,
           coalesce(mine.acked_at IS NULL AND mine.addressed, false) AS is_for_me,
           coalesce(mine.acked_at IS NULL AND mine.addressed AND mine.surfaced_at IS NULL, false) AS is_new_to_me,
           pj.me AS my_participation_id, o.recipients AS recipient_count,
           (SELECT count(*) FROM (SELECT FROM post r WHERE r.project_id = o.project_id AND r.reply_to = o.id
                                  LIMIT {COUNT_CAP}) AS reply) AS reply_count
    FROM ({{projects}}) AS pj
    CROSS JOIN LATERAL ({{ids}}) AS listed
    -- A subquery with an offset stays a lookup by key; otherwise PostgreSQL may hash the whole table.
    CROSS JOIN LATERAL (SELECT * FROM post o WHERE o.project_id = pj.id AND o.id = listed.id OFFSET 0) AS o
    LEFT JOIN delivery mine ON mine.project_id = o.project_id AND mine.post_id = o.id
                           AND mine.participation_id = pj.me
    ORDER BY {{rank}} LIMIT {MAX_ITEMS}
"""
# Overdue posts by deadline, then the others from the oldest on.
_RANK_SQL = (
    "(o.acked_at IS NULL AND o.ack_due_at < clock_timestamp()) IS NOT TRUE,"
    " CASE WHEN o.acked_at IS NULL AND o.ack_due_at < clock_timestamp() THEN o.ack_due_at ELSE o.created_at END,"
    " o.project_id, o.id"
)
_HEAD_ORDERS = {"unanswered": "o.id", "overdue": "o.ack_due_at", "for_me": "d.post_id"}
_SOURCES = {"unanswered": _UNANSWERED_SQL, "overdue": _OVERDUE_SQL, "for_me": _FOR_ME_SQL}
POST_LISTS = tuple(_SOURCES)
"""The lists of posts: without any ack, past their deadline, and delivered to the owner without the owner's ack."""


def list_posts(conn: Connection, owner_id: int, name: str, *, project_id: int | None = None) -> list[InboxPost]:
    """List posts of one of POST_LISTS in the owner's projects: overdue ones first, then from the oldest on.

    Args:
        conn: the connection.
        owner_id: the owner.
        name: one of POST_LISTS.
        project_id: only this project; one in which the owner does not act has no items.
    Returns:
        At most MAX_ITEMS.
    """
    source = _SOURCES[name]
    in_order = f"({source} ORDER BY {_HEAD_ORDERS[name]} LIMIT {MAX_ITEMS})"
    heads = _HEADS_SQL.format(ids=source, order=_HEAD_ORDERS[name], rank=_RANK_SQL)
    # Posts with a deadline precede older posts without one, so they are read by their own index.
    overdue = f"({_OVERDUE_SQL} ORDER BY o.ack_due_at LIMIT {MAX_ITEMS})"
    if name == "unanswered":
        overdue_heads = _HEADS_SQL.format(ids=_OVERDUE_SQL, order="o.ack_due_at", rank=_RANK_SQL)
        heads = f"({heads}) UNION ({overdue_heads})"
        ids = f"{in_order} UNION {overdue}"
    else:
        ids = in_order
    sql = _POSTS_SQL.format(projects=heads, ids=ids.replace("me.id", "pj.me"), rank=_RANK_SQL)
    return conn.fetch_all_as(InboxPost, sql, {"owner": owner_id, "project": project_id})


def list_blocked_tasks(conn: Connection, owner_id: int, *, project_id: int | None = None) -> list[BlockedTask]:
    """List the blocked tasks in the owner's projects, those blocked longest first; at most MAX_ITEMS."""
    return dashboard.list_blocked_tasks(conn, owner_id, project_id=project_id, limit=MAX_ITEMS)


def list_conflicts(conn: Connection, owner_id: int, *, project_id: int | None = None) -> list[ContendedSurface]:
    """List the surfaces of contended live leases in the owner's projects; at most MAX_ITEMS."""
    return dashboard.list_contended_surfaces(conn, owner_id, project_id=project_id, limit=MAX_ITEMS)


def _count_sql(source: str) -> str:
    """SQL for the number of items of a list in all projects; it stops reading at COUNT_CAP."""
    joins = _MY_PARTICIPATION_SQL if "me.id" in source else ""
    return (
        f"(SELECT count(*) FROM (SELECT 1 FROM {_PROJECTS_SQL} {joins}"
        f" CROSS JOIN LATERAL ({source} LIMIT {COUNT_CAP}) AS item LIMIT {COUNT_CAP}) AS counted)"
    )


_LAST_ACK_SQL = f"""
    SELECT max(last.at) FROM {_PROJECTS_SQL}
    CROSS JOIN LATERAL (SELECT e.at FROM event e WHERE e.project_id = pj.id AND e.type = 'ack'
                        ORDER BY e.seq DESC LIMIT 1) AS last
"""


def find_last_ack(conn: Connection, owner_id: int) -> datetime | None:
    """Return the time of the last ack in the owner's projects, or None if there is none."""
    (at,) = conn.fetch_one(_LAST_ACK_SQL, {"owner": owner_id, "project": None})
    last_ack: datetime | None = at
    return last_ack


_BLOCKED_SQL = "SELECT t.id FROM task t WHERE t.project_id = pj.id AND t.status = 'blocked'"
_NAVIGATION_COUNTS_SQL = f"SELECT {_count_sql(_UNANSWERED_SQL)}, {_count_sql(_OVERDUE_SQL)}"
_COUNTS_SQL = f"{_NAVIGATION_COUNTS_SQL}, {_count_sql(_FOR_ME_SQL)}, {_count_sql(_BLOCKED_SQL)}"


def count_unanswered(conn: Connection, owner_id: int) -> tuple[int, int]:
    """Count the unanswered and the overdue posts in the owner's projects, each up to COUNT_CAP."""
    unanswered, overdue = conn.fetch_one(_NAVIGATION_COUNTS_SQL, {"owner": owner_id, "project": None})
    return unanswered, overdue


def get_counts(conn: Connection, owner_id: int, *, project_id: int | None = None) -> InboxCounts:
    """Return the numbers of all lists."""
    unanswered, overdue, for_me, blocked = conn.fetch_one(_COUNTS_SQL, {"owner": owner_id, "project": project_id})
    return InboxCounts(
        for_me=for_me,
        unanswered=unanswered,
        overdue=overdue,
        blocked=blocked,
        conflicts=len(list_conflicts(conn, owner_id, project_id=project_id)),
    )
