"""How long things took: rounded so that few values stand for many, and what half and nine in ten of them took."""

from collections.abc import Mapping
from math import floor


def rounded(seconds: str) -> str:
    """SQL for a length of time as a numeric, from SQL for its seconds: to the millisecond below a second, to three
    digits above. There are few enough such values to count each, whatever the number of lengths."""
    return (
        f"(CASE WHEN {seconds} < 1 THEN round(({seconds})::numeric, 3)"
        f" ELSE round(({seconds})::numeric, 2 - floor(log({seconds}))::integer) END)"
    )


def quantile(counts: Mapping[float, int], part: float) -> float | None:
    """The value below which `part` of all lie, interpolated between neighbours as percentile_cont does.

    Args:
        counts: how often each value occurs.
        part: 0 to 1.
    Returns:
        None of nothing.
    """
    total = sum(counts.values())
    if not total:
        return None
    position = part * (total - 1)
    lower = floor(position)
    values: list[float] = []
    seen = 0
    for value in sorted(counts):
        seen += counts[value]
        while len(values) < 2 and seen > lower + len(values):
            values.append(value)
    return values[0] + (values[-1] - values[0]) * (position - lower)
