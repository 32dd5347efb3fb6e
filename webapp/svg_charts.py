"""Charts drawn as SVG: columns and lines over time, bars, bubbles. Styled by static/charts.css.

A drawing contains no text: it is stretched to the width of the page, and text would be stretched with it. Axis labels
and legends are HTML around it (templates/parts/charts.html) and keep their size. Every drawing is next to a table of
its numbers, so assistive technology sees it as one image with a label.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from bus.rules.text_format import format_number

MAX_SERIES = 8
"""How many series have a colour of their own; combine further ones into the last."""

_PLOT_HEIGHT = 100.0
_BIN_WIDTH = 10.0
_BIN_GAP = 2.0
_MAX_TICKS = 4
# The step of an axis is one of these times a power of ten.
_TICK_STEPS = (1.0, 2.0, 2.5, 5.0, 10.0)
_DURATION_TICK_STEPS = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10_800, 21_600, 43_200, 86_400)
_DAY_SECONDS = 86_400
_MAX_BUBBLE_RADIUS = 9.0
_MIN_BUBBLE_RADIUS = 1.2
_SPARKLINE_HEIGHT = 10.0
_NO_VALUE = Markup("")


@dataclass(frozen=True, slots=True)
class Series:
    """A name and a value for each bin; None is a gap in a line and zero in a stack.

    Attributes:
        is_forecast: draw the line dashed.
        is_stepped: keep each value until the next bin, as a balance does, rather than join the values.
    """

    name: str
    values: Sequence[float | None]
    is_forecast: bool = False
    is_stepped: bool = False


@dataclass(frozen=True, slots=True)
class Plot:
    """A drawing and its labels.

    Attributes:
        svg: the drawing.
        tick_labels: values of the horizontal lines, from the top to zero, evenly spaced.
        bin_labels: labels below the drawing; each covers the same number of bins.
        legend: names of the series in the order of their colours; empty for a single series.
        is_empty: whether there is nothing to draw.
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
    format_value: Callable[[float], str] = format_number,
    bin_titles: Sequence[str] = (),
    label_count: int = 6,
) -> Plot:
    """Draw stacked columns, one for each bin.

    Args:
        series: at most `MAX_SERIES`, from the bottom of the stack to its top; each with a value for every bin.
        bin_labels: a label for each bin; only some are shown below the drawing.
        aria_label: what the chart shows, for screen readers.
        format_value: formats the values of the axis and of the tooltips.
        bin_titles: a title for each bin's tooltip; `bin_labels` if left out.
        label_count: about how many bin labels to show; adjusted to divide the bins evenly.
    """
    _check_series(series, bin_labels)
    totals = [sum(item.values[index] or 0.0 for item in series) for index in range(len(bin_labels))]
    top, ticks = axis_scale(max(totals, default=0.0))
    bases = [0.0] * len(bin_labels)
    width = _BIN_WIDTH - _BIN_GAP
    paths = []
    for colour, item in enumerate(series):
        columns = []
        for index, value in enumerate(item.values):
            if not value:
                continue
            height = value / top * _PLOT_HEIGHT
            left, bottom = index * _BIN_WIDTH + _BIN_GAP / 2, _PLOT_HEIGHT - bases[index]
            columns.append(f"M{_xy(left, bottom)}h{_coordinate(width)}v{_coordinate(-height)}h{_coordinate(-width)}z")
            bases[index] += height
        if columns:
            paths.append(Markup('<path class="series-{}" d="{}"/>').format(colour, "".join(columns)))
    return _plot(series, bin_labels, paths, ticks, aria_label, format_value, bin_titles, label_count, not any(totals))


def line_chart(
    series: Sequence[Series],
    bin_labels: Sequence[str],
    *,
    aria_label: str,
    format_value: Callable[[float], str] = format_number,
    bin_titles: Sequence[str] = (),
    label_count: int = 6,
    is_duration: bool = False,
    maximum: float | None = None,
) -> Plot:
    """Draw lines over bins, broken where a value is missing; a value between two gaps is a dot.

    Args:
        series, bin_labels, aria_label, format_value, bin_titles, label_count: as for `column_chart`.
        is_duration: whether the values are seconds; the steps of the axis are then whole units of time.
        maximum: the top of the axis, such as 100 for shares; that of the values if left out.
    """
    _check_series(series, bin_labels)
    values = [value for item in series for value in item.values if value is not None]
    top, ticks = axis_scale(max(values, default=0.0) if maximum is None else maximum, is_duration=is_duration)
    paths = []
    for colour, item in enumerate(series):
        lines, dots = [], []
        for index, value in enumerate(item.values):
            if value is None:
                continue
            point = _xy((index + 0.5) * _BIN_WIDTH, _PLOT_HEIGHT - value / top * _PLOT_HEIGHT)
            continues = index > 0 and item.values[index - 1] is not None
            if continues or (index + 1 < len(item.values) and item.values[index + 1] is not None):
                step = f"H{_coordinate((index + 0.5) * _BIN_WIDTH)}" if item.is_stepped else ""
                lines.append(f"{step}L{point}" if continues else f"M{point}")
            else:
                # A line of length zero has round ends, so it is a dot.
                dots.append(f"M{point}h0")
        for kind, segments in (("line forecast" if item.is_forecast else "line", lines), ("line dot", dots)):
            if segments:
                paths.append(Markup('<path class="{} series-{}" d="{}"/>').format(kind, colour, "".join(segments)))
    return _plot(series, bin_labels, paths, ticks, aria_label, format_value, bin_titles, label_count, not values)


