"""Keys that the processes of the service share: made once, kept in the database."""

import secrets

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from bus.db import Connection
from bus.db.tables import secret

_BYTES = 32


def get(conn: Connection, name: str) -> bytes:
    """The key of this name, 32 random bytes; the first process that asks makes it, and all get the same."""
    conn.run(insert(secret).values(name=name, value=secrets.token_bytes(_BYTES)).on_conflict_do_nothing())
    return bytes(conn.run(sa.select(secret.c.value).where(secret.c.name == name)).scalar_one())
