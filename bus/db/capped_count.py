"""SQL fragments shared by several statements."""


def capped_count(source: str, cap: str | int) -> str:
    """Return a scalar subquery that counts rows up to a cap, so that its cost is bounded.

    Args:
        source: the query after SELECT: "FROM post o WHERE ...".
        cap: the largest count, as a number or a parameter ("%(cap)s").
    """
    return f"(SELECT count(*)::integer FROM (SELECT {source} LIMIT {cap}) AS counted)"
