"""The absent fade."""

from bus.coordination import expiry
from workers.job_runner import Work, job


@job(every=30)
def decay_presence(work: Work) -> None:
    """Write down who is gone by the project's window: one presence_lapse each, until they are seen again."""
    work.each_project(expiry.find_absent, expiry.note_absent, "gone", full=expiry.BATCH)
