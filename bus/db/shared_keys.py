"""Keys that the processes of the service share: made once, kept in the database."""

import secrets

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from bus.db import Connection
from bus.db.tables import secret

_KEY_BYTES = 32


def get_or_create_key(conn: Connection, name: str) -> bytes:
    """The key of this name, 32 random bytes; the first process that asks makes it, and all get the same."""
    conn.execute(insert(secret).values(name=name, value=secrets.token_bytes(_KEY_BYTES)).on_conflict_do_nothing())
    return bytes(conn.execute(sa.select(secret.c.value).where(secret.c.name == name)).scalar_one())
