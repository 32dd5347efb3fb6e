"""Export of rows as CSV or JSON lines, streamed in batches."""

import csv
import io
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Protocol, TypeVar

from flask import Response

BATCH_SIZE = 1000
"""How many rows a batch holds: each is read on a connection of its own, so that a slow download blocks nothing."""

_MIMETYPES = {"csv": "text/csv", "jsonl": "application/x-ndjson"}


class Row(Protocol):
    """A row that pages by its id."""

    @property
    def id(self) -> int:
        """The key: rows are exported from the highest to the lowest."""


RowT = TypeVar("RowT", bound=Row)


def export_rows(
    fetch_batch: Callable[[int | None], Sequence[RowT]],
    to_values: Callable[[RowT], Sequence[Any]],
    *,
    columns: Sequence[str],
    name: str,
    file_format: str,
) -> Response:
    """Stream rows as a download, newest first.

    Args:
        fetch_batch: returns at most `BATCH_SIZE` rows with ids below its argument. It is called once before the
            response begins, so that an error becomes an error page.
        to_values: the values of a row in the order of `columns`; a dict or list is written as JSON.
        columns: the header of the CSV file, and the keys of the JSON objects.
        name: file name without its extension.
        file_format: `csv` or `jsonl`.
    """
    batches = (map(to_values, batch) for batch in _iter_batches(fetch_batch(None), fetch_batch))
    lines = _to_csv(columns, batches) if file_format == "csv" else _to_jsonl(columns, batches)
    response = Response(lines, mimetype=_MIMETYPES[file_format])
    response.headers["Content-Disposition"] = f'attachment; filename="{name}.{file_format}"'
    return response


def escape_formula(value: Any) -> Any:
    """Prefix text that a spreadsheet would evaluate as a formula with an apostrophe."""
    return f"'{value}" if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r") else value


def _iter_batches(
    batch: Sequence[RowT], fetch_batch: Callable[[int | None], Sequence[RowT]]
) -> Iterator[Sequence[RowT]]:
    while batch:
        yield batch
        batch = fetch_batch(batch[-1].id)


def _to_csv(columns: Sequence[str], batches: Iterable[Iterable[Sequence[Any]]]) -> Iterator[str]:
    yield ",".join(columns) + "\r\n"
    for batch in batches:
        text = io.StringIO()
        csv.writer(text).writerows(map(_to_csv_row, batch))
        yield text.getvalue()


def _to_csv_row(values: Sequence[Any]) -> list[Any]:
    # JSON begins with a brace or a bracket, so no spreadsheet evaluates it.
    return [_to_json(value) if isinstance(value, dict | list) else escape_formula(value) for value in values]


def _to_jsonl(columns: Sequence[str], batches: Iterable[Iterable[Sequence[Any]]]) -> Iterator[str]:
    for batch in batches:
        yield "".join(f"{_to_json(dict(zip(columns, values, strict=True)))}\n" for values in batch)


def _to_json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)
