"""Leases end by the clock."""

from bus import lapses
from workers.job import Work, job


@job(every=10)
def expire_leases(work: Work) -> None:
    """End leases whose time is over: one lease_expire each, and whoever waits for the surface is woken."""
    work.each_project(lapses.find_expired_leases, lapses.end_leases, "ended", full=lapses.BATCH)
