"""Tasks of those who are gone come back."""

from bus.coordination import expiry
from workers.job_runner import Work, job


@job(every=30)
def requeue_stalled_tasks(work: Work) -> None:
    """Open tasks again whose assignee is gone for the project's stall window; off where a project has none."""
    work.each_project(expiry.find_stalled, expiry.requeue_stalled, "requeued", full=expiry.BATCH)
