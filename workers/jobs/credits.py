"""Meter credits, and suspend owners whose credits are used up."""

from bus.billing import credits, metering
from bus.db import Connection
from workers.job_runner import JobRun, job


@job(interval=60)
def meter_credits(run: JobRun) -> None:
    """Bill new events, each exactly once; METERING switches it on and off."""
    with run.db.transaction() as conn:
        metering.record_terms(conn, grace_hours=run.settings.grace_hours, trial_credits=run.settings.trial_credits)
        # Where METERING is not set the switch stays as it is: this may be a shell that runs one job.
        if run.settings.metering is not None:
            run.counts["switched"] += metering.set_metering_enabled(conn, run.settings.metering)
        if not metering.is_metering_enabled(conn):
            return

    def bill(conn: Connection, project_id: int) -> int:
        billed = metering.bill_batch(conn, project_id, trial_credits=run.settings.trial_credits)
        run.counts["events"] += billed.events
        run.counts["credits"] += billed.credits
        return int(billed.has_more)

    run.for_each_project(metering.list_unmetered_projects, bill, "full_batches", batch_size=1)


@job(interval=60)
def suspend_delinquent(run: JobRun) -> None:
    """Suspend owners whose credits have been used up for longer than the grace period; a top-up lifts it at once."""
    with run.db.connection() as conn:
        if not metering.is_metering_enabled(conn):
            return
        owner_ids = credits.list_delinquent_owners(conn, run.settings.grace_hours)
    for owner_id in owner_ids:
        with run.isolate_errors(f"owner {owner_id}"), run.db.transaction() as conn:
            run.counts["suspended"] += credits.suspend_delinquent_owner(conn, owner_id, run.settings.grace_hours)
