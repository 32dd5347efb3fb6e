"""Keyset pagination: a query asks for one row more than a page holds, and the extra row says that there are more."""

from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


def paginate(rows: Sequence[T], limit: int) -> tuple[Sequence[T], bool]:
    """Split the result of a query with LIMIT `limit` + 1.

    Returns:
        At most `limit` rows, and whether more rows follow. The key of the last row asks for the next page.
    """
    return rows[:limit], len(rows) > limit
