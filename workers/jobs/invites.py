"""Invites end by the clock."""

from bus.coordination import expiry
from workers.job_runner import Work, job


@job(every=60)
def expire_invites(work: Work) -> None:
    """Write to the audit log which invites ended unused."""
    while not work.is_over():
        with work.db.write() as conn:
            done = expiry.expire_invites(conn)
        work.counts["expired"] += done
        if done < expiry.BATCH:
            break
