"""Tables of tasks and their blockers. Every key leads with `project_id`, as in tables.py."""

import sqlalchemy as sa

from bus.db.columns import TIMESTAMPTZ, length_check, metadata, one_of_check, primary_key_column
from bus.rules.enums import TASK_STATUSES

task = sa.Table(
    "task",
    metadata,
    primary_key_column("project_id"),
    primary_key_column("id"),
    sa.Column("title", sa.Text, nullable=False),
    sa.Column("detail", sa.Text),
    sa.Column("lane", sa.Text),
    sa.Column("participation_id", sa.BigInteger),
    sa.Column("owner", sa.Text),
    sa.Column("status", sa.Text, nullable=False),
    sa.Column("priority", sa.SmallInteger, nullable=False),
    sa.Column("open_blockers", sa.Integer, nullable=False, server_default=sa.text("0")),
    sa.Column("created_by", sa.Text, nullable=False),
    sa.Column("created_at", TIMESTAMPTZ, nullable=False),
    sa.Column("updated_at", TIMESTAMPTZ, nullable=False),
    sa.Column("ref", sa.Text),
    # Until then the task is not offered to other waiting callers; an offer reserves nothing.
    sa.Column("offered_until", TIMESTAMPTZ),
    # The session that started it, while it is in progress or blocked.
    sa.Column("session_key", sa.Text),
    sa.CheckConstraint(length_check("title", 200), "title"),
    sa.CheckConstraint(length_check("detail", 4000), "detail"),
    sa.CheckConstraint(length_check("lane", 64), "lane"),
    sa.CheckConstraint(length_check("ref", 200), "ref"),
    sa.CheckConstraint(one_of_check("status", TASK_STATUSES), "status"),
    sa.CheckConstraint("priority BETWEEN 0 AND 4", "priority"),
    sa.CheckConstraint("open_blockers >= 0", "open_blockers"),
    sa.CheckConstraint("status = 'open' OR participation_id IS NOT NULL", "assignee"),
    sa.CheckConstraint("status <> 'blocked' OR open_blockers > 0", "blocked"),
    sa.CheckConstraint("status NOT IN ('in_progress', 'done') OR open_blockers = 0", "unblocked"),
)
sa.Index("task_status_idx", task.c.project_id, task.c.status, task.c.id)
sa.Index("task_owner_idx", task.c.project_id, task.c.participation_id, task.c.id)
sa.Index(
    "task_session_idx",
    task.c.project_id,
    task.c.participation_id,
    task.c.session_key,
    postgresql_where=task.c.session_key.is_not(None),
)
sa.Index("task_lane_idx", task.c.project_id, task.c.lane, task.c.id)
sa.Index(
    "task_ready_idx",
    task.c.project_id,
    task.c.priority,
    task.c.id,
    postgresql_where=sa.text("status IN ('open', 'assigned') AND open_blockers = 0"),
)

task_blocker = sa.Table(
    "task_blocker",
    metadata,
    primary_key_column("project_id"),
    primary_key_column("task_id"),
    primary_key_column("id"),
    sa.Column("on_task_id", sa.BigInteger),
    sa.Column("reason", sa.Text),
    sa.Column("created_at", TIMESTAMPTZ, nullable=False),
    sa.Column("resolved_at", TIMESTAMPTZ),
    sa.CheckConstraint("on_task_id IS NOT NULL OR reason IS NOT NULL", "why"),
    sa.CheckConstraint("on_task_id <> task_id", "self"),
    sa.CheckConstraint(length_check("reason", 500), "reason"),
)
sa.Index(
    "task_blocker_open_idx",
    task_blocker.c.project_id,
    task_blocker.c.on_task_id,
    task_blocker.c.task_id,
    postgresql_where=task_blocker.c.resolved_at.is_(None),
)
