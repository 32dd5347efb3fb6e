"""Pictures of numbers, drawn as SVG: columns over time, lines, bars, bubbles. static/drawing.css is their look.

A drawing holds no text: it is stretched to the room that it gets, and text would be stretched with it. What stands at
its axes is text of the page around it (templates/parts/drawing.html), at the same size on a phone as on a desk. Every
drawing stands beside a table of its numbers, so it is one image to whoever cannot see it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

COLOURS = 8
"""How many series can be told apart; more are best put together as the last."""

_HEIGHT = 100.0
_BIN = 10.0
_GAP = 2.0
_MOST_TICKS = 4
# A step of an axis is one of these times a power of ten; of an axis of durations one of those.
_STEPS = (1.0, 2.0, 2.5, 5.0, 10.0)
_SECONDS = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10_800, 21_600, 43_200, 86_400)
_DAY = 86_400


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
    ticks: tuple[str, ...]
    marks: tuple[str, ...]
    legend: tuple[str, ...]
    empty: bool


def columns(
    series: Sequence[Series],
    bins: Sequence[str],
    *,
    says: str,
    show: Callable[[float], str] | None = None,
    titles: Sequence[str] = (),
    stretches: int = 6,
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
    _check(series, bins)
    show = show or number
    totals = [sum(one.values[at] or 0.0 for one in series) for at in range(len(bins))]
    top, ticks = scale(max(totals, default=0.0))
    bases = [0.0] * len(bins)
    paths = []
    for colour, one in enumerate(series):
        steps = []
        for at, value in enumerate(one.values):
            if not value:
                continue
            height = value / top * _HEIGHT
            low = _HEIGHT - bases[at]
            steps.append(f"M{_n(at * _BIN + _GAP / 2)} {_n(low)}h{_n(_BIN - _GAP)}v{_n(-height)}h{_n(_GAP - _BIN)}z")
            bases[at] += height
        if steps:
            paths.append(Markup('<path class="c{}" d="{}"/>').format(colour, "".join(steps)))
    body = Markup("").join([*paths, _pointers(series, titles or bins, show)])
    return Plot(
        _svg(body, len(bins), len(ticks), says),
        tuple(show(tick) for tick in reversed(ticks)),
        _marks(bins, stretches),
        _legend(series),
        not any(totals),
    )


def lines(
    series: Sequence[Series],
    bins: Sequence[str],
    *,
    says: str,
    show: Callable[[float], str] | None = None,
    titles: Sequence[str] = (),
    stretches: int = 6,
    durations: bool = False,
) -> Plot:
    """Lines over bins, broken where a value is missing; a value between two gaps is a dot.

    Args:
        series, bins, says, show, titles, stretches: as for `columns`.
        durations: the values are seconds, and the axis has steps that people know.
    """
    _check(series, bins)
    show = show or number
    values = [value for one in series for value in one.values if value is not None]
    top, ticks = scale(max(values, default=0.0), durations=durations)
    paths = []
    for colour, one in enumerate(series):
        steps, dots = [], []
        for at, value in enumerate(one.values):
            if value is None:
                continue
            point = f"{_n((at + 0.5) * _BIN)} {_n(_HEIGHT - value / top * _HEIGHT)}"
            follows = at > 0 and one.values[at - 1] is not None
            if follows or (at + 1 < len(one.values) and one.values[at + 1] is not None):
                steps.append(f"L{point}" if follows else f"M{point}")
            else:
                # A line of no length has round ends, and so is a dot.
                dots.append(f"M{point}h0")
        for kind, found in (("line", steps), ("line dot", dots)):
            if found:
                paths.append(Markup('<path class="{} c{}" d="{}"/>').format(kind, colour, "".join(found)))
    body = Markup("").join([*paths, _pointers(series, titles or bins, show)])
    return Plot(
        _svg(body, len(bins), len(ticks), says),
        tuple(show(tick) for tick in reversed(ticks)),
        _marks(bins, stretches),
        _legend(series),
        not values,
    )


def bar(value: float, most: float, *, part: float = 0.0) -> Markup:
    """A bar for a row of a table, as long as its value is of the greatest; `part` of it is marked, as contention is."""
    share = _share(value, most)
    marked = _share(part, most)
    return Markup(
        '<svg class="bar" viewBox="0 0 100 10" preserveAspectRatio="none" aria-hidden="true">'
        '<rect class="rail" width="100" height="10"/><rect class="c0" width="{}" height="10"/>{}</svg>'
    ).format(_n(share), Markup('<rect class="marked" width="{}" height="10"/>').format(_n(marked)) if marked else "")


def strip(values: Sequence[float], *, says: str) -> Markup:
    """One bar that is divided as its values are, in the order of the colours; at most COLOURS values."""
    assert len(values) <= COLOURS, "put the small ones together"
    whole = sum(values)
    parts, left = [], 0.0
    for colour, value in enumerate(values):
        width = _share(value, whole)
        if width:
            parts.append(
                Markup('<rect class="c{}" x="{}" width="{}" height="10"/>').format(colour, _n(left), _n(width))
            )
        left += width
    return Markup(
        '<svg class="strip" viewBox="0 0 100 10" preserveAspectRatio="none" role="img" aria-label="{}">'
        '<rect class="rail" width="100" height="10"/>{}</svg>'
    ).format(says, Markup("").join(parts))


def bubble(value: float, most: float) -> Markup:
    """A circle for a cell of a matrix, whose area is to the greatest as its value is; nothing for nothing."""
    radius = 9.0 * (_share(value, most) / 100.0) ** 0.5
    if not radius:
        return Markup("")
    return Markup(
        '<svg class="bubble" viewBox="0 0 20 20" aria-hidden="true"><circle class="c0" cx="10" cy="10" r="{}"/></svg>'
    ).format(_n(max(radius, 1.2)))


def swatch(colour: int) -> Markup:
    """The sign of a series in a legend or beside its name in a table."""
    return Markup(
        '<svg class="swatch" viewBox="0 0 10 10" aria-hidden="true"><rect class="c{}" width="10" height="10" rx="2"/>'
        "</svg>"
    ).format(colour)


def number(value: float) -> str:
    """A value as people write it: `12,000`, `2.5`."""
    return f"{value:,.0f}" if value == int(value) else f"{value:,.2f}".rstrip("0")


def seconds(value: float) -> str:
    """A length of time in few characters: `40 ms`, `12 s`, `5 min`, `3.5 h`, `2 d`."""
    if value == 0:
        return "0"
    if value < 1:
        return f"{value * 1000:.0f} ms"
    for size, unit in ((_DAY, "d"), (3600, "h"), (60, "min")):
        if value >= size:
            return f"{_short(value / size)} {unit}"
    return f"{_short(value)} s"


def scale(greatest: float, *, durations: bool = False) -> tuple[float, list[float]]:
    """The top of an axis that holds a value, and its ticks from zero to that top, evenly spaced and few.

    A count has whole steps; what lies between zero and one has broken ones.
    """
    if greatest <= 0:
        return 1.0, [0.0, 1.0]
    step = _duration_step(greatest) if durations and greatest > 1 else _step(greatest)
    parts = 1
    while parts * step < greatest * (1 - 1e-9):
        parts += 1
    # Multiplied and not added up, so that a tick is the number that it says.
    return parts * step, [round(part * step, 9) for part in range(parts + 1)]


def _step(greatest: float) -> float:
    size = 1.0
    while size * _MOST_TICKS * _STEPS[-1] < greatest:
        size *= 10
    while size * _MOST_TICKS * _STEPS[0] / 10 >= greatest:
        size /= 10
    least = 1.0 if greatest > 1 else 0.0
    candidates = [size * step for step in _STEPS if size * step >= least and (size > 1 or step != 2.5 or greatest <= 1)]
    return next(step for step in candidates if step * _MOST_TICKS >= greatest * (1 - 1e-9))


def _duration_step(greatest: float) -> float:
    for step in _SECONDS:
        if step * _MOST_TICKS >= greatest:
            return float(step)
    return _DAY * _step(greatest / _DAY)


def _check(series: Sequence[Series], bins: Sequence[str]) -> None:
    assert len(series) <= COLOURS, "put the small ones together"
    assert all(len(one.values) == len(bins) for one in series), "a value for every bin"


def _svg(body: Markup, bins: int, ticks: int, says: str) -> Markup:
    width = _n(max(bins, 1) * _BIN)
    grid = "".join(f"M0 {_n(_HEIGHT * at / (ticks - 1))}H{width}" for at in range(ticks))
    return Markup(
        '<svg class="plot" viewBox="0 0 {} 100" preserveAspectRatio="none" role="img" aria-label="{}">'
        '<path class="grid" d="{}"/>{}</svg>'
    ).format(width, says, grid, body)


def _pointers(series: Sequence[Series], titles: Sequence[str], show: Callable[[float], str]) -> Markup:
    """A column over each bin that says its numbers under the pointer, where there are any."""
    found = []
    for at, title in enumerate(titles):
        said = [f"{one.name}: {show(value)}" for one in series if (value := one.values[at])]
        if said:
            found.append(
                Markup('<rect class="hit" x="{}" width="10" height="100"><title>{}</title></rect>').format(
                    _n(at * _BIN), "\n".join([title, *said])
                )
            )
    return Markup("").join(found)


def _marks(bins: Sequence[str], stretches: int) -> tuple[str, ...]:
    """The names of some bins, as many as fit, each the first of a stretch of one length; of a prime number of bins all,
    if they are few, else none but the first."""
    count = len(bins)
    fitting = [parts for parts in range(4, 9) if count and count % parts == 0]
    if not fitting:
        return tuple(bins) if count <= 8 else (bins[0],)
    parts = min(fitting, key=lambda one: abs(one - stretches))
    return tuple(bins[at] for at in range(0, count, count // parts))


def _legend(series: Sequence[Series]) -> tuple[str, ...]:
    return tuple(one.name for one in series) if len(series) > 1 else ()


def _share(value: float, whole: float) -> float:
    return min(100.0, 100.0 * value / whole) if whole > 0 and value > 0 else 0.0


def _short(value: float) -> str:
    return f"{value:.0f}" if value >= 10 or value == int(value) else f"{value:.1f}"


def _n(value: float) -> str:
    """A number of a drawing: two digits are finer than any screen."""
    return f"{value:.2f}".rstrip("0").rstrip(".") if value else "0"
