"""What the service knows of itself: its processes as they report themselves, and how fast its ledgers grow."""

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB

from bus.tables.base import CLOCK, TIME, id_column, length, metadata, one_of

PROCESS_KINDS = ("web", "gateway", "serve", "worker", "beat")

process = sa.Table(
    "process",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("host", sa.Text, nullable=False),
    sa.Column("pid", sa.Integer, nullable=False),
    sa.Column("version", sa.Text, nullable=False),
    sa.Column("started_at", TIME, nullable=False),
    sa.Column("seen_at", TIME, nullable=False, server_default=CLOCK),
    sa.Column("settings", JSONB, nullable=False),
    sa.Column("figures", JSONB, nullable=False),
    sa.CheckConstraint(one_of("kind", PROCESS_KINDS), "kind"),
    sa.CheckConstraint(length("id", 64), "id"),
    sa.CheckConstraint(length("host", 255), "host"),
    # Written every few seconds: a new version of the row finds room beside the old one.
    postgresql_with={"fillfactor": 50},
    comment="Processes of the service, each written by itself; one that was not seen for a minute is gone.",
)

service_sample = sa.Table(
    "service_sample",
    metadata,
    id_column(),
    sa.Column("at", TIME, nullable=False, server_default=CLOCK),
    # What the clocks of all projects said together; less after a purge.
    sa.Column("standing", sa.BigInteger, nullable=False),
    sa.Column("written", sa.BigInteger, nullable=False),
    comment="How many events were ever written, from time to time; `written` never falls.",
)
sa.Index(None, service_sample.c.at)
