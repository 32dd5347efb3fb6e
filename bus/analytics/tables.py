"""Tables of rollups, cached reports and service totals, so that no page reads a ledger."""

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB

from bus.db.columns import EMPTY_DEFAULT, TIMESTAMPTZ, metadata, one_of_check, primary_key_column

ROLLUP_GRANULARITIES = ("hour", "day")
ROLLUP_METRICS = (
    "events",
    "anchored",
    "waits",
    "leases",
    "contended",
    "to_lane",
    "to_actor",
    "delivered",
    "seen",
    "acked",
)

rollup = sa.Table(
    "tally",
    metadata,
    primary_key_column("project_id"),
    sa.Column("grain", sa.Text, primary_key=True),
    sa.Column("figure", sa.Text, primary_key=True),
    # Start of the hour or day, UTC.
    sa.Column("start", TIMESTAMPTZ, primary_key=True),
    sa.Column("key", sa.Text(collation="C"), primary_key=True),
    sa.Column("other", sa.Text(collation="C"), primary_key=True, server_default=EMPTY_DEFAULT),
    sa.Column("n", sa.BigInteger, nullable=False),
    sa.CheckConstraint(one_of_check("grain", ROLLUP_GRANULARITIES), "grain"),
    sa.CheckConstraint(one_of_check("figure", ROLLUP_METRICS), "figure"),
    sa.CheckConstraint("n > 0", "n"),
    # Rows of the current hour are updated again and again.
    postgresql_with={"fillfactor": 80},
    comment="Hourly and daily counts; `figure` names the metric, on which the meaning of `key` and `other` depends.",
)

rollup_watermark = sa.Table(
    "tally_mark",
    metadata,
    primary_key_column("project_id"),
    sa.Column("tallied_seq", sa.BigInteger, nullable=False, server_default=sa.text("0")),
    sa.CheckConstraint("tallied_seq >= 0", "tallied_seq"),
    postgresql_with={"fillfactor": 50},
    comment="Last event counted in a project; advanced by the transaction that counts.",
)

cached_report = sa.Table(
    "report",
    metadata,
    primary_key_column("project_id"),
    sa.Column("seq", sa.BigInteger),
    sa.Column("body", JSONB),
    sa.Column("made_at", TIMESTAMPTZ),
    sa.Column("took_seconds", sa.Float),
    # A caller is building a new report; the lock expires at this time if the caller dies.
    sa.Column("busy_until", TIMESTAMPTZ),
    sa.CheckConstraint("(body IS NULL) = (seq IS NULL) AND (body IS NULL) = (made_at IS NULL)", "made"),
    comment="Latest report of each project; building one reads the whole ledger.",
)

event_count = sa.Table(
    "event_count",
    metadata,
    primary_key_column("project_id"),
    sa.Column("seq", sa.BigInteger, nullable=False),
    sa.Column("counts", JSONB, nullable=False),
    sa.Column("handoff_seq", sa.BigInteger, nullable=False, server_default=sa.text("0")),
    sa.Column("handoffs", sa.BigInteger, nullable=False, server_default=sa.text("0")),
    sa.Column("acked", sa.BigInteger, nullable=False, server_default=sa.text("0")),
    sa.Column("anchored", sa.BigInteger, nullable=False, server_default=sa.text("0")),
    comment="Events by type that a project had up to `seq`, and posts up to `handoff_seq` with those that were acked"
    " and that have a ref; kept when the project is purged.",
)

service_stats = sa.Table(
    "service_stats",
    metadata,
    sa.Column("only", sa.Boolean, primary_key=True),
    sa.Column("at", TIMESTAMPTZ, nullable=False),
    sa.Column("body", JSONB, nullable=False),
    sa.CheckConstraint('"only"', "only"),
    comment="One row: cached totals of the service.",
)
