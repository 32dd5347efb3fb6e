"""How long things took: rounded so that few values stand for many, and what half and nine in ten of them took."""

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from itertools import accumulate
from math import floor


def rounded_seconds_sql(seconds_sql: str) -> str:
    """SQL for a length of time as a numeric, from SQL for its seconds: to the millisecond below a second, to three
    digits above. There are few enough such values to count each, whatever the number of lengths."""
    return (
        f"(CASE WHEN {seconds_sql} < 1 THEN round(({seconds_sql})::numeric, 3)"
        f" ELSE round(({seconds_sql})::numeric, 2 - floor(log({seconds_sql}))::integer) END)"
    )


def compute_quantiles(counts: Mapping[float, int], fractions: Sequence[float]) -> tuple[float | None, ...]:
    """The values below which each of `parts` of all lie, interpolated between neighbours as percentile_cont does.

    Args:
        counts: how often each value occurs.
        parts: 0 to 1 each.
    Returns:
        One for each part; None of nothing.
    """
    values = sorted(counts)
    upto = list(accumulate(counts[value] for value in values))
    if not upto or not upto[-1]:
        return (None,) * len(fractions)
    found = []
    for part in fractions:
        position = part * (upto[-1] - 1)
        lower = floor(position)
        below = values[bisect_right(upto, lower)]
        above = values[bisect_right(upto, min(lower + 1, upto[-1] - 1))]
        found.append(below + (above - below) * (position - lower))
    return tuple(found)
