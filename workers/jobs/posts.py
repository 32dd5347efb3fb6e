"""Overdue handoffs are escalated."""

from bus import escalations
from workers.job import Work, job


@job(every=10)
def escalate_overdue_posts(work: Work) -> None:
    """Take the next step for handoffs past their deadline: the ledger, then the project-admins, then people."""
    work.each_project(escalations.find_overdue, escalations.escalate, "steps", full=escalations.BATCH)
