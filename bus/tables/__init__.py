"""The schema's source: every table of the bus as SQLAlchemy metadata.

Alembic owns the database; tests show that migrating an empty database gives exactly this metadata.
"""

from bus.tables.access import identity, login_link, secret, session, sign_up
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
from bus.tables.stats import event_count, service_stats
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
    | {event_count, identity, login_link, secret, service_stats, session, sign_up}
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
    "event_count",
    "idempotency",
    "identity",
    "invite",
    "invite_redemption",
    "lease",
    "login_link",
    "metadata",
    "owner",
    "participant",
    "participant_name",
    "participation",
    "post",
    "presence",
    "project",
    "project_clock",
    "secret",
    "sequence",
    "service_stats",
    "session",
    "sign_up",
    "task",
    "task_blocker",
    "token",
]
