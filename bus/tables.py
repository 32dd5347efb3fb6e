"""All tables of the schema in one metadata, for migrations and for the test that compares it with a migrated database.

Each package of the engine defines its own tables; importing this module imports them all.
"""

from bus.analytics.tables import event_count, service_stats
from bus.auth.tables import identity, login_link, session, sign_up
from bus.billing.tables import credit_account, credit_entry, credit_usage, metering, price
from bus.coordination import post_tables as _posts  # noqa: F401 - registers its tables
from bus.coordination import session_tables as _sessions  # noqa: F401 - registers its tables
from bus.coordination import tables as _coordination  # noqa: F401 - registers its tables
from bus.coordination import task_tables as _tasks  # noqa: F401 - registers its tables
from bus.db.columns import metadata
from bus.db.tables import one_time_value, shared_key
from bus.imports import tables as _imports  # noqa: F401 - registers its tables
from bus.notifications.tables import circuit_breaker, mail_address, outbox_message, webhook
from bus.operations.tables import job_definition, job_run, process, run_request, service_sample
from bus.tenancy.tables import (
    audit,
    client_grant,
    device_authorization,
    invite,
    invite_redemption,
    membership,
    oauth_client,
    owner,
    owner_handle,
    participant,
    participant_name,
    participation,
    project,
    share_link,
    token,
)

# Small tables; a distributed PostgreSQL keeps a full copy on every node.
TENANCY_TABLES = frozenset(
    {
        audit,
        circuit_breaker,
        client_grant,
        credit_account,
        credit_entry,
        credit_usage,
        device_authorization,
        event_count,
        identity,
        invite,
        invite_redemption,
        job_definition,
        job_run,
        login_link,
        mail_address,
        membership,
        metering,
        oauth_client,
        one_time_value,
        outbox_message,
        owner,
        owner_handle,
        participant,
        participant_name,
        participation,
        price,
        process,
        project,
        run_request,
        service_sample,
        service_stats,
        session,
        share_link,
        shared_key,
        sign_up,
        token,
        webhook,
    }
)
# All other tables are distributed by project: their keys lead with `project_id`.
COORDINATION_TABLES = frozenset(metadata.tables.values()) - TENANCY_TABLES


__all__ = ["COORDINATION_TABLES", "TENANCY_TABLES", "metadata"]
