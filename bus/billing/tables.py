"""Tables of credits, usage, prices and metering. Credits are whole numbers; every debit locks the account first."""

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB

from bus.db.columns import (
    CLOCK_TIMESTAMP,
    EMPTY_DEFAULT,
    FALSE_DEFAULT,
    TIMESTAMPTZ,
    created_at_column,
    id_column,
    metadata,
    one_of_check,
    primary_key_column,
)
from bus.rules.enums import EVENT_TYPES

CREDIT_PLANS = ("free", "team", "comped")
CREDIT_ENTRY_KINDS = ("trial", "grant", "top_up", "usage")

credit_account = sa.Table(
    "credit_account",
    metadata,
    sa.Column("owner_id", sa.ForeignKey("owner.id"), primary_key=True, autoincrement=False),
    sa.Column("plan", sa.Text, nullable=False, server_default=sa.text("'free'")),
    sa.Column("balance", sa.BigInteger, nullable=False, server_default=sa.text("0")),
    sa.Column("low_balance", sa.BigInteger, nullable=False, server_default=sa.text("100")),
    # Whether the owner was notified that the balance is below the threshold; once per crossing.
    sa.Column("low_told", sa.Boolean, nullable=False, server_default=FALSE_DEFAULT),
    sa.Column("delinquent_at", TIMESTAMPTZ),
    created_at_column(),
    sa.CheckConstraint(one_of_check("plan", CREDIT_PLANS), "plan"),
    sa.CheckConstraint("low_balance >= 0", "low_balance"),
)
sa.Index(
    "credit_account_delinquent_idx",
    credit_account.c.delinquent_at,
    postgresql_where=credit_account.c.delinquent_at.is_not(None),
)

credit_entry = sa.Table(
    "credit_entry",
    metadata,
    id_column(),
    sa.Column("owner_id", sa.ForeignKey("owner.id"), nullable=False),
    sa.Column("at", TIMESTAMPTZ, nullable=False, server_default=CLOCK_TIMESTAMP),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("amount", sa.BigInteger, nullable=False),
    sa.Column("balance", sa.BigInteger, nullable=False),
    sa.Column("reference", sa.Text, nullable=False),
    sa.Column("project_id", sa.BigInteger),
    sa.Column("first_seq", sa.BigInteger),
    sa.Column("last_seq", sa.BigInteger),
    sa.Column("detail", JSONB, nullable=False, server_default=sa.text("'{}'")),
    # Whether the same transaction wrote the usage rows; if not, a trigger does (migration 0008).
    sa.Column("itemised", sa.Boolean, nullable=False, server_default=FALSE_DEFAULT),
    sa.CheckConstraint(one_of_check("kind", CREDIT_ENTRY_KINDS), "kind"),
    sa.CheckConstraint("(kind = 'usage') = (amount < 0) AND amount <> 0", "amount"),
    sa.CheckConstraint("char_length(reference) BETWEEN 1 AND 200", "reference"),
    sa.CheckConstraint("(kind = 'usage') = (project_id IS NOT NULL)", "usage"),
    # The same payment recorded twice is one payment.
    sa.UniqueConstraint("owner_id", "reference"),
    comment="Append-only; `balance` is the balance of the account after the entry.",
)
sa.Index(None, credit_entry.c.owner_id, credit_entry.c.id)
sa.Index(
    "credit_entry_usage_idx",
    credit_entry.c.project_id,
    credit_entry.c.last_seq,
    postgresql_where=credit_entry.c.kind == "usage",
)
sa.Index(
    "credit_entry_added_idx",
    credit_entry.c.owner_id,
    credit_entry.c.id,
    postgresql_where=credit_entry.c.kind != "usage",
)

credit_usage = sa.Table(
    "credit_usage",
    metadata,
    sa.Column("owner_id", sa.ForeignKey("owner.id"), primary_key=True, autoincrement=False),
    sa.Column("day", sa.Date, primary_key=True),
    primary_key_column("project_id"),
    primary_key_column("participant_id"),
    sa.Column("event_type", sa.Text, primary_key=True),
    sa.Column("events", sa.BigInteger, nullable=False),
    sa.Column("credits", sa.BigInteger, nullable=False),
    sa.CheckConstraint(one_of_check("event_type", EVENT_TYPES), "event_type"),
    sa.CheckConstraint("events > 0 AND credits > 0", "credits"),
    # The current day's rows are updated once a minute, in place.
    postgresql_with={"fillfactor": 70},
    comment=("Billed events by UTC day; participant 0 where it was not recorded. Totals equal the usage entries."),
)
sa.Index(None, credit_usage.c.project_id, credit_usage.c.day)

price = sa.Table(
    "price",
    metadata,
    sa.Column("event_type", sa.Text, primary_key=True),
    sa.Column("effective_from", TIMESTAMPTZ, primary_key=True),
    sa.Column("credits", sa.Integer, nullable=False),
    sa.CheckConstraint(one_of_check("event_type", EVENT_TYPES), "event_type"),
    sa.CheckConstraint("credits BETWEEN 0 AND 1000000", "credits"),
    comment="Price of an event type from a moment on; an event is priced at its own time.",
)

metering_watermark = sa.Table(
    "meter_mark",
    metadata,
    primary_key_column("project_id"),
    sa.Column("metered_seq", sa.BigInteger, nullable=False),
    # Where metering was last switched on; earlier events are never billed.
    sa.Column("started_seq", sa.BigInteger, nullable=False, server_default=sa.text("0")),
    sa.CheckConstraint("started_seq BETWEEN 0 AND metered_seq", "metered_seq"),
    comment="Last event billed in a project; advanced by the transaction that debits.",
)

metering = sa.Table(
    "metering",
    metadata,
    sa.Column("single", sa.Boolean, primary_key=True, server_default=sa.text("true")),
    sa.Column("running", sa.Boolean, nullable=False, server_default=FALSE_DEFAULT),
    sa.Column("changed_at", TIMESTAMPTZ, nullable=False, server_default=CLOCK_TIMESTAMP),
    sa.Column("changed_by", sa.Text, nullable=False, server_default=EMPTY_DEFAULT),
    # Settings of the workers, stored so that the web can show them; null until a worker has run.
    sa.Column("grace_hours", sa.Integer),
    sa.Column("trial_credits", sa.BigInteger),
    sa.CheckConstraint("single", "single"),
    comment="One row: whether events are billed now.",
)
