"""Columns of event_count for the share of posts that were acknowledged, and that have a ref.

Deploy order: before the code that uses it; the previous version does not read the columns. Existing ledgers are counted
step by step, when the totals of the service are next requested.
"""

import sqlalchemy as sa
from alembic import op

revision = "0023"
down_revision = "0022"
branch_labels = None
depends_on = None

_COLUMNS = ("handoff_seq", "handoffs", "acked", "anchored")
_COMMENT = "Events by type that a project had up to `seq`{}; kept when the project is purged."


def upgrade() -> None:
    for name in _COLUMNS:
        op.add_column("event_count", sa.Column(name, sa.BigInteger, nullable=False, server_default=sa.text("0")))
    op.create_table_comment(
        "event_count",
        _COMMENT.format(", and posts up to `handoff_seq` with those that were acked and that have a ref"),
    )


def downgrade() -> None:
    op.create_table_comment("event_count", _COMMENT.format(""))
    for name in reversed(_COLUMNS):
        op.drop_column("event_count", name)
