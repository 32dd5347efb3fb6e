"""Keyset pagination: a query reads one row more than a page holds; the extra row means that more rows follow."""

from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


def paginate(rows: Sequence[T], limit: int) -> tuple[Sequence[T], bool]:
    """Split the result of a query with LIMIT `limit` + 1.

    Returns:
        At most `limit` rows, and whether more rows follow. The next page starts at the key of the last row.
    """
    return rows[:limit], len(rows) > limit
