"""Overdue handoffs are escalated."""

from bus.coordination import escalation
from workers.job_runner import Work, job


@job(every=10)
def escalate_overdue_posts(work: Work) -> None:
    """Take the next step for handoffs past their deadline: the ledger, then the project-admins, then people."""
    work.each_project(escalation.find_overdue, escalation.escalate, "steps", full=escalation.BATCH)
