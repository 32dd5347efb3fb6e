"""The rollup follows the ledgers."""

from bus.analytics import rollups
from workers.job_runner import JobRun, job


@job(interval=30)
def keep_tallies(run: JobRun) -> None:
    """Count what was written since, by hour and by day, so that pictures read no ledger."""
    run.for_each_project(rollups.list_projects_behind, rollups.roll_up_batch, "events", batch_size=rollups.BATCH_SIZE)
