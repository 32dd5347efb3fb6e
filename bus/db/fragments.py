"""Fragments of SQL that several statements share."""


def capped_count(source: str, cap: str | int) -> str:
    """A scalar subquery that counts rows up to a cap, so that its cost is bounded.

    Args:
        source: what follows SELECT: "FROM post o WHERE ...".
        cap: the largest count, as a number or a parameter ("%(cap)s").
    """
    return f"(SELECT count(*)::integer FROM (SELECT {source} LIMIT {cap}) AS counted)"
