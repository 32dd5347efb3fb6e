"""Whether a played plan left in the ledger what it promised."""

from collections.abc import Iterator

from bus.analytics.reports import ProjectReport
from cli.demo.model import ExpectedCounts


def find_differences(expected: ExpectedCounts, report: ProjectReport) -> Iterator[str]:
    """A line for each figure of a project that is not as planned.

    Types of event that no plan holds are the bus's own doing, such as a lapse of presence, and don't matter.
    """
    found = {one.type: one.count for one in report.mix}
    planned = {kind: (count, found.get(kind, 0)) for kind, count in expected.events_by_type.items()} | {
        "acknowledged handoffs": (expected.acked, report.acked),
        "anchored handoffs": (expected.anchored, report.anchored),
        "reported collisions": (expected.collisions, report.collisions),
    }
    for what, (wanted, actual) in planned.items():
        if wanted != actual:
            yield f"{report.projects[0]}: {what}: {actual}, planned {wanted}"
