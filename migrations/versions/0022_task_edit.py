"""Editing of tasks: the event task_edit, its price, and an index of the events of a task.

Deploy order: before the code that uses it; the previous version writes no such event. Writers of events wait while it
reads them once, for the index; the constraints are validated afterwards.
"""

from alembic import op

revision = "0022"
down_revision = "0021"
branch_labels = None
depends_on = None

_TYPES = (
    "'claim', 'seed', 'register', 'post', 'ack', 'lease', 'release', 'lease_expire', 'task_create', 'task_assign',"
    " 'task_start', 'task_block', 'task_resolve', 'task_ship', 'task_requeue'{}, 'presence_lapse', 'escalate'"
)
_CHECKS = (("event", "type"), ("price", "event_type"), ("credit_usage", "event_type"))


def _set_types(types: str) -> None:
    for table, column in _CHECKS:
        name = f"{table}_{column}_check"
        op.execute(f"ALTER TABLE {table} DROP CONSTRAINT {name}")
        op.execute(f"ALTER TABLE {table} ADD CONSTRAINT {name} CHECK ({column} IN ({types})) NOT VALID")


def upgrade() -> None:
    _set_types(_TYPES.format(", 'task_edit'"))
    op.execute("INSERT INTO price (event_type, effective_from, credits) VALUES ('task_edit', '2000-01-01', 1)")
    op.execute(
        "CREATE INDEX event_task_idx ON event (project_id, ((payload ->> 'task_id')::bigint), seq)"
        " WHERE (payload ->> 'task_id') IS NOT NULL"
    )


def downgrade() -> None:
    op.execute("DROP INDEX event_task_idx")
    op.execute("DELETE FROM price WHERE event_type = 'task_edit'")
    # The ledger keeps the edits that were made, so that the constraint is not valid for them.
    _set_types(_TYPES.format(""))
