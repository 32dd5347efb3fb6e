"""Pictures of numbers, drawn as SVG: columns over time, lines, bars, bubbles. static/charts.css is their look.

A drawing holds no text: it is stretched to the room that it gets, and text would be stretched with it. What stands at
its axes is text of the page around it (templates/parts/charts.html), at the same size on a phone as on a desk. Every
drawing stands beside a table of its numbers, so it is one image to whoever cannot see it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

MAX_SERIES = 8
"""How many series can be told apart; more are best put together as the last."""

_PLOT_HEIGHT = 100.0
_BIN_WIDTH = 10.0
_BIN_GAP = 2.0
_MAX_TICKS = 4
# A step of an axis is one of these times a power of ten; of an axis of durations one of those.
_TICK_STEPS = (1.0, 2.0, 2.5, 5.0, 10.0)
_DURATION_TICK_STEPS = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10_800, 21_600, 43_200, 86_400)
_DAY_SECONDS = 86_400


@dataclass(frozen=True, slots=True)
class Series:
    """A name and a value for each bin; None is a gap, and counts as nothing in a stack."""

    name: str
    values: Sequence[float | None]


@dataclass(frozen=True, slots=True)
class Plot:
    """A drawing with what stands around it.

    Attributes:
        svg: the drawing itself.
        ticks: what its horizontal lines stand for, from the top to zero; they are evenly spaced.
        marks: what stands below it; each begins its own stretch, and all stretches are of one length.
        legend: names of the series, in the order of their colours; empty for a single one.
        empty: whether there is nothing to see.
    """

    svg: Markup
    tick_labels: tuple[str, ...]
    bin_labels: tuple[str, ...]
    legend: tuple[str, ...]
    is_empty: bool


def column_chart(
    series: Sequence[Series],
    bin_labels: Sequence[str],
    *,
    aria_label: str,
    format_value: Callable[[float], str] | None = None,
    bin_titles: Sequence[str] = (),
    label_count: int = 6,
) -> Plot:
    """Stacked columns, one for each bin.

    Args:
        series: at most COLOURS, from the bottom of the stack to its top; each with a value for every bin.
        bins: what each bin is called below the drawing; only some are shown.
        says: what the picture shows, for whoever cannot see it.
        show: how a value is written; whole numbers with thousands apart when left out.
        titles: what each bin is called under the pointer; as below the drawing when left out.
        stretches: how many bins to name below the drawing, about: as many as divide them evenly.
    """
    _check_series(series, bin_labels)
    format_value = format_value or format_number
    totals = [sum(one.values[at] or 0.0 for one in series) for at in range(len(bin_labels))]
    top, ticks = axis_scale(max(totals, default=0.0))
    bases = [0.0] * len(bin_labels)
    paths = []
    for colour, one in enumerate(series):
        steps = []
        for at, value in enumerate(one.values):
            if not value:
                continue
            height = value / top * _PLOT_HEIGHT
            low = _PLOT_HEIGHT - bases[at]
            steps.append(
                f"M{_format_coordinate(at * _BIN_WIDTH + _BIN_GAP / 2)} {_format_coordinate(low)}h{_format_coordinate(_BIN_WIDTH - _BIN_GAP)}v{_format_coordinate(-height)}h{_format_coordinate(_BIN_GAP - _BIN_WIDTH)}z"
            )
            bases[at] += height
        if steps:
            paths.append(Markup('<path class="series-{}" d="{}"/>').format(colour, "".join(steps)))
    body = Markup("").join([*paths, _hover_targets(series, bin_titles or bin_labels, format_value)])
    return Plot(
        _plot_svg(body, len(bin_labels), len(ticks), aria_label),
        tuple(format_value(tick) for tick in reversed(ticks)),
        _select_bin_labels(bin_labels, label_count),
        _legend(series),
        not any(totals),
    )


def line_chart(
    series: Sequence[Series],
    bin_labels: Sequence[str],
    *,
    aria_label: str,
    format_value: Callable[[float], str] | None = None,
    bin_titles: Sequence[str] = (),
    label_count: int = 6,
    is_duration: bool = False,
) -> Plot:
    """Lines over bins, broken where a value is missing; a value between two gaps is a dot.

    Args:
        series, bins, says, show, titles, stretches: as for `columns`.
        durations: the values are seconds, and the axis has steps that people know.
    """
    _check_series(series, bin_labels)
    format_value = format_value or format_number
    values = [value for one in series for value in one.values if value is not None]
    top, ticks = axis_scale(max(values, default=0.0), is_duration=is_duration)
    paths = []
    for colour, one in enumerate(series):
        steps, dots = [], []
        for at, value in enumerate(one.values):
            if value is None:
                continue
            point = f"{_format_coordinate((at + 0.5) * _BIN_WIDTH)} {_format_coordinate(_PLOT_HEIGHT - value / top * _PLOT_HEIGHT)}"
            follows = at > 0 and one.values[at - 1] is not None
            if follows or (at + 1 < len(one.values) and one.values[at + 1] is not None):
                steps.append(f"L{point}" if follows else f"M{point}")
            else:
                # A line of no length has round ends, and so is a dot.
                dots.append(f"M{point}h0")
        for kind, found in (("line", steps), ("line dot", dots)):
            if found:
                paths.append(Markup('<path class="{} series-{}" d="{}"/>').format(kind, colour, "".join(found)))
    body = Markup("").join([*paths, _hover_targets(series, bin_titles or bin_labels, format_value)])
    return Plot(
        _plot_svg(body, len(bin_labels), len(ticks), aria_label),
        tuple(format_value(tick) for tick in reversed(ticks)),
        _select_bin_labels(bin_labels, label_count),
        _legend(series),
        not values,
    )


def bar(value: float, maximum: float, *, marked_value: float = 0.0) -> Markup:
    """A bar for a row of a table, as long as its value is of the greatest; `part` of it is marked, as contention is."""
    share = _percent_of(value, maximum)
    marked = _percent_of(marked_value, maximum)
    return Markup(
        '<svg class="bar" viewBox="0 0 100 10" preserveAspectRatio="none" aria-hidden="true">'
        '<rect class="track" width="100" height="10"/><rect class="series-0" width="{}" height="10"/>{}</svg>'
    ).format(
        _format_coordinate(share),
        Markup('<rect class="bar-marked" width="{}" height="10"/>').format(_format_coordinate(marked)) if marked else "",
    )


def segmented_bar(values: Sequence[float], *, aria_label: str) -> Markup:
    """One bar that is divided as its values are, in the order of the colours; at most COLOURS values."""
    assert len(values) <= MAX_SERIES, "put the small ones together"
    whole = sum(values)
    parts, left = [], 0.0
    for colour, value in enumerate(values):
        width = _percent_of(value, whole)
        if width:
            parts.append(
                Markup('<rect class="series-{}" x="{}" width="{}" height="10"/>').format(
                    colour, _format_coordinate(left), _format_coordinate(width)
                )
            )
        left += width
    return Markup(
        '<svg class="segmented-bar" viewBox="0 0 100 10" preserveAspectRatio="none" role="img" aria-label="{}">'
        '<rect class="track" width="100" height="10"/>{}</svg>'
    ).format(aria_label, Markup("").join(parts))


def bubble(value: float, maximum: float) -> Markup:
    """A circle for a cell of a matrix, whose area is to the greatest as its value is; nothing for nothing."""
    radius = 9.0 * (_percent_of(value, maximum) / 100.0) ** 0.5
    if not radius:
        return Markup("")
    return Markup(
        '<svg class="bubble" viewBox="0 0 20 20" aria-hidden="true"><circle class="series-0" cx="10" cy="10" r="{}"/></svg>'
    ).format(_format_coordinate(max(radius, 1.2)))


def swatch(colour: int) -> Markup:
    """The sign of a series in a legend or beside its name in a table."""
    return Markup(
        '<svg class="swatch" viewBox="0 0 10 10" aria-hidden="true"><rect class="series-{}" width="10" height="10" rx="2"/>'
        "</svg>"
    ).format(colour)


def format_number(value: float) -> str:
    """A value as people write it: `12,000`, `2.5`."""
    return f"{value:,.0f}" if value == int(value) else f"{value:,.2f}".rstrip("0")


def format_seconds(value: float) -> str:
    """A length of time in few characters: `40 ms`, `12 s`, `5 min`, `3.5 h`, `2 d`."""
    if value == 0:
        return "0"
    if value < 1:
        return f"{value * 1000:.0f} ms"
    for size, unit in ((_DAY_SECONDS, "d"), (3600, "h"), (60, "min")):
        if value >= size:
            return f"{_format_short(value / size)} {unit}"
    return f"{_format_short(value)} s"


def axis_scale(maximum: float, *, is_duration: bool = False) -> tuple[float, list[float]]:
    """The top of an axis that holds a value, and its ticks from zero to that top, evenly spaced and few.

    A count has whole steps; what lies between zero and one has broken ones.
    """
    if maximum <= 0:
        return 1.0, [0.0, 1.0]
    step = _duration_tick_step(maximum) if is_duration and maximum > 1 else _tick_step(maximum)
    parts = 1
    while parts * step < maximum * (1 - 1e-9):
        parts += 1
    # Multiplied and not added up, so that a tick is the number that it says.
    return parts * step, [round(part * step, 9) for part in range(parts + 1)]


def _tick_step(maximum: float) -> float:
    size = 1.0
    while size * _MAX_TICKS * _TICK_STEPS[-1] < maximum:
        size *= 10
    while size * _MAX_TICKS * _TICK_STEPS[0] / 10 >= maximum:
        size /= 10
    least = 1.0 if maximum > 1 else 0.0
    candidates = [
        size * step for step in _TICK_STEPS if size * step >= least and (size > 1 or step != 2.5 or maximum <= 1)
    ]
    return next(step for step in candidates if step * _MAX_TICKS >= maximum * (1 - 1e-9))


def _duration_tick_step(maximum: float) -> float:
    for step in _DURATION_TICK_STEPS:
        if step * _MAX_TICKS >= maximum:
            return float(step)
    return _DAY_SECONDS * _tick_step(maximum / _DAY_SECONDS)


def _check_series(series: Sequence[Series], bin_labels: Sequence[str]) -> None:
    assert len(series) <= MAX_SERIES, "put the small ones together"
    assert all(len(one.values) == len(bin_labels) for one in series), "a value for every bin"


def _plot_svg(body: Markup, bin_count: int, tick_count: int, aria_label: str) -> Markup:
    width = _format_coordinate(max(bin_count, 1) * _BIN_WIDTH)
    grid = "".join(f"M0 {_format_coordinate(_PLOT_HEIGHT * at / (tick_count - 1))}H{width}" for at in range(tick_count))
    return Markup(
        '<svg class="plot" viewBox="0 0 {} 100" preserveAspectRatio="none" role="img" aria-label="{}">'
        '<path class="gridlines" d="{}"/>{}</svg>'
    ).format(width, aria_label, grid, body)


def _hover_targets(series: Sequence[Series], bin_titles: Sequence[str], format_value: Callable[[float], str]) -> Markup:
    """A column over each bin that says its numbers under the pointer, where there are any."""
    found = []
    for at, title in enumerate(bin_titles):
        said = [f"{one.name}: {format_value(value)}" for one in series if (value := one.values[at])]
        if said:
            found.append(
                Markup('<rect class="hover-target" x="{}" width="10" height="100"><title>{}</title></rect>').format(
                    _format_coordinate(at * _BIN_WIDTH), "\n".join([title, *said])
                )
            )
    return Markup("").join(found)


def _select_bin_labels(bin_labels: Sequence[str], label_count: int) -> tuple[str, ...]:
    """The names of some bins, as many as fit, each the first of a stretch of one length; of a prime number of bins all,
    if they are few, else none but the first.
    """
    count = len(bin_labels)
    fitting = [parts for parts in range(4, 9) if count and count % parts == 0]
    if not fitting:
        return tuple(bin_labels) if count <= 8 else (bin_labels[0],)
    parts = min(fitting, key=lambda one: abs(one - label_count))
    return tuple(bin_labels[at] for at in range(0, count, count // parts))


def _legend(series: Sequence[Series]) -> tuple[str, ...]:
    return tuple(one.name for one in series) if len(series) > 1 else ()


def _percent_of(value: float, whole: float) -> float:
    return min(100.0, 100.0 * value / whole) if whole > 0 and value > 0 else 0.0


def _format_short(value: float) -> str:
    return f"{value:.0f}" if value >= 10 or value == int(value) else f"{value:.1f}"


def _format_coordinate(value: float) -> str:
    """A number of a drawing: two digits are finer than any screen."""
    return f"{value:.2f}".rstrip("0").rstrip(".") if value else "0"
