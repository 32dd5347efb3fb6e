"""OAuth clients: those that registered themselves, and copies of the documents of those whose id is an address."""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from bus.db import Connection, from_row
from bus.tenancy.tables import oauth_client

UNUSED_REGISTRATION_TTL = timedelta(days=1)
REGISTRATION_TTL = timedelta(days=90)
"""Since the last consent; clients register again afterwards."""
_REGISTERED_PREFIX = "client-"


@dataclass(frozen=True, slots=True)
class OAuthClient:
    """A public client.

    Attributes:
        client_id: the address of its document, or what it was given when it registered.
        is_registered: whether it registered itself.
        name: as it calls itself; not verified.
        redirect_uris: where it may be sent back.
        uses_device_codes: whether it may ask for access of a machine without a browser.
    """

    client_id: str
    is_registered: bool
    name: str
    redirect_uris: Sequence[str]
    uses_device_codes: bool = False


def find(conn: Connection, client_id: str) -> OAuthClient | None:
    """Return a client that is registered, or whose document is stored; None if there is none or it has expired."""
    columns = (
        oauth_client.c.client_id,
        oauth_client.c.is_registered,
        oauth_client.c.name,
        oauth_client.c.redirect_uris,
        oauth_client.c.uses_device_codes,
    )
    row = conn.execute(
        sa.select(*columns).where(
            oauth_client.c.client_id == client_id, oauth_client.c.expires_at > sa.func.clock_timestamp()
        )
    ).one_or_none()
    return None if row is None else from_row(OAuthClient, row)


def register(
    conn: Connection, name: str, redirect_uris: Sequence[str], *, uses_device_codes: bool = False
) -> OAuthClient:
    """Register a client under a new id; it expires unless an owner consents to it soon."""
    client = OAuthClient(_REGISTERED_PREFIX + secrets.token_urlsafe(24), True, name, redirect_uris, uses_device_codes)
    _store(conn, client, UNUSED_REGISTRATION_TTL)
    return client


def keep(conn: Connection, client: OAuthClient) -> None:
    """Keep the registration of a client for another while, because an owner consented to it."""
    if client.is_registered:
        _store(conn, client, REGISTRATION_TTL)


def store_document(
    conn: Connection,
    client_id: str,
    name: str,
    redirect_uris: Sequence[str],
    *,
    ttl: timedelta,
    uses_device_codes: bool = False,
) -> OAuthClient:
    """Store what the document of a client says, for `ttl`; it replaces an earlier copy."""
    client = OAuthClient(client_id, False, name, redirect_uris, uses_device_codes)
    _store(conn, client, ttl)
    return client


def _store(conn: Connection, client: OAuthClient, ttl: timedelta) -> None:
    values = {
        "is_registered": client.is_registered,
        "name": client.name,
        "redirect_uris": list(client.redirect_uris),
        "uses_device_codes": client.uses_device_codes,
        "expires_at": sa.func.clock_timestamp() + ttl,
    }
    statement = insert(oauth_client).values(client_id=client.client_id, **values)
    conn.execute(statement.on_conflict_do_update(index_elements=["client_id"], set_=values))
