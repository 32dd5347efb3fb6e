"""Queries of the operator console: all owners, projects and open invites. Never the content that tenants write.

Reads no column of posts, tasks, leases or notes; only counts them.
"""

from dataclasses import dataclass
from datetime import datetime

from bus.db import Connection
from bus.db.capped_count import capped_count
from bus.errors import NotFound
from bus.limits import MAX_INTEGER
from bus.rules import validation

_COUNT_CAP = 1000


@dataclass(frozen=True, slots=True)
class OwnerSummary:
    """An owner in the operator console.

    Attributes:
        plan, balance, delinquent_at: None without an account; `delinquent_at` also while the balance is not exhausted.
        project_count: capped at 1,000.
        event_count, last_event_at: total and time of the newest event in the counted projects.
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
    """A project in the operator console.

    Attributes:
        state: open, archived, or purging (being deleted).
        participant_count, post_count: capped at 1,000.
        task_count, event_count: ever created.
        last_event_at: time of the newest event.
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
    """An invite that can still be redeemed, without its code.

    Attributes:
        hint: the characters of the code that identify it to its creator.
        uses, used: allowed and past redemptions.
    """

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


_OWNER_SUMMARY_SQL = f"""
    SELECT o.id, o.handle, o.email, o.operator, o.created_at, o.suspended_at, o.suspended_reason,
           a.plan, a.balance, a.delinquent_at, totals.project_count, totals.event_count, totals.last_event_at
    FROM owner o
    LEFT JOIN credit_account a ON a.owner_id = o.id
    CROSS JOIN LATERAL (
        SELECT count(*) AS project_count, coalesce(sum(owned.last_seq), 0)::bigint AS event_count,
               max(owned.last_at) FILTER (WHERE owned.last_seq > 0) AS last_event_at
        FROM (SELECT c.last_seq, c.last_at FROM project pj JOIN project_clock c ON c.project_id = pj.id
              WHERE pj.owner_id = o.id AND pj.purging_at IS NULL LIMIT {_COUNT_CAP}) AS owned) AS totals
"""


def list_owners(
    conn: Connection,
    search: str | None = None,
    *,
    suspended_only: bool = False,
    before: int | None = None,
    limit: int = 50,
) -> list[OwnerSummary]:
    """Return owners with ids below `before`, newest first, at most `limit`.

    Args:
        search: part of the handle, of the e-mail address, or a former handle; case-insensitive.
        suspended_only: only suspended owners.
    """
    search_text = None if search is None else validation.name(search, "search", 254).lower()
    return conn.fetch_all_as(
        OwnerSummary,
        f"{_OWNER_SUMMARY_SQL} WHERE o.id < %(before)s AND (%(search)s::text IS NULL"
        " OR position(%(search)s in o.handle) > 0 OR position(%(search)s in lower(o.email)) > 0"
        " OR o.id = (SELECT h.owner_id FROM owner_handle h WHERE h.handle = %(search)s))"
        " AND (NOT %(suspended)s OR o.suspended_at IS NOT NULL)"
        " ORDER BY o.id DESC LIMIT %(limit)s",
        {"search": search_text, "suspended": suspended_only, "before": before or MAX_INTEGER, "limit": limit},
    )


def get_owner(conn: Connection, owner_id: int) -> OwnerSummary:
    """Return one owner.

    Raises:
        NotFound: there is no such owner.
    """
    owner = conn.fetch_one_or_none_as(OwnerSummary, f"{_OWNER_SUMMARY_SQL} WHERE o.id = %s", (owner_id,))
    if owner is None:
        raise NotFound("owner")
    return owner


_PROJECT_PARTICIPATIONS = "FROM participation p WHERE p.project_id = pj.id AND p.removed_at IS NULL"


def list_projects(
    conn: Connection,
    search: str | None = None,
    *,
    owner_id: int | None = None,
    state: str | None = None,
    before: int | None = None,
    limit: int = 50,
) -> list[ProjectSummary]:
    """Return projects with ids below `before`, newest first, at most `limit`; includes those that are being purged.

    Args:
        search: part of the qualified project name (`handle/name`), case-insensitive.
        state: only projects that are `open`, `archived` or `purging`.
    """
    search_text = None if search is None else validation.name(search, "search", 129).lower()
    return conn.fetch_all_as(
        ProjectSummary,
        "SELECT pj.id, pj.owner_id, o.handle AS owner, pj.name, s.state, pj.created_at,"
        f" {capped_count(_PROJECT_PARTICIPATIONS, _COUNT_CAP)} AS participant_count,"
        f" {capped_count('FROM post n WHERE n.project_id = pj.id', _COUNT_CAP)} AS post_count,"
        " coalesce(c.last_task, 0) AS task_count, coalesce(c.last_seq, 0) AS event_count,"
        " CASE WHEN c.last_seq > 0 THEN c.last_at END AS last_event_at"
        " FROM project pj JOIN owner o ON o.id = pj.owner_id LEFT JOIN project_clock c ON c.project_id = pj.id"
        " CROSS JOIN LATERAL (SELECT CASE WHEN pj.purging_at IS NOT NULL THEN 'purging'"
        "   WHEN pj.archived_at IS NOT NULL THEN 'archived' ELSE 'open' END AS state) AS s"
        " WHERE pj.id < %(before)s AND (%(owner)s::bigint IS NULL OR pj.owner_id = %(owner)s)"
        " AND (%(state)s::text IS NULL OR s.state = %(state)s)"
        " AND (%(search)s::text IS NULL OR position(%(search)s in lower(o.handle || '/' || pj.name)) > 0)"
        " ORDER BY pj.id DESC LIMIT %(limit)s",
        {"search": search_text, "owner": owner_id, "state": state, "before": before or MAX_INTEGER, "limit": limit},
    )


_OPEN_INVITE_SQL = """
    SELECT i.id, i.hint, i.project_id, pj.name AS project, pj.owner_id, o.handle AS owner, i.created_by, i.is_admin,
           i.email IS NOT NULL AS is_email_restricted, i.uses, i.used, i.created_at, i.expires_at
    FROM invite i JOIN project pj ON pj.id = i.project_id JOIN owner o ON o.id = pj.owner_id
    WHERE i.revoked_at IS NULL AND i.expired_at IS NULL AND i.used < i.uses AND i.expires_at > clock_timestamp()
      AND pj.purging_at IS NULL AND bus_may_still_invite(i.created_by_participation_id, i.created_by_token_id)
"""


def list_open_invites(conn: Connection, *, before: int | None = None, limit: int = 50) -> list[OpenInvite]:
    """Return redeemable invites with ids below `before`, newest first, at most `limit`."""
    return conn.fetch_all_as(
        OpenInvite,
        f"{_OPEN_INVITE_SQL} AND i.id < %s ORDER BY i.id DESC LIMIT %s",
        (before or MAX_INTEGER, limit),
    )


def get_open_invite(conn: Connection, invite_id: int) -> OpenInvite:
    """Return one redeemable invite.

    Raises:
        NotFound: there is no such invite, or it can no longer be redeemed.
    """
    invite = conn.fetch_one_or_none_as(OpenInvite, f"{_OPEN_INVITE_SQL} AND i.id = %s", (invite_id,))
    if invite is None:
        raise NotFound("open invite")
    return invite
