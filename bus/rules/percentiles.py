"""Percentiles of durations, computed from counts of rounded values."""

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from itertools import accumulate
from math import floor


def rounded_seconds_sql(seconds_sql: str, digits: int = 3) -> str:
    """SQL that rounds a duration, so that few distinct values remain and each can be counted.

    Args:
        seconds_sql: SQL for the duration in seconds.
        digits: the significant digits of a duration above one second.
    Returns:
        SQL for a numeric: with `digits` decimals below one second, to the millisecond for three.
    """
    return (
        f"(CASE WHEN {seconds_sql} < 1 THEN round(({seconds_sql})::numeric, {digits})"
        f" ELSE round(({seconds_sql})::numeric, {digits - 1} - floor(log({seconds_sql}))::integer) END)"
    )


def compute_quantiles(counts: Mapping[float, int], fractions: Sequence[float]) -> tuple[float | None, ...]:
    """Compute quantiles of counted values, interpolated between adjacent values as percentile_cont does.

    Args:
        counts: the number of occurrences of each value.
        fractions: 0 to 1 each.
    Returns:
        One quantile for each fraction; None each if there are no values.
    """
    values = sorted(counts)
    cumulative_counts = list(accumulate(counts[value] for value in values))
    if not cumulative_counts or not cumulative_counts[-1]:
        return (None,) * len(fractions)
    last = cumulative_counts[-1] - 1
    quantiles = []
    for fraction in fractions:
        position = fraction * last
        lower = floor(position)
        below = values[bisect_right(cumulative_counts, lower)]
        above = values[bisect_right(cumulative_counts, min(lower + 1, last))]
        quantiles.append(below + (above - below) * (position - lower))
    return tuple(quantiles)
