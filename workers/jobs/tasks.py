"""Tasks of those who are gone come back."""

from bus.coordination import expiry
from workers.job_runner import JobRun, job


@job(interval=30)
def requeue_stalled_tasks(run: JobRun) -> None:
    """Open tasks again whose assignee is gone for the project's stall window; off where a project has none."""
    run.for_each_project(
        expiry.list_projects_with_stalled_tasks, expiry.requeue_stalled_tasks, "requeued", batch_size=expiry.BATCH_SIZE
    )
