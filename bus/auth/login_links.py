"""Login links: one-time tokens that sign an owner in without a provider. bus/client_setup.py makes the URL."""

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
    """Create a login link for an owner; returns its token, of which only the SHA-256 is stored."""
    token = secrets.token_urlsafe(_TOKEN_BYTES)
    clock = sa.func.clock_timestamp()
    conn.execute(sa.insert(login_link).values(owner_id=owner.id, sha256=fingerprint(token), expires_at=clock + ttl))
    audit.record(conn, owner.id, actor, "login_link.create", owner.handle, seconds=int(ttl.total_seconds()))
    return token


def consume_login_link(conn: Connection, token: str) -> int:
    """Use up a login link and return the owner's id; of several concurrent callers one succeeds.

    Raises:
        BusError: `not_found` if the link never existed, was used or has expired; the answer does not say which.
    """
    clock = sa.func.clock_timestamp()
    row = conn.execute(
        sa.update(login_link)
        .where(
            login_link.c.sha256 == fingerprint(token),
            login_link.c.used_at.is_(None),
            login_link.c.expires_at > clock,
        )
        .values(used_at=clock)
        .returning(login_link.c.owner_id)
    ).one_or_none()
    if row is None:
        raise BusError("not_found", "This link was already used or has expired. Ask for another.")
    return int(row.owner_id)
