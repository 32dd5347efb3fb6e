"""Row security: a transaction that acts in one project writes rows of that project only.

Deploy order: before the code that uses it. The owner of the schema, as which the previous version connects, is not
subject to it.
"""

from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None

_TABLES = (
    "ack_cursor",
    "agent_session",
    "cursor",
    "delivery",
    "idempotency",
    "lease",
    "meter_mark",
    "post",
    "presence",
    "project_clock",
    "report",
    "seen_delivery",
    "sequence",
    "session_cursor",
    "session_post",
    "tally",
    "tally_mark",
    "task",
    "task_blocker",
    "waiter",
)


def upgrade() -> None:
    for table in _TABLES:
        op.execute(
            f"""
            ALTER TABLE {table} ENABLE ROW LEVEL SECURITY;
            -- An empty text: the transaction acts in no particular project, as a job does.
            CREATE POLICY project_scope ON {table} USING (
                coalesce(current_setting('llm_bus.project_scope', true), '') IN ('', project_id::text));
            -- Reading is not restricted: with a condition on it, PostgreSQL would not use the indexes on expressions.
            CREATE POLICY read_all ON {table} FOR SELECT USING (true);
            """
        )


def downgrade() -> None:
    for table in _TABLES:
        op.execute(
            f"""
            DROP POLICY project_scope ON {table};
            DROP POLICY read_all ON {table};
            ALTER TABLE {table} DISABLE ROW LEVEL SECURITY;
            """
        )
