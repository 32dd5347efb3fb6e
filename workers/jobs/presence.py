"""The absent fade."""

from bus.coordination import expiry
from workers.job_runner import JobRun, job


@job(interval=30)
def decay_presence(run: JobRun) -> None:
    """Write down who is gone by the project's window: one presence_lapse each, until they are seen again."""
    run.for_each_project(
        expiry.list_projects_with_absent_participants,
        expiry.record_absent_participants,
        "gone",
        batch_size=expiry.BATCH_SIZE,
    )
