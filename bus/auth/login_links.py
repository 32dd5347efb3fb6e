"""One-time links: what the command line hands to somebody who is to sign in without a provider."""

import secrets
from datetime import timedelta

import sqlalchemy as sa

from bus.auth.tables import login_link
from bus.db import Connection
from bus.errors import BusError
from bus.rules.token_format import fingerprint
from bus.tenancy import audit
from bus.tenancy.owners import Owner

_TOKEN_BYTES = 32
LOGIN_LINK_TTL = timedelta(minutes=15)


def create_login_link(conn: Connection, owner: Owner, *, ttl: timedelta = LOGIN_LINK_TTL, actor: str) -> str:
    """Make a link for an owner; returns its token, of which only the SHA-256 is kept."""
    token = secrets.token_urlsafe(_TOKEN_BYTES)
    clock = sa.func.clock_timestamp()
    conn.execute(sa.insert(login_link).values(owner_id=owner.id, sha256=fingerprint(token), expires_at=clock + ttl))
    audit.record(conn, owner.id, actor, "login_link.create", owner.handle, seconds=int(ttl.total_seconds()))
    return token


def consume_login_link(conn: Connection, token: str) -> int:
    """Use a link up, whoever else tries it at the same moment; returns the owner's id.

    Raises:
        BusError: `not_found` when it never was, was used, or is over: which of them is nobody's business.
    """
    clock = sa.func.clock_timestamp()
    used = conn.execute(
        sa.update(login_link)
        .where(
            login_link.c.sha256 == fingerprint(token),
            login_link.c.used_at.is_(None),
            login_link.c.expires_at > clock,
        )
        .values(used_at=clock)
        .returning(login_link.c.owner_id)
    ).one_or_none()
    if used is None:
        raise BusError("not_found", "This link was used already, or its time is over. Ask for another.")
    return int(used.owner_id)


def login_link_url(web_url: str, token: str) -> str:
    """The page on which a link is used; `web` is the address of the web without a trailing slash."""
    return f"{web_url}/sign-in/link/{token}"
