"""The schema's source: every table of the bus as SQLAlchemy metadata.

Alembic owns the database; tests show that migrating an empty database gives exactly this metadata.
"""

from bus.tables.base import EVENT_TYPES, PARTICIPANT_KINDS, TASK_STATUSES, metadata
from bus.tables.coordination import (
    cursor,
    delivery,
    event,
    idempotency,
    lease,
    post,
    presence,
    project_clock,
    sequence,
    task,
    task_blocker,
)
from bus.tables.tenancy import (
    audit,
    invite,
    invite_redemption,
    owner,
    participant,
    participant_name,
    participation,
    project,
    token,
)

TENANCY = frozenset(
    {audit, invite, invite_redemption, owner, participant, participant_name, participation, project, token}
)
COORDINATION = frozenset(
    {cursor, delivery, event, idempotency, lease, post, presence, project_clock, sequence, task, task_blocker}
)

__all__ = [
    "COORDINATION",
    "EVENT_TYPES",
    "PARTICIPANT_KINDS",
    "TASK_STATUSES",
    "TENANCY",
    "audit",
    "cursor",
    "delivery",
    "event",
    "idempotency",
    "invite",
    "invite_redemption",
    "lease",
    "metadata",
    "owner",
    "participant",
    "participant_name",
    "participation",
    "post",
    "presence",
    "project",
    "project_clock",
    "sequence",
    "task",
    "task_blocker",
    "token",
]
