"""The charts of a project: each with a title that states its result, a drawing, and a table of its numbers."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from markupsafe import Markup

from bus.analytics.project_metrics import EventActivity, LeaseStats, MessageMatrix, Period, PostStats, ProjectMetrics
from bus.rules.text_format import MISSING, format_seconds, format_share, pluralize
from webapp import svg_charts
from webapp.delivery_charts import DeliveryTable, build_client_table, build_wake_table
from webapp.event_labels import EVENT_PLURALS
from webapp.svg_charts import Plot, Series

PERIOD_LABELS = {"24h": "24 hours", "7d": "7 days", "30d": "30 days", "90d": "90 days"}
PERIOD_PHRASES = {name: f"the last {label}" for name, label in PERIOD_LABELS.items()}
_DAY = timedelta(days=1)
_OTHERS_LABEL = "others"


@dataclass(frozen=True, slots=True)
class EventBreakdown:
    """Events by type.

    Attributes:
        rows: for each type the number of its colour, its label, its count and its share.
    """

    title: str
    bar: Markup
    rows: list[tuple[int, str, int, str]]


@dataclass(frozen=True, slots=True)
class TimeSeriesChart:
    """A chart over time.

    Attributes:
        headers, rows: its table; the first column names the bin.
    """

    title: str
    plot: Plot
    headers: list[str]
    rows: list[list[str]]


@dataclass(frozen=True, slots=True)
class SurfaceTable:
    """Surfaces by number of leases.

    Attributes:
        rows: for each surface its name, its leases and its contended leases.
        max_leases: the length of the longest bar.
    """

    title: str
    rows: list[tuple[str, int, int]]
    max_leases: int


@dataclass(frozen=True, slots=True)
class MatrixTable:
    """Handoffs by sender and recipient.

    Attributes:
        columns: recipients: `lane core`, `ada/review`, or `others`.
        rows: for each sender the number of posts to each recipient.
        max_count: the size of the largest bubble.
    """

    title: str
    columns: list[str]
    rows: list[tuple[str, list[int]]]
    max_count: int


@dataclass(frozen=True, slots=True)
class ProjectCharts:
    """The charts of a project; None where there is nothing to show."""

    metrics: ProjectMetrics
    event_breakdown: EventBreakdown | None
    events: TimeSeriesChart | None
    acknowledgements: TimeSeriesChart | None
    ack_times: TimeSeriesChart | None
    anchored: TimeSeriesChart | None
    surfaces: SurfaceTable | None
    message_matrix: MatrixTable | None
    deliveries_by_wake: DeliveryTable | None
    deliveries_by_client: DeliveryTable | None


def build_charts(metrics: ProjectMetrics) -> ProjectCharts:
    """Build all charts from the metrics of a project."""
    posts, activity, leases = metrics.post_stats, metrics.event_activity, metrics.lease_stats
    deliveries = metrics.delivery_stats
    return ProjectCharts(
        metrics,
        event_breakdown=_build_event_breakdown(activity) if activity.event_count else None,
        events=_build_events_chart(activity, metrics.period) if activity.event_count else None,
        acknowledgements=_build_acknowledgements_chart(metrics) if posts.posts else None,
        ack_times=_build_ack_times_chart(metrics) if posts.acked else None,
        anchored=_build_anchored_chart(metrics) if posts.posts else None,
        surfaces=_build_surface_table(leases) if leases.leases else None,
        message_matrix=(
            _build_message_matrix(metrics.message_matrix, posts.posts) if metrics.message_matrix.counts else None
        ),
        deliveries_by_wake=build_wake_table(deliveries.by_wake) if deliveries.by_wake else None,
        deliveries_by_client=build_client_table(deliveries.by_client) if deliveries.by_client else None,
    )


def _label(event_type: str) -> str:
    return EVENT_PLURALS.get(event_type, event_type)


def _group_by_type(activity: EventActivity) -> list[tuple[str, int, Sequence[int]]]:
    """Label, count and counts by bin of the most frequent types; the others are combined to fit the colours."""
    types = list(activity.counts_by_type)
    shown = types if len(types) <= svg_charts.MAX_SERIES else types[: svg_charts.MAX_SERIES - 1]
    others = types[len(shown) :]
    groups: list[tuple[str, int, Sequence[int]]] = [
        (_label(name), activity.counts_by_type[name], activity.bin_counts_by_type[name]) for name in shown
    ]
    if others:
        bin_counts = [
            sum(counts) for counts in zip(*(activity.bin_counts_by_type[name] for name in others), strict=True)
        ]
        groups.append((_OTHERS_LABEL, sum(bin_counts), bin_counts))
    return groups


def _build_event_breakdown(activity: EventActivity) -> EventBreakdown:
    total = activity.event_count
    groups = _group_by_type(activity)
    top_type, top_count = next(iter(activity.counts_by_type.items()))
    title = f"{pluralize(total, 'event')}, {format_share(top_count, total)} of them {_label(top_type)}"
    aria_label = ", ".join(f"{label} {format_share(count, total)}" for label, count, _ in groups)
    colours = {label: colour for colour, (label, _, _) in enumerate(groups)}
    rows = [
        (colours.get(_label(name), svg_charts.MAX_SERIES - 1), _label(name), count, format_share(count, total))
        for name, count in activity.counts_by_type.items()
    ]
    return EventBreakdown(
        title, svg_charts.segmented_bar([count for _, count, _ in groups], aria_label=aria_label), rows
    )


def _build_events_chart(activity: EventActivity, period: Period) -> TimeSeriesChart:
    groups = _group_by_type(activity)
    totals = [sum(counts) for counts in zip(*(counts for _, _, counts in groups), strict=True)]
    busiest = max(range(len(totals)), key=totals.__getitem__)
    bin_titles = [_bin_title(start, period.fine_bin_width) for start in activity.bin_starts]
    unit = "day" if period.fine_bin_width == _DAY else "hour"
    title = f"{pluralize(totals[busiest], 'event')} in the busiest {unit}, {bin_titles[busiest]}"
    plot = svg_charts.column_chart(
        [Series(label, counts) for label, _, counts in groups],
        _bin_labels(activity.bin_starts, period, period.fine_bin_width),
        aria_label=f"{title}.",
        bin_titles=bin_titles,
        label_count=7 if period.name == "7d" else 6,
    )
    # Most of 168 hours have no events; the table leaves them out.
    rows = [
        [bin_titles[index], *(f"{counts[index]:,}" for _, _, counts in groups), f"{total:,}"]
        for index, total in enumerate(totals)
        if total
    ]
    return TimeSeriesChart(title, plot, [unit.capitalize(), *(label for label, _, _ in groups), "all"], rows)


def _build_acknowledgements_chart(metrics: ProjectMetrics) -> TimeSeriesChart:
    total, bins = metrics.post_stats, metrics.post_stats_by_bin
    if total.posts > 1:
        share = format_share(total.acked, total.posts)
        title = f"{total.acked:,} of {pluralize(total.posts, 'handoff')} acknowledged ({share})"
    else:
        title = "The only handoff is acknowledged" if total.acked else "The only handoff is not acknowledged yet"
    return _build_handoffs_chart(
        metrics,
        svg_charts.column_chart,
        [
            Series("acknowledged", [stats.acked for stats in bins]),
            Series("not yet", [stats.posts - stats.acked for stats in bins]),
        ],
        title,
        ["handoffs", "acknowledged", "share"],
        lambda stats: [f"{stats.posts:,}", f"{stats.acked:,}", _share_or_missing(stats.acked, stats.posts)],
    )


def _build_ack_times_chart(metrics: ProjectMetrics) -> TimeSeriesChart:
    total, bins = metrics.post_stats, metrics.post_stats_by_bin
    median, p90 = format_seconds(total.median_ack_seconds), format_seconds(total.p90_ack_seconds)
    title = f"{median} to acknowledge" if total.acked == 1 else f"Median {median} to acknowledge, p90 {p90}"
    return _build_handoffs_chart(
        metrics,
        _duration_line_chart,
        [
            Series("median", [stats.median_ack_seconds for stats in bins]),
            Series("p90", [stats.p90_ack_seconds for stats in bins]),
        ],
        title,
        ["acknowledged", "median", "p90"],
        lambda stats: [
            f"{stats.acked:,}",
            format_seconds(stats.median_ack_seconds),
            format_seconds(stats.p90_ack_seconds),
        ],
    )


def _build_anchored_chart(metrics: ProjectMetrics) -> TimeSeriesChart:
    total, bins = metrics.post_stats, metrics.post_stats_by_bin
    return _build_handoffs_chart(
        metrics,
        _percent_line_chart,
        [Series("with a reference", [100 * stats.with_ref / stats.posts if stats.posts else None for stats in bins])],
        f"{format_share(total.with_ref, total.posts)} of handoffs have a reference",
        ["handoffs", "with a reference", "share"],
        lambda stats: [f"{stats.posts:,}", f"{stats.with_ref:,}", _share_or_missing(stats.with_ref, stats.posts)],
    )


def _build_handoffs_chart(
    metrics: ProjectMetrics,
    draw: Callable[..., Plot],
    series: list[Series],
    title: str,
    headers: list[str],
    format_row: Callable[[PostStats], list[str]],
) -> TimeSeriesChart:
    """Build a chart of handoffs over the bins of the period; its table has a row for each bin with handoffs."""
    period = metrics.period
    bin_titles = [_bin_title(start, period.coarse_bin_width) for start in metrics.bin_starts]
    bin_labels = _bin_labels(metrics.bin_starts, period, period.coarse_bin_width)
    plot = draw(series, bin_labels, aria_label=f"{title}.", bin_titles=bin_titles)
    rows = [
        [bin_title, *format_row(stats)]
        for bin_title, stats in zip(bin_titles, metrics.post_stats_by_bin, strict=True)
        if stats.posts
    ]
    return TimeSeriesChart(title, plot, ["Hour" if period.coarse_bin_width != _DAY else "Day", *headers], rows)


def _duration_line_chart(series: Sequence[Series], bin_labels: Sequence[str], **options: object) -> Plot:
    return svg_charts.line_chart(
        series,
        bin_labels,
        format_value=format_seconds,
        is_duration=True,
        **options,  # type: ignore[arg-type]
    )


def _percent_line_chart(series: Sequence[Series], bin_labels: Sequence[str], **options: object) -> Plot:
    return svg_charts.line_chart(
        series,
        bin_labels,
        format_value=lambda percent: f"{percent:.0f}%",
        maximum=100.0,
        **options,  # type: ignore[arg-type]
    )


def _build_surface_table(stats: LeaseStats) -> SurfaceTable:
    rows = [(surface.surface, surface.leases, surface.contended) for surface in stats.top_surfaces]
    max_leases = max((leases for _, leases, _ in rows), default=0)
    if stats.other_surfaces.leases:
        rows.append((_OTHERS_LABEL, stats.other_surfaces.leases, stats.other_surfaces.contended))
    title = f"{pluralize(stats.leases, 'lease')}, "
    title += (
        f"{stats.contended:,} contended ({format_share(stats.contended, stats.leases)})"
        if stats.contended
        else ("none contended")
    )
    return SurfaceTable(title, rows, max_leases)


def _build_message_matrix(matrix: MessageMatrix, post_count: int) -> MatrixTable:
    actors = [*matrix.senders, *(recipient.name for recipient in matrix.recipients if recipient.kind == "actor")]
    handles = {actor.partition("/")[0] for actor in actors if actor}

    def short_name(actor: str) -> str:
        """Drop the handle where all participants have the same owner; the owner itself has no label."""
        return (actor.partition("/")[2] or actor) if len(handles) == 1 else actor

    columns = [
        f"lane {recipient.name}" if recipient.kind == "lane" else short_name(recipient.name) or _OTHERS_LABEL
        for recipient in matrix.recipients
    ]
    rows = [
        (short_name(sender) or _OTHERS_LABEL, [matrix.counts.get((row, column), 0) for column in range(len(columns))])
        for row, sender in enumerate(matrix.senders)
    ]
    named_pairs = {
        (row, column): count
        for (row, column), count in matrix.counts.items()
        if matrix.senders[row] and matrix.recipients[column].name
    }
    if not named_pairs:
        title = f"{pluralize(post_count, 'handoff')} between many pairs"
        return MatrixTable(title, columns, rows, max(matrix.counts.values()))
    (row, column), count = max(named_pairs.items(), key=lambda item: (item[1], -item[0][0], -item[0][1]))
    title = f"Busiest pair: {rows[row][0]} → {columns[column]}, {count:,} of {pluralize(post_count, 'handoff')}"
    return MatrixTable(title, columns, rows, max(named_pairs.values()))


def _share_or_missing(part: int, whole: int) -> str:
    return format_share(part, whole) if whole else MISSING


def _bin_title(start: datetime, width: timedelta) -> str:
    return f"{start:%a %-d %b}" if width == _DAY else f"{start:%a %-d %b, %H:%M}"


def _bin_labels(bin_starts: Sequence[datetime], period: Period, width: timedelta) -> list[str]:
    """Labels below a chart: the hours of a day by time, those of a week by weekday, days by date."""
    if period.name == "24h":
        return [f"{start:%H:%M}" for start in bin_starts]
    return [f"{start:%a}" if period.name == "7d" else f"{start:%-d %b}" for start in bin_starts]
