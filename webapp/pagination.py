"""Keyset paging by the query string of a page's address."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from flask import request, url_for

from bus.db import Connection
from bus.db.pagination import paginate
from bus.errors import BusError
from webapp.context import connection

PAGE_SIZE = 50


class _Keyed(Protocol):
    @property
    def id(self) -> int: ...


Row = TypeVar("Row", bound=_Keyed)


@dataclass(frozen=True, slots=True)
class ListPage(Generic[Row]):
    """A page of a list that the query string filters, newest first.

    Attributes:
        filter_error: why the engine refused the filter; the page is empty then.
        older, newest: addresses of the next and of the first page; None where this is the last or the first.
    """

    rows: Sequence[Row]
    filter_error: str | None
    older: str | None
    newest: str | None


def fetch_page(fetch: Callable[[Connection, int | None, int], Sequence[Row]]) -> ListPage[Row]:
    """Fetch the page that the address names.

    Args:
        fetch: is called with the id before which the page begins and the number of rows to return.
    """
    before = query_int("before")
    rows: Sequence[Row] = ()
    has_more, filter_error = False, None
    try:
        with connection() as conn:
            rows, has_more = paginate(fetch(conn, before, PAGE_SIZE + 1), PAGE_SIZE)
    except BusError as error:
        filter_error = error.message
    return ListPage(
        rows,
        filter_error,
        older=current_url(before=str(rows[-1].id)) if has_more else None,
        newest=current_url(before=None) if before else None,
    )


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
