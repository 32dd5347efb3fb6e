"""The rollup follows the ledgers."""

from bus import tallies
from workers.job import Work, job


@job(every=30)
def keep_tallies(work: Work) -> None:
    """Count what was written since, by hour and by day, so that pictures read no ledger."""
    work.each_project(tallies.find_behind, tallies.count, "events", full=tallies.BATCH)
