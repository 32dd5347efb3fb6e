"""Leases end by the clock."""

from bus.coordination import expiry
from workers.job_runner import Work, job


@job(every=10)
def expire_leases(work: Work) -> None:
    """End leases whose time is over: one lease_expire each, and whoever waits for the surface is woken."""
    work.each_project(expiry.find_expired_leases, expiry.end_leases, "ended", full=expiry.BATCH)
