"""Counts, percentages, durations and relative times as people read them."""

import re
from datetime import datetime, timedelta

MISSING = "–"
"""Stands for a value that does not exist, such as the median of nothing."""

_DAY_SECONDS = 86_400
_LONG_UNITS = (("day", _DAY_SECONDS), ("hour", 3_600), ("minute", 60))
_SHORT_UNITS = ((_DAY_SECONDS, "d"), (3_600, "h"), (60, "min"))
# Below this a time is "just now" and a duration is written in seconds.
_SMALLEST_LONG_SECONDS = 45
_MAX_RELATIVE_DAYS = 60


def pluralize(quantity: int, singular: str, plural: str | None = None) -> str:
    """Format a count with its noun: `1 post`, `12,000 posts`."""
    return f"{quantity:,} {singular if quantity == 1 else plural or singular + 's'}"


def format_number(value: float) -> str:
    """Format a number with at most two decimals: `12,000`, `2.5`."""
    return f"{value:,.0f}" if value == int(value) else f"{value:,.2f}".rstrip("0")


def format_percent(fraction: float | None, digits: int = 1) -> str:
    """Format a fraction of 1: `77.5%`."""
    return MISSING if fraction is None else f"{100 * fraction:.{digits}f}%"


def format_share(part: float, whole: float) -> str:
    """Format a part of a whole in whole percents: `41%`; `0%` and `100%` only where they are exact."""
    percent = 100 * part / whole if whole else 0.0
    if 0 < percent < 1:
        return "under 1%"
    if 99 < percent < 100:
        return "over 99%"
    return f"{percent:.0f}%"


def format_seconds(seconds: float | None) -> str:
    """Format a duration for a table or an axis: `40 ms`, `12 s`, `5 min`, `3.5 h`, `2 d`."""
    if seconds is None:
        return MISSING
    if seconds == 0:
        return "0 s"
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    size, unit = next(((size, unit) for size, unit in _SHORT_UNITS if seconds >= size), (1, "s"))
    value = seconds / size
    return f"{value:.0f} {unit}" if value >= 10 else f"{value:.1f}".removesuffix(".0") + f" {unit}"


def format_duration(duration: timedelta | float) -> str:
    """Format a duration for a sentence, in its largest unit: `30 minutes`, `12 s`."""
    seconds = duration.total_seconds() if isinstance(duration, timedelta) else duration
    return _in_largest_unit(seconds) if seconds >= _SMALLEST_LONG_SECONDS else f"{max(0, round(seconds))} s"


def format_relative_time(at: datetime, now: datetime) -> str:
    """Format a time relative to `now`: `5 minutes ago`, `in 2 days`, `just now`; a date from 60 days on."""
    seconds = (now - at).total_seconds()
    distance = abs(seconds)
    if distance < _SMALLEST_LONG_SECONDS:
        return "just now" if seconds >= 0 else "in a moment"
    if distance >= _MAX_RELATIVE_DAYS * _DAY_SECONDS:
        return f"{at:%-d %b %Y}"
    text = _in_largest_unit(distance)
    return f"{text} ago" if seconds > 0 else f"in {text}"


def _in_largest_unit(seconds: float) -> str:
    for unit, size in _LONG_UNITS:
        # A value just below a unit is rounded up to it, so that nothing lasts 60 minutes.
        if seconds >= size * 0.99:
            return pluralize(max(1, round(seconds / size)), unit)
    return "1 minute"


_MAX_REF_LENGTH = 40
_HOSTED_ITEM = re.compile(
    r"https?://[^/\s]+/(?P<repository>[^/\s]+/[^/\s]+)/(?:-/)?(?P<kind>pull|pulls|issues|merge_requests|commit)"
    r"/(?P<item>[0-9a-f]+)(?:[/?#]\S*)?"
)


def shorten_ref(ref: str) -> str:
    """Shorten the address of a pull request, an issue or a commit: `acme/storefront#142`; cut other long texts."""
    item = _HOSTED_ITEM.fullmatch(ref)
    if item is not None:
        separator = "@" if item["kind"] == "commit" else "!" if item["kind"] == "merge_requests" else "#"
        return f"{item['repository']}{separator}{item['item'][:7] if separator == '@' else item['item']}"
    short = re.sub(r"^https?://(?:www\.)?", "", ref).rstrip("/")
    return short if len(short) <= _MAX_REF_LENGTH else f"{short[: _MAX_REF_LENGTH - 1]}…"


def format_age(at: datetime, now: datetime) -> str:
    """Format the distance of a time in the fewest characters: `18 min`, `3 d`, and `in 2 h` for the future."""
    seconds = (now - at).total_seconds()
    size = abs(seconds)
    for length, unit in _SHORT_UNITS:
        if size >= length:
            text = f"{int(size // length)} {unit}"
            break
    else:
        text = "now" if seconds >= 0 else "1 min"
    return f"in {text}" if seconds < 0 else text


_MARKDOWN_SIGNS = re.compile(
    r"^\s{0,3}(?:#{1,6}\s+|>\s?|[-*+]\s+(?:\[[ xX]\]\s+)?|\|[\s:|-]*$|\|)|(?<=\s)\|(?=\s|$)|\*\*|~~|`+", re.MULTILINE
)


def excerpt(text: str, length: int = 100) -> str:
    """The beginning of a text on one line, without signs of Markdown."""
    return " ".join(_MARKDOWN_SIGNS.sub("", text[: 4 * length]).split())[:length]
