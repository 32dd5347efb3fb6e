"""Tables of the shared keys and of the encrypted one-time store."""

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import BYTEA

from bus.db.columns import TIMESTAMPTZ, created_at_column, metadata

shared_key = sa.Table(
    "secret",
    metadata,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("value", BYTEA, nullable=False),
    created_at_column(),
    comment="Generated keys that all processes of the service share.",
)

one_time_value = sa.Table(
    "sealed",
    metadata,
    sa.Column("lookup", BYTEA, primary_key=True),
    sa.Column("box", BYTEA, nullable=False),
    sa.Column("expires_at", TIMESTAMPTZ, nullable=False, index=True),
    sa.CheckConstraint("octet_length(lookup) = 32", "lookup"),
    sa.CheckConstraint("octet_length(box) <= 16384", "box"),
    comment="Encrypted values that expire; only the client that fetches a value can derive its key.",
)
