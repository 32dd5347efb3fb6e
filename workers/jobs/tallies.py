"""The rollup follows the ledgers."""

from bus.analytics import rollups
from workers.job_runner import Work, job


@job(every=30)
def keep_tallies(work: Work) -> None:
    """Count what was written since, by hour and by day, so that pictures read no ledger."""
    work.each_project(rollups.find_behind, rollups.count, "events", full=rollups.BATCH)
