"""Project reports as text and as JSON."""

from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any

from bus.analytics.delivery_times import DeliveryTimes
from bus.analytics.reports import ProjectReport
from bus.rules.client_names import CLIENT_LABELS
from bus.rules.delivery_labels import WAKE_LABELS
from bus.rules.text_format import format_percent, format_seconds

_MAX_WIDTH = 80
_MAX_LABEL_WIDTH = 40
_MAX_SEQUENCES = 10


def to_json(report: ProjectReport) -> dict[str, Any]:
    """Return the report as `--json` prints it."""
    return asdict(report) | {
        "first_event_at": _to_iso(report.first_event_at),
        "last_event_at": _to_iso(report.last_event_at),
    }


def format_report(report: ProjectReport, title: str) -> str:
    """Format a report as a table of at most 80 columns."""
    rows: list[tuple[str, str, str]] = [
        ("agents", str(report.agents), ""),
        ("events", str(report.events), ""),
        *((f"  {event.type}", str(event.count), format_percent(event.share)) for event in report.mix),
        ("handoffs and acks together", "", format_percent(report.handoff_and_ack_share)),
        ("handoffs", str(report.handoffs), ""),
        ("  acknowledged", str(report.acked), format_percent(report.acked_share)),
        ("  anchored to an artifact", str(report.anchored), format_percent(report.anchored_share)),
        ("  time to surface, median", format_seconds(report.surface_median_seconds), ""),
        ("  time to surface, p90", format_seconds(report.surface_p90_seconds), ""),
        ("  time to acknowledge, median", format_seconds(report.ack_median_seconds), ""),
        ("  time to acknowledge, p90", format_seconds(report.ack_p90_seconds), ""),
        ("leases taken", str(report.leases), ""),
        ("  collisions reported", str(report.collisions), ""),
        ("numbers claimed", str(report.claims), ""),
        *(
            (f"  {_truncate(name, _MAX_LABEL_WIDTH - 2)}", str(count), "")
            for name, count in _list_top_sequences(report)
        ),
        ("tasks shipped", str(report.tasks_shipped), ""),
    ]
    label = max(len(row[0]) for row in rows)
    value = max(len(row[1]) for row in rows)
    lines = [f"{name:<{label}}  {count:>{value}}  {share:>7}".rstrip() for name, count, share in rows]
    return "\n".join(
        [_truncate(title, _MAX_WIDTH), _format_period(report), "", *lines, *_format_delivery_times(report)]
    )


def _format_delivery_times(report: ProjectReport) -> list[str]:
    """Format the times of deliveries by group, as tables below the report; none without deliveries."""
    times = report.delivery_times
    if not times.by_wake:
        return []
    headers = ("posts", "seen", "median", "p90", "acked", "median", "p90")
    sections = [
        ("time by reachability", [(WAKE_LABELS[group.group], group) for group in times.by_wake]),
        ("time by client", [(CLIENT_LABELS.get(group.group, group.group), group) for group in times.by_client]),
    ]
    rows = {title: [(label, _list_cells(group)) for label, group in groups] for title, groups in sections}
    label_width = max(len(label) for title, groups in rows.items() for label in [title, *(f"  {x}" for x, _ in groups)])
    cells = [headers, *(cells for groups in rows.values() for _, cells in groups)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(headers))]

    def line(label: str, values: Sequence[str]) -> str:
        shown = (value.rjust(width) for value, width in zip(values, widths, strict=True))
        return "  ".join([label.ljust(label_width), *shown])

    return [
        text
        for title, groups in rows.items()
        for text in ["", line(title, headers), *(line(f"  {label}", values) for label, values in groups)]
    ]


def _list_cells(times: DeliveryTimes) -> tuple[str, ...]:
    return (
        str(times.delivered),
        str(times.seen),
        format_seconds(times.seen_median_seconds),
        format_seconds(times.seen_p90_seconds),
        str(times.acked),
        format_seconds(times.ack_median_seconds),
        format_seconds(times.ack_p90_seconds),
    )


def format_summary_table(reports: Sequence[ProjectReport]) -> str:
    """Format one line for each report, at most 80 columns wide."""
    titles = ("project", "events", "handoffs", "acked", "anchored", "to ack", "claims", "shipped")
    rows = [
        (
            report.projects[0].partition("/")[2],
            str(report.events),
            str(report.handoffs),
            format_percent(report.acked_share, 0),
            format_percent(report.anchored_share, 0),
            format_seconds(report.ack_median_seconds),
            str(report.claims),
            str(report.tasks_shipped),
        )
        for report in reports
    ]
    widths = [max(len(row[column]) for row in [titles, *rows]) for column in range(len(titles))]
    # The numbers get the width that they need, the names the rest.
    widths[0] = max(len(titles[0]), min(widths[0], _MAX_WIDTH - sum(widths[1:]) - 2 * len(widths[1:])))
    return "\n".join(
        "  ".join(
            (
                _truncate(name, widths[0]).ljust(widths[0]),
                *(value.rjust(width) for value, width in zip(values, widths[1:], strict=True)),
            )
        )
        for name, *values in [titles, *rows]
    )


def _list_top_sequences(report: ProjectReport) -> list[tuple[str, int]]:
    top = list(report.claimed.items())[:_MAX_SEQUENCES]
    rest = report.claims - sum(count for _, count in top)
    return [*top, ("in other sequences", rest)] if rest else top


def _format_period(report: ProjectReport) -> str:
    first, last = report.first_event_at, report.last_event_at
    if first is None or last is None:
        return "No events yet."
    form = "%Y-%m-%d %H:%M:%S"
    return f"{first:{form}} to {last:{form}} UTC ({format_seconds((last - first).total_seconds())})"


def _truncate(text: str, max_length: int) -> str:
    return text if len(text) <= max_length else f"{text[: max_length - 1]}…"


def _to_iso(at: datetime | None) -> str | None:
    return None if at is None else at.isoformat()
