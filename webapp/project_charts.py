"""The pictures of a project, for a page and for a file: what each says in a sentence, its drawing, its numbers."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from markupsafe import Markup

from bus.analytics.project_metrics import EventActivity, LeaseStats, MessageMatrix, Period, PostStats, ProjectMetrics
from webapp import svg_charts
from webapp.svg_charts import Plot, Series

PERIOD_LABELS = {"24h": "24 hours", "7d": "7 days", "30d": "30 days", "90d": "90 days"}
PERIOD_PHRASES = {
    "24h": "the last 24 hours",
    "7d": "the last 7 days",
    "30d": "the last 30 days",
    "90d": "the last 90 days",
}
_DAY = timedelta(days=1)
_OTHERS_LABEL = "others"
# What an event of a type is called where people read; the names of tools are for agents.
_EVENT_LABELS = {
    "post": "handoffs",
    "ack": "acks",
    "claim": "claims",
    "seed": "sequences set",
    "register": "registrations",
    "lease": "leases",
    "release": "releases",
    "lease_expire": "leases expired",
    "task_create": "tasks created",
    "task_assign": "tasks assigned",
    "task_start": "tasks started",
    "task_block": "tasks blocked",
    "task_resolve": "tasks unblocked",
    "task_ship": "tasks shipped",
    "task_requeue": "tasks put back",
    "presence_lapse": "departures",
    "escalate": "escalations",
}


@dataclass(frozen=True, slots=True)
class EventBreakdown:
    """What happened, by type.

    Attributes:
        rows: the colour, the name, how many, and the share of all.
    """

    title: str
    bar: Markup
    rows: list[tuple[int, str, int, str]]


@dataclass(frozen=True, slots=True)
class TimeSeriesChart:
    """A drawing over time.

    Attributes:
        columns, rows: its numbers; the first column names the bin.
    """

    title: str
    plot: Plot
    headers: list[str]
    rows: list[list[str]]


@dataclass(frozen=True, slots=True)
class SurfaceTable:
    """Surfaces by how often they were leased: name, leases, contended."""

    title: str
    rows: list[tuple[str, int, int]]
    max_leases: int


@dataclass(frozen=True, slots=True)
class MatrixTable:
    """Who wrote to whom.

    Attributes:
        columns: `lane core`, `ada/review`, or `others`.
        rows: the sender, and how many posts went to each column.
    """

    title: str
    columns: list[str]
    rows: list[tuple[str, list[int]]]
    max_count: int


@dataclass(frozen=True, slots=True)
class ProjectCharts:
    """All of them; None is a picture of nothing."""

    metrics: ProjectMetrics
    event_breakdown: EventBreakdown | None
    events: TimeSeriesChart | None
    acknowledgements: TimeSeriesChart | None
    ack_times: TimeSeriesChart | None
    anchored: TimeSeriesChart | None
    surfaces: SurfaceTable | None
    message_matrix: MatrixTable | None


def build_charts(metrics: ProjectMetrics) -> ProjectCharts:
    """Draw the pictures of a project."""
    handoffs = metrics.post_stats
    return ProjectCharts(
        metrics,
        event_breakdown=_build_event_breakdown(metrics.event_activity) if metrics.event_activity.event_count else None,
        events=_build_events_chart(metrics.event_activity, metrics.period)
        if metrics.event_activity.event_count
        else None,
        acknowledgements=_build_acknowledgements_chart(metrics) if handoffs.posts else None,
        ack_times=_build_ack_times_chart(metrics) if handoffs.acked else None,
        anchored=_build_anchored_chart(metrics) if handoffs.posts else None,
        surfaces=_build_surface_table(metrics.lease_stats) if metrics.lease_stats.leases else None,
        message_matrix=_build_message_matrix(metrics.message_matrix, handoffs.posts)
        if metrics.message_matrix.counts
        else None,
    )


def format_percent(part: float, whole: float) -> str:
    """A share as people say it; nothing and all only where it is so."""
    share = 100 * part / whole if whole else 0.0
    if 0 < share < 1:
        return "under 1 %"
    if 99 < share < 100:
        return "over 99 %"
    return f"{share:.0f} %"


def _format_share(value: float) -> str:
    return f"{value:.0f} %"


def _pluralize(number: int, singular: str) -> str:
    return f"{number:,} {singular}{'' if number == 1 else 's'}"


def _group_by_type(activity: EventActivity) -> list[tuple[str, int, Sequence[int]]]:
    """The most frequent types, and all others as the last: as many as there are colours."""
    names = list(activity.counts_by_type)
    own = names if len(names) <= svg_charts.MAX_SERIES else names[: svg_charts.MAX_SERIES - 1]
    rest = names[len(own) :]
    found: list[tuple[str, int, Sequence[int]]] = [
        (_EVENT_LABELS.get(name, name), activity.counts_by_type[name], activity.bin_counts_by_type[name])
        for name in own
    ]
    if rest:
        together = [sum(some) for some in zip(*(activity.bin_counts_by_type[name] for name in rest), strict=True)]
        found.append((_OTHERS_LABEL, sum(together), together))
    return found


def _build_event_breakdown(activity: EventActivity) -> EventBreakdown:
    shares = _group_by_type(activity)
    first, most = next(iter(activity.counts_by_type.items()))
    title = f"{_pluralize(activity.event_count, 'event')}, {format_percent(most, activity.event_count)} of them {_EVENT_LABELS.get(first, first)}"
    says = ", ".join(f"{name} {format_percent(n, activity.event_count)}" for name, n, _ in shares)
    colours = {name: place for place, (name, _, _) in enumerate(shares)}
    rows = [
        (colours.get(word, svg_charts.MAX_SERIES - 1), word, n, format_percent(n, activity.event_count))
        for word, n in ((_EVENT_LABELS.get(kind, kind), n) for kind, n in activity.counts_by_type.items())
    ]
    return EventBreakdown(title, svg_charts.segmented_bar([n for _, n, _ in shares], aria_label=says), rows)


def _build_events_chart(activity: EventActivity, period: Period) -> TimeSeriesChart:
    shares = _group_by_type(activity)
    sums = [sum(some) for some in zip(*(counts for _, _, counts in shares), strict=True)]
    top = max(range(len(sums)), key=sums.__getitem__)
    titles = [_bin_title(at, period.fine_bin_width) for at in activity.bin_starts]
    unit = "day" if period.fine_bin_width == _DAY else "hour"
    title = f"{_pluralize(sums[top], 'event')} in the busiest {unit}, {titles[top]}"
    plot = svg_charts.column_chart(
        [Series(name, counts) for name, _, counts in shares],
        _bin_labels(activity.bin_starts, period, period.fine_bin_width),
        aria_label=f"{title}.",
        bin_titles=titles,
        label_count=7 if period.name == "7d" else 6,
    )
    # Of 168 hours most are quiet: the table leaves them out and says so by its times.
    rows = [
        [titles[at], *(f"{counts[at]:,}" for _, _, counts in shares), f"{sums[at]:,}"]
        for at in range(len(sums))
        if sums[at]
    ]
    return TimeSeriesChart(title, plot, [unit.capitalize(), *(name for name, _, _ in shares), "all"], rows)


def _build_acknowledgements_chart(metrics: ProjectMetrics) -> TimeSeriesChart:
    whole, bins = metrics.post_stats, metrics.post_stats_by_bin
    title = (
        f"{whole.acked:,} of {_pluralize(whole.posts, 'handoff')} acknowledged ({format_percent(whole.acked, whole.posts)})"
        if whole.posts > 1
        else ("The one handoff is acknowledged" if whole.acked else "The one handoff is not acknowledged yet")
    )
    return _build_handoffs_chart(
        metrics,
        svg_charts.column_chart,
        [
            Series("acknowledged", [one.acked for one in bins]),
            Series("not yet", [one.posts - one.acked for one in bins]),
        ],
        title,
        ["handoffs", "acknowledged", "share"],
        lambda one: [f"{one.posts:,}", f"{one.acked:,}", format_percent(one.acked, one.posts) if one.posts else "–"],
    )


def _build_ack_times_chart(metrics: ProjectMetrics) -> TimeSeriesChart:
    whole, bins = metrics.post_stats, metrics.post_stats_by_bin
    if whole.acked == 1:
        title = f"The one that is acknowledged waited for {_format_seconds(whole.median_ack_seconds)}"
    else:
        half, most = _format_seconds(whole.median_ack_seconds), _format_seconds(whole.p90_ack_seconds)
        title = f"Half are acknowledged within {half}, nine in ten within {most}"
    return _build_handoffs_chart(
        metrics,
        _duration_line_chart,
        [
            Series("half within", [one.median_ack_seconds for one in bins]),
            Series("nine in ten within", [one.p90_ack_seconds for one in bins]),
        ],
        title,
        ["acknowledged", "median", "p90"],
        lambda one: [f"{one.acked:,}", _format_seconds(one.median_ack_seconds), _format_seconds(one.p90_ack_seconds)],
    )


def _build_anchored_chart(metrics: ProjectMetrics) -> TimeSeriesChart:
    whole, bins = metrics.post_stats, metrics.post_stats_by_bin
    return _build_handoffs_chart(
        metrics,
        _percent_line_chart,
        [Series("anchored", [100 * one.with_ref / one.posts if one.posts else None for one in bins])],
        f"{format_percent(whole.with_ref, whole.posts)} of handoffs name what they are about",
        ["handoffs", "with a ref", "share"],
        lambda one: [
            f"{one.posts:,}",
            f"{one.with_ref:,}",
            format_percent(one.with_ref, one.posts) if one.posts else "–",
        ],
    )


def _build_handoffs_chart(
    metrics: ProjectMetrics,
    draw: Callable[..., Plot],
    series: list[Series],
    title: str,
    headers: list[str],
    format_row: Callable[[PostStats], list[str]],
) -> TimeSeriesChart:
    """A drawing of handoffs over the bins of the period; its table has a row for each bin with handoffs."""
    period = metrics.period
    titles = [_bin_title(at, period.coarse_bin_width) for at in metrics.bin_starts]
    plot = draw(
        series,
        _bin_labels(metrics.bin_starts, period, period.coarse_bin_width),
        aria_label=f"{title}.",
        bin_titles=titles,
    )
    rows = [[name, *format_row(one)] for name, one in zip(titles, metrics.post_stats_by_bin, strict=True) if one.posts]
    return TimeSeriesChart(title, plot, ["Hour" if period.coarse_bin_width != _DAY else "Day", *headers], rows)


def _duration_line_chart(*args: Sequence[object], **options: object) -> Plot:
    return svg_charts.line_chart(*args, format_value=svg_charts.format_seconds, is_duration=True, **options)  # type: ignore[arg-type]


def _percent_line_chart(*args: Sequence[object], **options: object) -> Plot:
    return svg_charts.line_chart(*args, format_value=_format_share, **options)  # type: ignore[arg-type]


def _build_surface_table(surfaces: LeaseStats) -> SurfaceTable:
    rows = [(one.surface, one.leases, one.contended) for one in surfaces.top_surfaces]
    if surfaces.other_surfaces.leases:
        rows.append((_OTHERS_LABEL, surfaces.other_surfaces.leases, surfaces.other_surfaces.contended))
    said = f"{_pluralize(surfaces.leases, 'lease')}, "
    if surfaces.contended:
        said += f"{surfaces.contended:,} ({format_percent(surfaces.contended, surfaces.leases)}) where somebody else was at work"
    else:
        said += "none where somebody else was at work"
    return SurfaceTable(said, rows, max((leases for _, leases, _ in rows[: len(surfaces.top_surfaces)]), default=0))


def _build_message_matrix(matrix: MessageMatrix, posts: int) -> MatrixTable:
    people = [*matrix.senders, *(one.name for one in matrix.recipients if one.kind == "actor")]
    handles = {name.partition("/")[0] for name in people if name}

    def called(name: str) -> str:
        """Where all are of one owner, the handle says nothing; the owner alone has no label."""
        return (name.partition("/")[2] or name) if len(handles) == 1 else name

    columns = [
        f"lane {one.name}" if one.kind == "lane" else called(one.name) or _OTHERS_LABEL for one in matrix.recipients
    ]
    rows = [
        (called(sender) or _OTHERS_LABEL, [matrix.counts.get((row, column), 0) for column in range(len(columns))])
        for row, sender in enumerate(matrix.senders)
    ]
    named = {
        place: n for place, n in matrix.counts.items() if matrix.senders[place[0]] and matrix.recipients[place[1]].name
    }
    if not named:
        return MatrixTable(
            f"{_pluralize(posts, 'handoff')} among very many", columns, rows, max(matrix.counts.values())
        )
    (row, column), most = max(named.items(), key=lambda item: (item[1], -item[0][0], -item[0][1]))
    title = f"Most often {rows[row][0]} writes to {columns[column]}: {most:,} of {_pluralize(posts, 'handoff')}"
    return MatrixTable(title, columns, rows, max(named.values()))


def _format_seconds(value: float | None) -> str:
    return "–" if value is None else svg_charts.format_seconds(value)


def _bin_title(at: datetime, width: timedelta) -> str:
    return f"{at:%a %-d %b}" if width == _DAY else f"{at:%a %-d %b, %H:%M}"


def _bin_labels(bins: Sequence[datetime], period: Period, width: timedelta) -> list[str]:
    """What stands below a drawing: hours of a day by their time, hours of a week by their day, days by their date."""
    if period.name == "24h":
        return [f"{at:%H:%M}" for at in bins]
    return [f"{at:%a}" if period.name == "7d" else f"{at:%-d %b}" for at in bins]
