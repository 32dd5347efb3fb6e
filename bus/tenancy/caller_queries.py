"""Reads of the tools, as their caller. Use bus.tenancy.authentication and bus.db.pagination in new code."""

from typing import Any

from bus.db import Row
from bus.tenancy.authentication import fetch_as_caller

__all__ = ["fetch_as_caller", "paginate"]


def paginate(rows: list[Row], limit: int, key_column: int = 0) -> tuple[list[Row], Any]:
    """Split the result of a query with LIMIT `limit` + 1 into a page and the key of the next page, or None."""
    if len(rows) <= limit:
        return rows, None
    return rows[:limit], rows[limit - 1][key_column]