def bar(value: float, maximum: float, *, marked_value: float = 0.0) -> Markup:
    """Draw a bar for a table row, its length relative to `maximum`; the part `marked_value` is highlighted."""
    width = _percent_of(value, maximum)
    marked_width = _percent_of(marked_value, maximum)
    mark = Markup('<rect class="bar-marked" width="{}" height="10"/>').format(_coordinate(marked_width))
    return Markup(
        '<svg class="bar" viewBox="0 0 100 10" preserveAspectRatio="none" aria-hidden="true">'
        '<rect class="track" width="100" height="10"/><rect class="series-0" width="{}" height="10"/>{}</svg>'
    ).format(_coordinate(width), mark if marked_width else _NO_VALUE)


def segmented_bar(values: Sequence[float], *, aria_label: str) -> Markup:
    """Draw one bar divided in proportion to at most `MAX_SERIES` values, in the order of the colours."""
    assert len(values) <= MAX_SERIES, "combine the small values"
    total = sum(values)
    segments, left = [], 0.0
    for colour, value in enumerate(values):
        width = _percent_of(value, total)
        if width:
            segments.append(
                Markup('<rect class="series-{}" x="{}" width="{}" height="10"/>').format(
                    colour, _coordinate(left), _coordinate(width)
                )
            )
        left += width
    return Markup(
        '<svg class="segmented-bar" viewBox="0 0 100 10" preserveAspectRatio="none" role="img" aria-label="{}">'
        '<rect class="track" width="100" height="10"/>{}</svg>'
    ).format(aria_label, Markup("").join(segments))


def bubble(value: float, maximum: float) -> Markup:
    """Draw a circle for a cell of a matrix, its area relative to `maximum`; empty for zero."""
    radius = _MAX_BUBBLE_RADIUS * (_percent_of(value, maximum) / 100.0) ** 0.5
    if not radius:
        return _NO_VALUE
    return Markup(
        '<svg class="bubble" viewBox="0 0 20 20" aria-hidden="true">'
        '<circle class="series-0" cx="10" cy="10" r="{}"/></svg>'
    ).format(_coordinate(max(radius, _MIN_BUBBLE_RADIUS)))


def sparkline(values: Sequence[float | None]) -> Markup:
    """Draw values as a line without axes, from zero to their maximum; None is a gap. Decoration beside a figure."""
    top = max((value for value in values if value is not None), default=0) or 1
    lines: list[list[str]] = [[]]
    for index, value in enumerate(values):
        if value is None:
            lines.append([])
        else:
            line, height = lines[-1], _coordinate(_SPARKLINE_HEIGHT * (1 - value / top))
            if len(line) > 1 and line[-1].endswith(f" {height}") and line[-2].endswith(f" {height}"):
                line.pop()
            line.append(f"{index} {height}")
    # A single value is a line without length, which a round cap turns into a dot.
    path = "".join(f"M{line[0]}L{' '.join(line[1:] or line)}" for line in lines if line)
    return Markup(
        '<svg class="sparkline" viewBox="0 0 {} {}" preserveAspectRatio="none" aria-hidden="true"><path d="{}"/></svg>'
    ).format(max(len(values) - 1, 1), _coordinate(_SPARKLINE_HEIGHT), path)


def swatch(colour: int) -> Markup:
    """Draw the colour of a series, for a legend or a table."""
    return Markup(
        '<svg class="swatch" viewBox="0 0 10 10" aria-hidden="true">'
        '<rect class="series-{}" width="10" height="10" rx="2"/></svg>'
    ).format(colour)


