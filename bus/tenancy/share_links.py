"""Share links: read-only access to the live board of one project, for viewers without an account.

A link works until it expires or is revoked, and only while the owner of the project may share it: it ends when the
project is archived or deleted, and does not work while the owner is suspended. One condition, `_is_valid`, decides.
Source: docs/decisions/0043-board-rails-and-share-links.md
"""

import secrets
from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import sqlalchemy as sa

from bus.db import Connection, from_row
from bus.errors import BusError
from bus.rules import validation
from bus.rules.token_format import fingerprint
from bus.tenancy import audit
from bus.tenancy.revocation import revoke_code
from bus.tenancy.suspension import require_active_owner
from bus.tenancy.tables import owner, project, share_link

MAX_HOURS = 30 * 24
MAX_LINKS = 20
"""Valid links of a project."""
TOKEN_LENGTH = 43
_TOKEN_BYTES = 32


@dataclass(frozen=True, slots=True)
class ShareLink:
    """A link as its owner sees it; `state`: valid, expired or revoked."""

    id: int
    hint: str
    created_by: str
    created_at: datetime
    expires_at: datetime
    state: str


@dataclass(frozen=True, slots=True)
class CreatedShareLink:
    """A new link with its token, of which only the SHA-256 is stored."""

    id: int
    token: str = field(repr=False)
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class SharedBoard:
    """What a valid link shows."""

    link_id: int
    project_id: int
    project: str
    owner: str
    expires_at: datetime


def create(conn: Connection, project_id: int, *, ttl_hours: int, actor: str) -> CreatedShareLink:
    """Create a link to the board of a project.

    Args:
        ttl_hours: 1 to 720.
    Raises:
        BusError: `forbidden` when the project is archived; `conflict` when it has MAX_LINKS valid links.
        OwnerSuspended: the owner is suspended.
    Locks: the project clock, so that the project is not archived meanwhile, then the owner, shared.
    """
    validation.integer(ttl_hours, "ttl_hours", 1, MAX_HOURS)
    conn.execute("SELECT bus_lock_open_clock(%s)", (project_id,))
    owner_id = conn.execute(sa.select(project.c.owner_id).where(project.c.id == project_id)).scalar_one()
    require_active_owner(conn, owner_id)
    count = conn.execute(
        sa.select(sa.func.count()).select_from(_links()).where(share_link.c.project_id == project_id, _is_valid())
    ).scalar_one()
    if count >= MAX_LINKS:
        raise BusError("conflict", f"A project has at most {MAX_LINKS} valid share links; revoke one first.")
    token = secrets.token_urlsafe(_TOKEN_BYTES)
    row = conn.execute(
        sa.insert(share_link)
        .values(
            project_id=project_id,
            sha256=fingerprint(token),
            hint=f"{token[:6]}…",
            created_by=actor,
            expires_at=sa.func.clock_timestamp() + timedelta(hours=ttl_hours),
        )
        .returning(share_link.c.id, share_link.c.hint, share_link.c.expires_at)
    ).one()
    audit.record(conn, owner_id, actor, "share_link.create", row.hint, project_id=project_id, ttl_hours=ttl_hours)
    return CreatedShareLink(row.id, token, row.expires_at)


def find_shared_board(conn: Connection, token: str) -> SharedBoard | None:
    """Return what the link with this token shows, or None if there is no such link or it no longer works."""
    if len(token) != TOKEN_LENGTH:
        return None
    row = conn.execute(
        sa.select(
            share_link.c.id.label("link_id"),
            share_link.c.project_id,
            project.c.name.label("project"),
            owner.c.handle.label("owner"),
            share_link.c.expires_at,
        )
        .select_from(_links())
        .where(share_link.c.sha256 == fingerprint(token), _is_valid())
    ).one_or_none()
    return None if row is None else from_row(SharedBoard, row)


def list_valid(conn: Connection, link_ids: Collection[int]) -> set[int]:
    """Return those of some links that still work."""
    if not link_ids:
        return set()
    query = sa.select(share_link.c.id).select_from(_links()).where(share_link.c.id.in_(link_ids), _is_valid())
    return set(conn.execute(query).scalars())


def list_links(conn: Connection, project_id: int, *, limit: int = 50) -> list[ShareLink]:
    """List the links of a project, newest first, at most `limit`."""
    state = sa.case(
        (share_link.c.revoked_at.is_not(None), "revoked"),
        (share_link.c.expires_at <= sa.func.clock_timestamp(), "expired"),
        else_="valid",
    ).label("state")
    columns = (
        share_link.c.id,
        share_link.c.hint,
        share_link.c.created_by,
        share_link.c.created_at,
        share_link.c.expires_at,
        state,
    )
    query = sa.select(*columns).where(share_link.c.project_id == project_id)
    return [from_row(ShareLink, row) for row in conn.execute(query.order_by(share_link.c.id.desc()).limit(limit))]


def revoke(conn: Connection, project_id: int, link_id: int, *, actor: str) -> bool:
    """Revoke a link, so that it no longer works; return whether anything changed.

    Raises:
        BusError: `not_found` when the project has no such link.
    """
    return revoke_code(
        conn, share_link, project_id, link_id, noun="share link", action="share_link.revoke", actor=actor
    )


def _links() -> sa.FromClause:
    return share_link.join(project, project.c.id == share_link.c.project_id).join(
        owner, owner.c.id == project.c.owner_id
    )


def _is_valid() -> sa.ColumnElement[bool]:
    """Whether a link works, in a query over `_links`."""
    return sa.and_(
        share_link.c.revoked_at.is_(None),
        share_link.c.expires_at > sa.func.clock_timestamp(),
        project.c.archived_at.is_(None),
        project.c.purging_at.is_(None),
        owner.c.suspended_at.is_(None),
    )
