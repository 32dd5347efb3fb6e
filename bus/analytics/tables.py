"""The rollup: what happened in a project by hour and by day, counted once, so that no page reads a ledger."""

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB

from bus.db.columns import EMPTY_DEFAULT, TIMESTAMPTZ, metadata, one_of_check, primary_key_column

ROLLUP_GRANULARITIES = ("hour", "day")
ROLLUP_METRICS = ("events", "anchored", "waits", "leases", "contended", "to_lane", "to_actor")

tally = sa.Table(
    "tally",
    metadata,
    primary_key_column("project_id"),
    sa.Column("grain", sa.Text, primary_key=True),
    sa.Column("figure", sa.Text, primary_key=True),
    # The beginning of the hour or the day, UTC.
    sa.Column("start", TIMESTAMPTZ, primary_key=True),
    sa.Column("key", sa.Text(collation="C"), primary_key=True),
    sa.Column("other", sa.Text(collation="C"), primary_key=True, server_default=EMPTY_DEFAULT),
    sa.Column("n", sa.BigInteger, nullable=False),
    sa.CheckConstraint(one_of_check("grain", ROLLUP_GRANULARITIES), "grain"),
    sa.CheckConstraint(one_of_check("figure", ROLLUP_METRICS), "figure"),
    sa.CheckConstraint("n > 0", "n"),
    # The row of the present hour is counted up again and again.
    postgresql_with={"fillfactor": 80},
    comment="Counts by hour and by day; what `key` and `other` are depends on `figure` (bus/analytics/rollups.py).",
)

tally_mark = sa.Table(
    "tally_mark",
    metadata,
    primary_key_column("project_id"),
    sa.Column("tallied_seq", sa.BigInteger, nullable=False, server_default=sa.text("0")),
    sa.CheckConstraint("tallied_seq >= 0", "tallied_seq"),
    postgresql_with={"fillfactor": 50},
    comment="Up to which event a project has been counted; moved by the transaction that counts.",
)

report = sa.Table(
    "report",
    metadata,
    primary_key_column("project_id"),
    sa.Column("seq", sa.BigInteger),
    sa.Column("body", JSONB),
    sa.Column("made_at", TIMESTAMPTZ),
    sa.Column("took_seconds", sa.Float),
    # Until then somebody is making a new one, unless that somebody died.
    sa.Column("busy_until", TIMESTAMPTZ),
    sa.CheckConstraint("(body IS NULL) = (seq IS NULL) AND (body IS NULL) = (made_at IS NULL)", "made"),
    comment="The last report of a project, since making one reads its whole ledger.",
)

event_count = sa.Table(
    "event_count",
    metadata,
    primary_key_column("project_id"),
    sa.Column("seq", sa.BigInteger, nullable=False),
    sa.Column("counts", JSONB, nullable=False),
    comment="How many events of each type a project had up to `seq`; stays when the project is deleted.",
)

service_stats = sa.Table(
    "service_stats",
    metadata,
    sa.Column("only", sa.Boolean, primary_key=True),
    sa.Column("at", TIMESTAMPTZ, nullable=False),
    sa.Column("body", JSONB, nullable=False),
    sa.CheckConstraint('"only"', "only"),
    comment="The counts that everybody is answered with until they are too old: one row.",
)
