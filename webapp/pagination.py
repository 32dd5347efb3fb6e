"""Keyset paging by the query string of a page's address."""

from typing import Any

from flask import request, url_for

PAGE_SIZE = 50


def query_int(name: str) -> int | None:
    """A positive number in the query string, such as the id before which a page begins; None if missing or invalid."""
    text = request.args.get(name, "")
    return int(text) if text.isascii() and text.isdecimal() and 0 < len(text) < 17 else None


def current_url(**changes: Any) -> str:
    """The address of this page with some query parameters changed; None removes one."""
    query = {**request.args.to_dict(), **changes}
    return url_for(
        str(request.endpoint),
        **(request.view_args or {}),
        **{name: value for name, value in query.items() if value},
    )
