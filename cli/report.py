"""A report as a person reads it, and as a program does."""

from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any

from bus.analytics.reports import ProjectReport

_MAX_WIDTH = 80
_MAX_LABEL_WIDTH = 40
_MAX_SEQUENCES = 10
# Below how many seconds a time span is told in which unit.
_DURATION_UNITS = ((120, 1, "s"), (7_200, 60, "min"), (172_800, 3_600, "h"))


def to_json(report: ProjectReport) -> dict[str, Any]:
    """The report as `--json` prints it."""
    return asdict(report) | {
        "first_event_at": _to_iso(report.first_event_at),
        "last_event_at": _to_iso(report.last_event_at),
    }


def format_report(report: ProjectReport, title: str) -> str:
    """The report as a table, at most 80 columns wide."""
    rows: list[tuple[str, str, str]] = [
        ("agents", str(report.agents), ""),
        ("events", str(report.events), ""),
        *((f"  {one.type}", str(one.count), format_percent(one.share)) for one in report.mix),
        ("handoffs and acks together", "", format_percent(report.handoff_and_ack_share)),
        ("handoffs", str(report.handoffs), ""),
        ("  acknowledged", str(report.acked), format_percent(report.acked_share)),
        ("  anchored to an artifact", str(report.anchored), format_percent(report.anchored_share)),
        ("  median time to be shown", format_duration(report.surface_median_seconds), ""),
        ("  nine in ten shown within", format_duration(report.surface_p90_seconds), ""),
        ("  median time to acknowledge", format_duration(report.ack_median_seconds), ""),
        ("  nine in ten acknowledged within", format_duration(report.ack_p90_seconds), ""),
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
    return "\n".join([_truncate(title, _MAX_WIDTH), _format_period(report), "", *lines])


def format_summary_table(reports: Sequence[ProjectReport]) -> str:
    """One line for each report, at most 80 columns wide."""
    titles = ("project", "events", "handoffs", "acked", "anchored", "to ack", "claims", "shipped")
    rows = [
        (
            report.projects[0].partition("/")[2],
            str(report.events),
            str(report.handoffs),
            format_percent(report.acked_share, 0),
            format_percent(report.anchored_share, 0),
            format_duration(report.ack_median_seconds),
            str(report.claims),
            str(report.tasks_shipped),
        )
        for report in reports
    ]
    widths = [max(len(row[column]) for row in [titles, *rows]) for column in range(len(titles))]
    # The figures get what they need, the names what is left.
    widths[0] = max(len(titles[0]), min(widths[0], _MAX_WIDTH - sum(widths[1:]) - 2 * len(widths[1:])))
    return "\n".join(
        "  ".join(
            (
                _truncate(name, widths[0]).ljust(widths[0]),
                *(figure.rjust(width) for figure, width in zip(figures, widths[1:], strict=True)),
            )
        )
        for name, *figures in [titles, *rows]
    )


def format_percent(share: float | None, digits: int = 1) -> str:
    """A share for a person; a dash where there is nothing to share."""
    return "-" if share is None else f"{100 * share:.{digits}f} %"


def format_duration(seconds: float | None) -> str:
    """A time span for a person, to two or three digits."""
    if seconds is None:
        return "-"
    size, unit = next((span[1:] for span in _DURATION_UNITS if seconds < span[0]), (86_400, "days"))
    number = seconds / size
    return f"{number:.{2 if number < 1 else 1 if number < 10 else 0}f} {unit}"


def _list_top_sequences(report: ProjectReport) -> list[tuple[str, int]]:
    named = list(report.claimed.items())[:_MAX_SEQUENCES]
    rest = report.claims - sum(count for _, count in named)
    return [*named, ("in further sequences", rest)] if rest else named


def _format_period(report: ProjectReport) -> str:
    first, last = report.first_event_at, report.last_event_at
    if first is None or last is None:
        return "Nothing has happened yet."
    form = "%Y-%m-%d %H:%M:%S"
    return f"{first:{form}} to {last:{form}} UTC ({format_duration((last - first).total_seconds())})"


def _truncate(text: str, max_length: int) -> str:
    return text if len(text) <= max_length else f"{text[: max_length - 1]}…"


def _to_iso(at: datetime | None) -> str | None:
    return None if at is None else at.isoformat()
