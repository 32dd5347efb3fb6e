"""Leases end by the clock."""

from bus.coordination import expiry
from workers.job_runner import JobRun, job


@job(interval=10)
def expire_leases(run: JobRun) -> None:
    """End leases whose time is over: one lease_expire each, and whoever waits for the surface is woken."""
    run.for_each_project(
        expiry.list_projects_with_expired_leases, expiry.expire_leases, "ended", batch_size=expiry.BATCH_SIZE
    )