def axis_scale(maximum: float, *, is_duration: bool = False) -> tuple[float, list[float]]:
    """The top of an axis that holds `maximum`, and its few evenly spaced ticks from zero to the top.

    Steps are whole numbers unless the maximum is at most 1.
    """
    if maximum <= 0:
        return 1.0, [0.0, 1.0]
    step = _duration_tick_step(maximum) if is_duration and maximum > 1 else _tick_step(maximum)
    steps = 1
    while steps * step < maximum * (1 - 1e-9):
        steps += 1
    # Multiplied rather than summed, so that a tick equals its label.
    return steps * step, [round(index * step, 9) for index in range(steps + 1)]


def _tick_step(maximum: float) -> float:
    power = 1.0
    while power * _MAX_TICKS * _TICK_STEPS[-1] < maximum:
        power *= 10
    while power * _MAX_TICKS * _TICK_STEPS[0] / 10 >= maximum:
        power /= 10
    smallest = 1.0 if maximum > 1 else 0.0
    candidates = [
        power * step for step in _TICK_STEPS if power * step >= smallest and (power > 1 or step != 2.5 or maximum <= 1)
    ]
    return next(step for step in candidates if step * _MAX_TICKS >= maximum * (1 - 1e-9))


def _duration_tick_step(maximum: float) -> float:
    for step in _DURATION_TICK_STEPS:
        if step * _MAX_TICKS >= maximum:
            return float(step)
    return _DAY_SECONDS * _tick_step(maximum / _DAY_SECONDS)


def _check_series(series: Sequence[Series], bin_labels: Sequence[str]) -> None:
    assert len(series) <= MAX_SERIES, "combine the small series"
    assert all(len(item.values) == len(bin_labels) for item in series), "a value for every bin"


def _plot(
    series: Sequence[Series],
    bin_labels: Sequence[str],
    paths: Sequence[Markup],
    ticks: Sequence[float],
    aria_label: str,
    format_value: Callable[[float], str],
    bin_titles: Sequence[str],
    label_count: int,
    is_empty: bool,
) -> Plot:
    body = Markup("").join([*paths, _hover_targets(series, bin_titles or bin_labels, format_value)])
    return Plot(
        _plot_svg(body, len(bin_labels), len(ticks), aria_label),
        tuple(format_value(tick) for tick in reversed(ticks)),
        _select_bin_labels(bin_labels, label_count),
        tuple(item.name for item in series) if len(series) > 1 else (),
        is_empty,
    )


def _plot_svg(body: Markup, bin_count: int, tick_count: int, aria_label: str) -> Markup:
    width = _coordinate(max(bin_count, 1) * _BIN_WIDTH)
    heights = (_PLOT_HEIGHT * index / (tick_count - 1) for index in range(tick_count))
    gridlines = "".join(f"M0 {_coordinate(height)}H{width}" for height in heights)
    return Markup(
        '<svg class="plot" viewBox="0 0 {} 100" preserveAspectRatio="none" role="img" aria-label="{}">'
        '<path class="gridlines" d="{}"/>{}</svg>'
    ).format(width, aria_label, gridlines, body)


def _hover_targets(series: Sequence[Series], bin_titles: Sequence[str], format_value: Callable[[float], str]) -> Markup:
    """A transparent column over each bin with values, whose tooltip lists them."""
    targets = []
    for index, title in enumerate(bin_titles):
        lines = [f"{item.name}: {format_value(value)}" for item in series if (value := item.values[index])]
        if lines:
            targets.append(
                Markup('<rect class="hover-target" x="{}" width="10" height="100"><title>{}</title></rect>').format(
                    _coordinate(index * _BIN_WIDTH), "\n".join([title, *lines])
                )
            )
    return Markup("").join(targets)


def _select_bin_labels(bin_labels: Sequence[str], label_count: int) -> tuple[str, ...]:
    """Select about `label_count` labels that divide the bins evenly.

    Where no number from 4 to 8 divides them: all labels of at most 8 bins, else the first one.
    """
    bin_count = len(bin_labels)
    divisors = [count for count in range(4, 9) if bin_count and bin_count % count == 0]
    if not divisors:
        return tuple(bin_labels) if bin_count <= 8 else (bin_labels[0],)
    selected_count = min(divisors, key=lambda count: abs(count - label_count))
    return tuple(bin_labels[index] for index in range(0, bin_count, bin_count // selected_count))


def _percent_of(value: float, total: float) -> float:
    return min(100.0, 100.0 * value / total) if total > 0 and value > 0 else 0.0


def _xy(x: float, y: float) -> str:
    return f"{_coordinate(x)} {_coordinate(y)}"


def _coordinate(value: float) -> str:
    """A coordinate with two decimals, which is finer than a screen shows."""
    return f"{value:.2f}".rstrip("0").rstrip(".") if value else "0"
