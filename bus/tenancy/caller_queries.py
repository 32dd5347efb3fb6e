"""Reads of the tools: one statement that checks the caller, counts the unread and answers."""

from typing import Any

from bus.ctx import Ctx
from bus.db import Connection, Row


def fetch_as_caller(conn: Connection, ctx: Ctx, query: str, order_by: str, **params: Any) -> tuple[int, list[Row]]:
    """Run `query` as the caller.

    Args:
        query: a SELECT over named parameters, of which `project` and `me` are always there; its first column is
            never null.
        order: ORDER BY of the answer, over `r`, the query's alias.
    Returns:
        How many posts wait for the caller (up to 100), and the rows.
    """
    rows = conn.fetch_all(
        "WITH caller AS MATERIALIZED ("
        " SELECT bus_unread(c.project_id, %(me)s) AS unread FROM bus_authenticate(%(me)s, %(token)s, false) c) "
        f"SELECT caller.unread, r.* FROM caller LEFT JOIN LATERAL ({query}) AS r ON true ORDER BY {order_by}",
        {"me": ctx.participation_id, "token": ctx.token_id, "project": ctx.project_id, **params},
    )
    unread = int(rows[0][0])
    return unread, [row[1:] for row in rows if row[1] is not None]


def paginate(rows: list[Row], limit: int, key_column: int = 0) -> tuple[list[Row], Any]:
    """Split what a query with LIMIT limit + 1 returned into a page and the key of the next, or None."""
    if len(rows) <= limit:
        return rows, None
    return rows[:limit], rows[limit - 1][key_column]
