"""Overdue handoffs are escalated."""

from bus.coordination import escalation
from workers.job_runner import JobRun, job


@job(interval=10)
def escalate_overdue_posts(run: JobRun) -> None:
    """Take the next step for handoffs past their deadline: the ledger, then the project-admins, then people."""
    run.for_each_project(
        escalation.list_projects_with_overdue_posts,
        escalation.escalate_overdue_posts,
        "steps",
        batch_size=escalation.BATCH_SIZE,
    )
