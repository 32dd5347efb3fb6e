"""Comparison of a project's ledger with the plan of a demo."""

from collections.abc import Iterator

from bus.analytics.reports import ProjectReport
from cli.demo.model import ExpectedCounts


def find_differences(expected: ExpectedCounts, report: ProjectReport) -> Iterator[str]:
    """Yield a line for each metric of a project that differs from the plan.

    Event types outside the plan are ignored: the bus adds some itself, such as presence_lapse.
    """
    actual_counts = {event.type: event.count for event in report.mix}
    metrics = {
        event_type: (count, actual_counts.get(event_type, 0)) for event_type, count in expected.events_by_type.items()
    } | {
        "acknowledged handoffs": (expected.acked, report.acked),
        "anchored handoffs": (expected.anchored, report.anchored),
        "reported collisions": (expected.collisions, report.collisions),
    }
    for metric, (planned, actual) in metrics.items():
        if planned != actual:
            yield f"{report.projects[0]}: {metric}: {actual}, planned {planned}"
