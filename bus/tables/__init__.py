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
from bus.tables.credit import (
    ENTRY_KINDS,
    PLANS,
    credit_account,
    credit_entry,
    meter_mark,
    metering,
    price,
)
from bus.tables.service import PROCESS_KINDS, process, service_sample
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
    sealed,
    token,
)
from bus.tables.upkeep import NOTICE_CHANNELS, NOTICE_KINDS, job_run, notice, webhook

TENANCY = frozenset(
    {
        audit,
        credit_account,
        credit_entry,
        event_count,
        identity,
        invite,
        invite_redemption,
        job_run,
        login_link,
        metering,
        notice,
        owner,
        participant,
        participant_name,
        participation,
        price,
        process,
        project,
        sealed,
        secret,
        service_sample,
        service_stats,
        session,
        sign_up,
        token,
        webhook,
    }
)
COORDINATION = frozenset(
    {
        cursor,
        delivery,
        event,
        idempotency,
        lease,
        meter_mark,
        post,
        presence,
        project_clock,
        sequence,
        task,
        task_blocker,
    }
)

__all__ = [
    "COORDINATION",
    "ENTRY_KINDS",
    "EVENT_TYPES",
    "NOTICE_CHANNELS",
    "NOTICE_KINDS",
    "PARTICIPANT_KINDS",
    "PLANS",
    "PROCESS_KINDS",
    "TASK_STATUSES",
    "TENANCY",
    "audit",
    "credit_account",
    "credit_entry",
    "cursor",
    "delivery",
    "event",
    "event_count",
    "idempotency",
    "identity",
    "invite",
    "invite_redemption",
    "job_run",
    "lease",
    "login_link",
    "metadata",
    "meter_mark",
    "metering",
    "notice",
    "owner",
    "participant",
    "participant_name",
    "participation",
    "post",
    "presence",
    "price",
    "process",
    "project",
    "project_clock",
    "sealed",
    "secret",
    "sequence",
    "service_sample",
    "service_stats",
    "session",
    "sign_up",
    "task",
    "task_blocker",
    "token",
    "webhook",
]
