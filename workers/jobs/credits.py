"""Credits are metered, and owners without any are suspended after their grace."""

from bus.billing import credits, metering
from bus.db import Connection
from workers.job_runner import Work, job


@job(every=60)
def meter_credits(work: Work) -> None:
    """Bill what was written since the last time, each event once; METERING switches it on and off."""
    with work.db.write() as conn:
        metering.note_terms(conn, grace_hours=work.settings.grace_hours, trial_credits=work.settings.trial_credits)
        # A worker that was not told leaves it as it is: it may be a shell in which somebody runs one job.
        if work.settings.metering is not None:
            work.counts["switched"] += metering.switch(conn, work.settings.metering)
        if not metering.is_running(conn):
            return

    def bill(conn: Connection, project_id: int) -> int:
        billed = metering.bill(conn, project_id, trial=work.settings.trial_credits)
        work.counts["events"] += billed.events
        work.counts["credits"] += billed.credits
        return int(billed.more)

    work.each_project(metering.find_unmetered, bill, "full_batches", full=1)


@job(every=60)
def suspend_delinquent(work: Work) -> None:
    """Suspend owners whose credits have been used up for longer than the grace; a credit lifts it at once."""
    with work.db.call() as conn:
        if not metering.is_running(conn):
            return
        found = credits.find_delinquent(conn, work.settings.grace_hours)
    for owner_id in found:
        with work.apart(f"owner {owner_id}"), work.db.write() as conn:
            work.counts["suspended"] += credits.suspend(conn, owner_id, work.settings.grace_hours)
