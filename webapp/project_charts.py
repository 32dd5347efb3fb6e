"""The pictures of a project, for a page and for a file: what each says in a sentence, its drawing, its numbers."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from markupsafe import Markup

from bus.analytics.project_metrics import Activity, Handoffs, Period, Pictures, Surfaces, Talk
from webapp import svg_charts
from webapp.svg_charts import Plot, Series

PERIOD_LABELS = {"24h": "24 hours", "7d": "7 days", "30d": "30 days", "90d": "90 days"}
PERIOD_WORDS = {
    "24h": "the last 24 hours",
    "7d": "the last 7 days",
    "30d": "the last 30 days",
    "90d": "the last 90 days",
}
_DAY = timedelta(days=1)
_OTHERS = "others"
# What an event of a type is called where people read; the names of tools are for agents.
_WORDS = {
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
class Mix:
    """What happened, by type.

    Attributes:
        rows: the colour, the name, how many, and the share of all.
    """

    title: str
    strip: Markup
    rows: list[tuple[int, str, int, str]]


@dataclass(frozen=True, slots=True)
class Over:
    """A drawing over time.

    Attributes:
        columns, rows: its numbers; the first column names the bin.
    """

    title: str
    plot: Plot
    columns: list[str]
    rows: list[list[str]]


@dataclass(frozen=True, slots=True)
class Busiest:
    """Surfaces by how often they were leased: name, leases, contended."""

    title: str
    rows: list[tuple[str, int, int]]
    most: int


@dataclass(frozen=True, slots=True)
class Matrix:
    """Who wrote to whom.

    Attributes:
        columns: `lane core`, `ada/review`, or `others`.
        rows: the sender, and how many posts went to each column.
    """

    title: str
    columns: list[str]
    rows: list[tuple[str, list[int]]]
    most: int


@dataclass(frozen=True, slots=True)
class Gallery:
    """All of them; None is a picture of nothing."""

    pictures: Pictures
    mix: Mix | None
    events: Over | None
    acked: Over | None
    times: Over | None
    anchored: Over | None
    surfaces: Busiest | None
    talk: Matrix | None


def hang(pictures: Pictures) -> Gallery:
    """Draw the pictures of a project."""
    handoffs = pictures.handoffs
    return Gallery(
        pictures,
        mix=_mix(pictures.activity) if pictures.activity.events else None,
        events=_events(pictures.activity, pictures.period) if pictures.activity.events else None,
        acked=_acked(pictures) if handoffs.posts else None,
        times=_times(pictures) if handoffs.acked else None,
        anchored=_anchored(pictures) if handoffs.posts else None,
        surfaces=_surfaces(pictures.surfaces) if pictures.surfaces.leases else None,
        talk=_talk(pictures.talk, handoffs.posts) if pictures.talk.counts else None,
    )


def percent(part: float, whole: float) -> str:
    """A share as people say it; nothing and all only where it is so."""
    share = 100 * part / whole if whole else 0.0
    if 0 < share < 1:
        return "under 1 %"
    if 99 < share < 100:
        return "over 99 %"
    return f"{share:.0f} %"


def _share(value: float) -> str:
    return f"{value:.0f} %"


def _count(number: int, one: str) -> str:
    return f"{number:,} {one}{'' if number == 1 else 's'}"


def _grouped(activity: Activity) -> list[tuple[str, int, Sequence[int]]]:
    """The most frequent types, and all others as the last: as many as there are colours."""
    names = list(activity.types)
    own = names if len(names) <= svg_charts.COLOURS else names[: svg_charts.COLOURS - 1]
    rest = names[len(own) :]
    found: list[tuple[str, int, Sequence[int]]] = [
        (_WORDS.get(name, name), activity.types[name], activity.counts[name]) for name in own
    ]
    if rest:
        together = [sum(some) for some in zip(*(activity.counts[name] for name in rest), strict=True)]
        found.append((_OTHERS, sum(together), together))
    return found


def _mix(activity: Activity) -> Mix:
    shares = _grouped(activity)
    first, most = next(iter(activity.types.items()))
    title = f"{_count(activity.events, 'event')}, {percent(most, activity.events)} of them {_WORDS.get(first, first)}"
    says = ", ".join(f"{name} {percent(n, activity.events)}" for name, n, _ in shares)
    colours = {name: place for place, (name, _, _) in enumerate(shares)}
    rows = [
        (colours.get(word, svg_charts.COLOURS - 1), word, n, percent(n, activity.events))
        for word, n in ((_WORDS.get(kind, kind), n) for kind, n in activity.types.items())
    ]
    return Mix(title, svg_charts.strip([n for _, n, _ in shares], says=says), rows)


def _events(activity: Activity, period: Period) -> Over:
    shares = _grouped(activity)
    sums = [sum(some) for some in zip(*(counts for _, _, counts in shares), strict=True)]
    top = max(range(len(sums)), key=sums.__getitem__)
    titles = [_bin_title(at, period.fine) for at in activity.bins]
    unit = "day" if period.fine == _DAY else "hour"
    title = f"{_count(sums[top], 'event')} in the busiest {unit}, {titles[top]}"
    plot = svg_charts.columns(
        [Series(name, counts) for name, _, counts in shares],
        _labels(activity.bins, period, period.fine),
        says=f"{title}.",
        titles=titles,
        stretches=7 if period.name == "7d" else 6,
    )
    # Of 168 hours most are quiet: the table leaves them out and says so by its times.
    rows = [
        [titles[at], *(f"{counts[at]:,}" for _, _, counts in shares), f"{sums[at]:,}"]
        for at in range(len(sums))
        if sums[at]
    ]
    return Over(title, plot, [unit.capitalize(), *(name for name, _, _ in shares), "all"], rows)


def _acked(pictures: Pictures) -> Over:
    whole, bins = pictures.handoffs, pictures.by_bin
    title = (
        f"{whole.acked:,} of {_count(whole.posts, 'handoff')} acknowledged ({percent(whole.acked, whole.posts)})"
        if whole.posts > 1
        else ("The one handoff is acknowledged" if whole.acked else "The one handoff is not acknowledged yet")
    )
    return _over(
        pictures,
        svg_charts.columns,
        [
            Series("acknowledged", [one.acked for one in bins]),
            Series("not yet", [one.posts - one.acked for one in bins]),
        ],
        title,
        ["handoffs", "acknowledged", "share"],
        lambda one: [f"{one.posts:,}", f"{one.acked:,}", percent(one.acked, one.posts) if one.posts else "–"],
    )


def _times(pictures: Pictures) -> Over:
    whole, bins = pictures.handoffs, pictures.by_bin
    if whole.acked == 1:
        title = f"The one that is acknowledged waited for {_seconds(whole.median_seconds)}"
    else:
        half, most = _seconds(whole.median_seconds), _seconds(whole.p90_seconds)
        title = f"Half are acknowledged within {half}, nine in ten within {most}"
    return _over(
        pictures,
        _time_lines,
        [
            Series("half within", [one.median_seconds for one in bins]),
            Series("nine in ten within", [one.p90_seconds for one in bins]),
        ],
        title,
        ["acknowledged", "median", "p90"],
        lambda one: [f"{one.acked:,}", _seconds(one.median_seconds), _seconds(one.p90_seconds)],
    )


def _anchored(pictures: Pictures) -> Over:
    whole, bins = pictures.handoffs, pictures.by_bin
    return _over(
        pictures,
        _share_lines,
        [Series("anchored", [100 * one.anchored / one.posts if one.posts else None for one in bins])],
        f"{percent(whole.anchored, whole.posts)} of handoffs name what they are about",
        ["handoffs", "with a ref", "share"],
        lambda one: [f"{one.posts:,}", f"{one.anchored:,}", percent(one.anchored, one.posts) if one.posts else "–"],
    )


def _over(
    pictures: Pictures,
    draw: Callable[..., Plot],
    series: list[Series],
    title: str,
    columns: list[str],
    row: Callable[[Handoffs], list[str]],
) -> Over:
    """A drawing of handoffs over the bins of the period; its table has a row for each bin with handoffs."""
    period = pictures.period
    titles = [_bin_title(at, period.coarse) for at in pictures.bins]
    plot = draw(series, _labels(pictures.bins, period, period.coarse), says=f"{title}.", titles=titles)
    rows = [[name, *row(one)] for name, one in zip(titles, pictures.by_bin, strict=True) if one.posts]
    return Over(title, plot, ["Hour" if period.coarse != _DAY else "Day", *columns], rows)


def _time_lines(*args: Sequence[object], **options: object) -> Plot:
    return svg_charts.lines(*args, show=svg_charts.seconds, durations=True, **options)  # type: ignore[arg-type]


def _share_lines(*args: Sequence[object], **options: object) -> Plot:
    return svg_charts.lines(*args, show=_share, **options)  # type: ignore[arg-type]


def _surfaces(found: Surfaces) -> Busiest:
    rows = [(one.surface, one.leases, one.contended) for one in found.listed]
    if found.others.leases:
        rows.append((_OTHERS, found.others.leases, found.others.contended))
    said = f"{_count(found.leases, 'lease')}, "
    if found.contended:
        said += f"{found.contended:,} ({percent(found.contended, found.leases)}) where somebody else was at work"
    else:
        said += "none where somebody else was at work"
    return Busiest(said, rows, max((leases for _, leases, _ in rows[: len(found.listed)]), default=0))


def _talk(found: Talk, posts: int) -> Matrix:
    people = [*found.senders, *(one.name for one in found.addressees if one.kind == "actor")]
    handles = {name.partition("/")[0] for name in people if name}

    def called(name: str) -> str:
        """Where all are of one owner, the handle says nothing; the owner alone has no label."""
        return (name.partition("/")[2] or name) if len(handles) == 1 else name

    columns = [f"lane {one.name}" if one.kind == "lane" else called(one.name) or _OTHERS for one in found.addressees]
    rows = [
        (called(sender) or _OTHERS, [found.counts.get((row, column), 0) for column in range(len(columns))])
        for row, sender in enumerate(found.senders)
    ]
    named = {
        place: n for place, n in found.counts.items() if found.senders[place[0]] and found.addressees[place[1]].name
    }
    if not named:
        return Matrix(f"{_count(posts, 'handoff')} among very many", columns, rows, max(found.counts.values()))
    (row, column), most = max(named.items(), key=lambda item: (item[1], -item[0][0], -item[0][1]))
    title = f"Most often {rows[row][0]} writes to {columns[column]}: {most:,} of {_count(posts, 'handoff')}"
    return Matrix(title, columns, rows, max(named.values()))


def _seconds(value: float | None) -> str:
    return "–" if value is None else svg_charts.seconds(value)


def _bin_title(at: datetime, width: timedelta) -> str:
    return f"{at:%a %-d %b}" if width == _DAY else f"{at:%a %-d %b, %H:%M}"


def _labels(bins: Sequence[datetime], period: Period, width: timedelta) -> list[str]:
    """What stands below a drawing: hours of a day by their time, hours of a week by their day, days by their date."""
    if period.name == "24h":
        return [f"{at:%H:%M}" for at in bins]
    return [f"{at:%a}" if period.name == "7d" else f"{at:%-d %b}" for at in bins]
