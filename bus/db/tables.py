"""Tables of the shared secrets and of the encrypted one-time store."""

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import BYTEA

from bus.db.columns import TIMESTAMPTZ, created_at_column, metadata

secret = sa.Table(
    "secret",
    metadata,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("value", BYTEA, nullable=False),
    created_at_column(),
    comment="Keys that every process of the service has to share and that nobody set.",
)

sealed = sa.Table(
    "sealed",
    metadata,
    sa.Column("lookup", BYTEA, primary_key=True),
    sa.Column("box", BYTEA, nullable=False),
    sa.Column("expires_at", TIMESTAMPTZ, nullable=False, index=True),
    sa.CheckConstraint("octet_length(lookup) = 32", "lookup"),
    sa.CheckConstraint("octet_length(box) <= 16384", "box"),
    comment="Answers kept for a while, each under a key that only whoever fetches it again can derive.",
)
