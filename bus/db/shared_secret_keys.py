"""Secret keys that all processes of the service share: generated once, stored in the database."""

import secrets

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from bus.db import Connection
from bus.db.tables import shared_key

_KEY_BYTES = 32


def get_or_create_key(conn: Connection, name: str) -> bytes:
    """Return the key of this name, 32 random bytes. Concurrent callers create it once and get the same key."""
    conn.execute(insert(shared_key).values(name=name, value=secrets.token_bytes(_KEY_BYTES)).on_conflict_do_nothing())
    return bytes(conn.execute(sa.select(shared_key.c.value).where(shared_key.c.name == name)).scalar_one())
