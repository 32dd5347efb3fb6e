"""Long polls: reported acks, queues for leased surfaces, offered tasks.

Deploy order: before the code that uses it; the previous version does not use any of it.
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("task", sa.Column("offered_until", sa.TIMESTAMP(timezone=True)))
    op.create_table(
        "ack_cursor",
        sa.Column("project_id", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("participation_id", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("seq", sa.BigInteger, nullable=False),
        postgresql_with={"fillfactor": 50},
        comment="Up to which event an identity was told who acked its posts.",
    )
    op.create_table(
        "waiter",
        sa.Column("project_id", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("id", sa.BigInteger, sa.Identity(always=True), primary_key=True),
        sa.Column("participation_id", sa.BigInteger, nullable=False),
        sa.Column("surface", sa.Text, nullable=False),
        sa.Column("alive_until", sa.TIMESTAMP(timezone=True), nullable=False),
        sa.Column("told_at", sa.TIMESTAMP(timezone=True)),
        sa.CheckConstraint("char_length(surface) BETWEEN 1 AND 200", name="surface"),
        comment="The line in front of surfaces that others hold: who came first is told first.",
    )


def downgrade() -> None:
    op.drop_table("waiter")
    op.drop_table("ack_cursor")
    op.drop_column("task", "offered_until")
