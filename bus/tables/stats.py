"""What the service as a whole has seen, counted as it goes on."""

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB

from bus.tables.base import TIME, key_column, metadata

event_count = sa.Table(
    "event_count",
    metadata,
    key_column("project_id"),
    sa.Column("seq", sa.BigInteger, nullable=False),
    sa.Column("counts", JSONB, nullable=False),
    comment="How many events of each type a project had up to `seq`; stays when the project is deleted.",
)

service_stats = sa.Table(
    "service_stats",
    metadata,
    sa.Column("only", sa.Boolean, primary_key=True),
    sa.Column("at", TIME, nullable=False),
    sa.Column("body", JSONB, nullable=False),
    sa.CheckConstraint('"only"', "only"),
    comment="The counts that everybody is answered with until they are too old: one row.",
)
