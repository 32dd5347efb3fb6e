"""Invites end by the clock."""

from bus.coordination import expiry
from workers.job_runner import JobRun, job


@job(interval=60)
def expire_invites(run: JobRun) -> None:
    """Write to the audit log which invites ended unused."""
    while not run.should_stop():
        with run.db.transaction() as conn:
            done = expiry.expire_invites(conn)
        run.counts["expired"] += done
        if done < expiry.BATCH_SIZE:
            break
