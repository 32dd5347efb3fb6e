"""Tables of the webhooks and of the outbox of notifications."""

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB

from bus.db.columns import (
    CLOCK_TIMESTAMP,
    TIMESTAMPTZ,
    created_at_column,
    id_column,
    length_check,
    metadata,
    one_of_check,
)

NOTICE_KINDS = ("escalation", "low_balance", "delinquent", "suspended", "test")
NOTICE_CHANNELS = ("webhook", "email")

webhook = sa.Table(
    "webhook",
    metadata,
    id_column(),
    sa.Column("owner_id", sa.ForeignKey("owner.id"), nullable=False),
    sa.Column("project_id", sa.ForeignKey("project.id", ondelete="CASCADE")),
    sa.Column("url", sa.Text, nullable=False),
    # Not hashed: every message is signed with it.
    sa.Column("secret", sa.Text, nullable=False),
    created_at_column(),
    sa.Column("removed_at", TIMESTAMPTZ),
    sa.CheckConstraint(length_check("url", 2000), "url"),
    comment="Where the escalations of a project go; without a project, the credit notices of its owner.",
)
sa.Index(None, webhook.c.owner_id, webhook.c.project_id)
sa.Index(None, webhook.c.project_id)

notice = sa.Table(
    "notice",
    metadata,
    id_column(),
    sa.Column("owner_id", sa.ForeignKey("owner.id"), nullable=False),
    sa.Column("project_id", sa.BigInteger),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("channel", sa.Text, nullable=False),
    sa.Column("webhook_id", sa.ForeignKey("webhook.id", ondelete="SET NULL")),
    sa.Column("target", sa.Text, nullable=False),
    sa.Column("content", JSONB, nullable=False),
    created_at_column(),
    # Null once it was delivered or given up.
    sa.Column("due_at", TIMESTAMPTZ, server_default=CLOCK_TIMESTAMP),
    sa.Column("attempts", sa.Integer, nullable=False, server_default=sa.text("0")),
    sa.Column("delivered_at", TIMESTAMPTZ),
    sa.Column("said", sa.Text),
    sa.CheckConstraint(one_of_check("kind", NOTICE_KINDS), "kind"),
    sa.CheckConstraint(one_of_check("channel", NOTICE_CHANNELS), "channel"),
    sa.CheckConstraint("delivered_at IS NULL OR due_at IS NULL", "delivered"),
    comment="What is to be told to people outside, and the log of telling it.",
)
sa.Index("notice_due_idx", notice.c.due_at, postgresql_where=notice.c.due_at.is_not(None))
sa.Index(None, notice.c.owner_id, notice.c.id)
sa.Index(None, notice.c.webhook_id)
