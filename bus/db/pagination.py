"""Keyset pagination: a query reads one row more than a page holds; the extra row means that more rows follow."""

from collections.abc import Callable, Sequence
from typing import TypeVar

T = TypeVar("T")


def paginate(rows: Sequence[T], limit: int) -> tuple[Sequence[T], bool]:
    """Split the result of a query with LIMIT `limit` + 1.

    Returns:
        At most `limit` rows, and whether more rows follow. The next page starts at the key of the last row.
    """
    return rows[:limit], len(rows) > limit


def count_rows_that_fit(rows: Sequence[T], limit: int, max_bytes: int, size_of: Callable[[T], int]) -> int:
    """Count the first rows, at most `limit` and at least one, whose sizes together fit into `max_bytes`."""
    total_bytes = 0
    for index, row in enumerate(rows[:limit]):
        total_bytes += size_of(row)
        if total_bytes > max_bytes:
            return max(index, 1)
    return limit
