"""Tables of sign-in: identities at providers, browser sessions, pending sign-ups, login links."""

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import BYTEA

from bus.db.columns import (
    CLOCK_TIMESTAMP,
    EMPTY_DEFAULT,
    TIMESTAMPTZ,
    created_at_column,
    id_column,
    length_check,
    metadata,
)

identity = sa.Table(
    "identity",
    metadata,
    id_column(),
    sa.Column("owner_id", sa.ForeignKey("owner.id"), nullable=False, index=True),
    sa.Column("issuer", sa.Text, nullable=False),
    sa.Column("subject", sa.Text, nullable=False),
    sa.Column("email", sa.Text),
    created_at_column(),
    sa.Column("last_used_at", TIMESTAMPTZ, nullable=False, server_default=CLOCK_TIMESTAMP),
    sa.CheckConstraint(length_check("issuer", 255), "issuer"),
    sa.CheckConstraint(length_check("subject", 255), "subject"),
    sa.UniqueConstraint("issuer", "subject"),
    comment="Accounts of owners at sign-in providers; `email` is null unless the issuer states that it is verified.",
)

sign_up = sa.Table(
    "sign_up",
    metadata,
    id_column(),
    sa.Column("sha256", BYTEA, nullable=False, unique=True),
    sa.Column("issuer", sa.Text, nullable=False),
    sa.Column("subject", sa.Text, nullable=False),
    sa.Column("email", sa.Text, nullable=False),
    sa.Column("login", sa.Text, nullable=False, server_default=EMPTY_DEFAULT),
    sa.Column("expires_at", TIMESTAMPTZ, nullable=False),
    sa.CheckConstraint("octet_length(sha256) = 32", "sha256"),
    comment="Pending sign-ups: verified by a provider, but without a handle yet.",
)

session = sa.Table(
    "session",
    metadata,
    id_column(),
    sa.Column("owner_id", sa.ForeignKey("owner.id"), nullable=False, index=True),
    sa.Column("sha256", BYTEA, nullable=False, unique=True),
    sa.Column("method", sa.Text, nullable=False),
    sa.Column("address", sa.Text, nullable=False, server_default=EMPTY_DEFAULT),
    sa.Column("agent", sa.Text, nullable=False, server_default=EMPTY_DEFAULT),
    created_at_column(),
    sa.Column("last_used_at", TIMESTAMPTZ, nullable=False, server_default=CLOCK_TIMESTAMP),
    sa.Column("expires_at", TIMESTAMPTZ, nullable=False),
    # Last authentication of the person; null if only a proxy vouches for them. A token rotation keeps it.
    sa.Column("authenticated_at", TIMESTAMPTZ, server_default=CLOCK_TIMESTAMP),
    sa.CheckConstraint("octet_length(sha256) = 32", "sha256"),
    comment="Signed-in browsers; a session that ends is deleted.",
)

login_link = sa.Table(
    "login_link",
    metadata,
    id_column(),
    sa.Column("owner_id", sa.ForeignKey("owner.id"), nullable=False, index=True),
    sa.Column("sha256", BYTEA, nullable=False, unique=True),
    created_at_column(),
    sa.Column("expires_at", TIMESTAMPTZ, nullable=False),
    sa.Column("used_at", TIMESTAMPTZ),
    sa.CheckConstraint("octet_length(sha256) = 32", "sha256"),
    comment="Login links: each signs its owner in once.",
)
