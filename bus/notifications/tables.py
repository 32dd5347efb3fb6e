"""Tables of webhooks and of the outbox of webhook and e-mail messages."""

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB

from bus.db.columns import (
    CLOCK_TIMESTAMP,
    EMPTY_DEFAULT,
    TIMESTAMPTZ,
    created_at_column,
    id_column,
    length_check,
    metadata,
    one_of_check,
    primary_key_column,
)

MESSAGE_KINDS = ("escalation", "low_balance", "delinquent", "suspended", "test", "confirm_address", "invite")
MESSAGE_CHANNELS = ("webhook", "email")
MAIL_SERVER = "mail server"

webhook = sa.Table(
    "webhook",
    metadata,
    id_column(),
    sa.Column("owner_id", sa.ForeignKey("owner.id"), nullable=False),
    sa.Column("project_id", sa.ForeignKey("project.id", ondelete="CASCADE")),
    sa.Column("url", sa.Text, nullable=False),
    # Stored in plain text, because every message is signed with it.
    sa.Column("secret", sa.Text, nullable=False),
    created_at_column(),
    sa.Column("removed_at", TIMESTAMPTZ),
    sa.CheckConstraint(length_check("url", 2000), "url"),
    comment="Targets for the escalations of a project or, without a project, for the credit messages of an owner.",
)
sa.Index(None, webhook.c.owner_id, webhook.c.project_id)
sa.Index(None, webhook.c.project_id)

outbox_message = sa.Table(
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
    # Time of the next attempt; null once the message was delivered or given up.
    sa.Column("due_at", TIMESTAMPTZ, server_default=CLOCK_TIMESTAMP),
    sa.Column("attempts", sa.Integer, nullable=False, server_default=sa.text("0")),
    sa.Column("delivered_at", TIMESTAMPTZ),
    # Result of the last attempt: the receiver's answer or the error.
    sa.Column("said", sa.Text),
    # The server that is connected to: scheme, host and port of a webhook, or MAIL_SERVER.
    sa.Column("destination", sa.Text, nullable=False, server_default=EMPTY_DEFAULT),
    sa.CheckConstraint(one_of_check("kind", MESSAGE_KINDS), "kind"),
    sa.CheckConstraint(one_of_check("channel", MESSAGE_CHANNELS), "channel"),
    sa.CheckConstraint("delivered_at IS NULL OR due_at IS NULL", "delivered"),
    comment="Outbox: webhooks and e-mails that wait for delivery, and the log of their attempts.",
)
sa.Index(
    "notice_due_idx",
    outbox_message.c.owner_id,
    outbox_message.c.destination,
    outbox_message.c.due_at,
    postgresql_where=outbox_message.c.due_at.is_not(None),
)
sa.Index(None, outbox_message.c.owner_id, outbox_message.c.id)
sa.Index(None, outbox_message.c.webhook_id)
sa.Index(
    "notice_email_idx",
    outbox_message.c.owner_id,
    outbox_message.c.created_at,
    postgresql_where=outbox_message.c.channel == sa.literal_column("'email'"),
)
sa.Index(
    "notice_invite_target_idx",
    sa.func.lower(outbox_message.c.target),
    outbox_message.c.created_at,
    postgresql_where=outbox_message.c.kind == sa.literal_column("'invite'"),
)

mail_address = sa.Table(
    "mail_address",
    metadata,
    id_column(),
    sa.Column("owner_id", sa.ForeignKey("owner.id"), nullable=False),
    sa.Column("email", sa.Text, nullable=False),
    created_at_column(),
    # Time of the last confirmation mail.
    sa.Column("requested_at", TIMESTAMPTZ),
    sa.Column("confirmed_at", TIMESTAMPTZ),
    sa.Column("unsubscribed_at", TIMESTAMPTZ),
    sa.Column("next_digest_at", TIMESTAMPTZ),
    sa.CheckConstraint(length_check("email", 254, 3), "email"),
    comment="Addresses to which an owner sends overdue handoffs, with the consent of their holders.",
)
sa.Index("mail_address_owner_id_email_key", mail_address.c.owner_id, sa.func.lower(mail_address.c.email), unique=True)
sa.Index("mail_address_email_idx", sa.func.lower(mail_address.c.email))

circuit_breaker = sa.Table(
    "circuit_breaker",
    metadata,
    # 0 for the mail server, which all owners share. Each owner has its own breaker for a host, so that a webhook of one
    # owner cannot hold up another owner's webhook at the same host.
    primary_key_column("owner_id"),
    sa.Column("destination", sa.Text, primary_key=True),
    sa.Column("failures", sa.Integer, nullable=False),
    sa.Column("failed_since", TIMESTAMPTZ, nullable=False, server_default=CLOCK_TIMESTAMP),
    sa.Column("open_until", TIMESTAMPTZ, nullable=False),
    sa.Column("last_error", sa.Text, nullable=False),
    comment="Destinations that did not answer; their messages wait until open_until, then one of them is a probe.",
)
