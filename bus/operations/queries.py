"""What an operator sees of everybody's affairs: who there is, how much they use, what is open. Never what they write.

No column of posts, tasks, leases or notes is read here, only how many there are.
"""

from dataclasses import dataclass
from datetime import datetime

from bus.db import Connection
from bus.errors import NotFound
from bus.limits import MAX_INTEGER
from bus.rules import validation


@dataclass(frozen=True, slots=True)
class OwnerSummary:
    """An owner among others.

    Attributes:
        projects: counted up to 1,000; events: in them.
        last_at: of the newest event in any of them.
        plan, balance: None while it has no account.
    """

    id: int
    handle: str
    email: str
    operator: bool
    created_at: datetime
    suspended_at: datetime | None
    suspended_reason: str | None
    plan: str | None
    balance: int | None
    delinquent_at: datetime | None
    project_count: int
    event_count: int
    last_event_at: datetime | None


@dataclass(frozen=True, slots=True)
class ProjectSummary:
    """A project among others.

    Attributes:
        state: open, archived, or purging: it is being deleted.
        members, posts: counted up to 1,000.
        tasks: how many were ever created.
        last_at: of its newest event.
    """

    id: int
    owner_id: int
    owner: str
    name: str
    state: str
    created_at: datetime
    participant_count: int
    post_count: int
    task_count: int
    event_count: int
    last_event_at: datetime | None


@dataclass(frozen=True, slots=True)
class OpenInvite:
    """An invite that somebody can still redeem. Its code is known to nobody here."""

    id: int
    hint: str
    project_id: int
    project: str
    owner_id: int
    owner: str
    created_by: str
    is_admin: bool
    is_email_restricted: bool
    uses: int
    used: int
    created_at: datetime
    expires_at: datetime


_OWNER_SUMMARY_SQL = """
    SELECT o.id, o.handle, o.email, o.operator, o.created_at, o.suspended_at, o.suspended_reason,
           a.plan, a.balance, a.delinquent_at, held.projects, held.events, held.last_at
    FROM owner o
    LEFT JOIN credit_account a ON a.owner_id = o.id
    CROSS JOIN LATERAL (
        SELECT count(*) AS projects, coalesce(sum(one.last_seq), 0)::bigint AS events,
               max(one.last_at) FILTER (WHERE one.last_seq > 0) AS last_at
        FROM (SELECT c.last_seq, c.last_at FROM project pj JOIN project_clock c ON c.project_id = pj.id
              WHERE pj.owner_id = o.id AND pj.purging_at IS NULL LIMIT 1000) AS one) AS held
"""


def list_owners(
    conn: Connection,
    search: str | None = None,
    *,
    suspended_only: bool = False,
    before: int | None = None,
    limit: int = 50,
) -> list[OwnerSummary]:
    """Owners, the newest first, at most `limit`, with ids below `before`.

    Args:
        search: a part of the handle or of the e-mail address, in any case.
        suspended: only those who are.
    """
    wanted = None if search is None else validation.name(search, "search", 254).lower()
    rows = conn.fetch_all(
        f"{_OWNER_SUMMARY_SQL} WHERE o.id < %(before)s AND (%(search)s::text IS NULL OR position(%(search)s in o.handle) > 0"
        " OR position(%(search)s in lower(o.email)) > 0) AND (NOT %(suspended)s OR o.suspended_at IS NOT NULL)"
        " ORDER BY o.id DESC LIMIT %(limit)s",
        {"search": wanted, "suspended": suspended_only, "before": before or MAX_INTEGER, "limit": limit},
    )
    return [OwnerSummary(*row) for row in rows]


def get_owner(conn: Connection, owner_id: int) -> OwnerSummary:
    """One owner.

    Raises:
        BusError: `not_found`.
    """
    row = conn.fetch_one_or_none(f"{_OWNER_SUMMARY_SQL} WHERE o.id = %s", (owner_id,))
    if row is None:
        raise NotFound("owner")
    return OwnerSummary(*row)


def list_projects(
    conn: Connection,
    search: str | None = None,
    *,
    owner_id: int | None = None,
    state: str | None = None,
    before: int | None = None,
    limit: int = 50,
) -> list[ProjectSummary]:
    """Projects, the newest first, at most `limit`, with ids below `before`; also those that are being deleted.

    Args:
        search: a part of the project's name or of its owner's handle, in any case.
        state: only those that are open, archived or purging.
    """
    wanted = None if search is None else validation.name(search, "search", 129).lower()
    rows = conn.fetch_all(
        "SELECT pj.id, pj.owner_id, o.handle, pj.name, s.state, pj.created_at,"
        " (SELECT count(*) FROM (SELECT FROM participation p WHERE p.project_id = pj.id AND p.removed_at IS NULL"
        "   LIMIT 1000) AS counted),"
        " (SELECT count(*) FROM (SELECT FROM post n WHERE n.project_id = pj.id LIMIT 1000) AS counted),"
        " coalesce(c.last_task, 0), coalesce(c.last_seq, 0), CASE WHEN c.last_seq > 0 THEN c.last_at END"
        " FROM project pj JOIN owner o ON o.id = pj.owner_id LEFT JOIN project_clock c ON c.project_id = pj.id"
        " CROSS JOIN LATERAL (SELECT CASE WHEN pj.purging_at IS NOT NULL THEN 'purging'"
        "   WHEN pj.archived_at IS NOT NULL THEN 'archived' ELSE 'open' END AS state) AS s"
        " WHERE pj.id < %(before)s AND (%(owner)s::bigint IS NULL OR pj.owner_id = %(owner)s)"
        " AND (%(state)s::text IS NULL OR s.state = %(state)s)"
        " AND (%(search)s::text IS NULL OR position(%(search)s in lower(o.handle || '/' || pj.name)) > 0)"
        " ORDER BY pj.id DESC LIMIT %(limit)s",
        {"search": wanted, "owner": owner_id, "state": state, "before": before or MAX_INTEGER, "limit": limit},
    )
    return [ProjectSummary(*row) for row in rows]


_OPEN_INVITE_SQL = """
    SELECT i.id, i.hint, i.project_id, pj.name, pj.owner_id, o.handle, i.created_by, i.is_admin, i.email IS NOT NULL,
           i.uses, i.used, i.created_at, i.expires_at
    FROM invite i JOIN project pj ON pj.id = i.project_id JOIN owner o ON o.id = pj.owner_id
    WHERE i.revoked_at IS NULL AND i.expired_at IS NULL AND i.used < i.uses AND i.expires_at > clock_timestamp()
      AND pj.purging_at IS NULL
"""


def list_open_invites(conn: Connection, *, before: int | None = None, limit: int = 50) -> list[OpenInvite]:
    """Invites that let somebody in at this moment, the newest first, at most `limit`, with ids below `before`."""
    rows = conn.fetch_all(
        f"{_OPEN_INVITE_SQL} AND i.id < %s ORDER BY i.id DESC LIMIT %s",
        (before or MAX_INTEGER, limit),
    )
    return [OpenInvite(*row) for row in rows]


def get_open_invite(conn: Connection, invite_id: int) -> OpenInvite:
    """One invite that is open.

    Raises:
        BusError: `not_found`, also when it is open no more.
    """
    row = conn.fetch_one_or_none(f"{_OPEN_INVITE_SQL} AND i.id = %s", (invite_id,))
    if row is None:
        raise NotFound("open invite")
    return OpenInvite(*row)
