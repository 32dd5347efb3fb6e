"""Options and output that commands share."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

data_option = click.option(
    "--data",
    type=click.Path(file_okay=False, path_type=Path),
    help="The data folder of the bus; default: LLM_BUS_DATA, else .data in the checkout.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print one line of JSON.")


def limit_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of a list that pages by id."""
    command = click.option(
        "--limit", type=click.IntRange(1, 1000), default=200, show_default=True, help="The number of rows."
    )(command)
    return click.option(
        "--after", type=click.IntRange(0), default=0, help="List rows with a greater id: the next page."
    )(command)


def emit(value: Any, text: str, *, as_json: bool) -> None:
    """Print the result as JSON or as text."""
    click.echo(json.dumps(value, default=str, ensure_ascii=False) if as_json else text)


def format_table(headers: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Align rows in columns under the headers; `None.` if there are no rows."""
    if not rows:
        return "None."
    cells = [[str(title) for title in headers]]
    cells += [["" if value is None else str(value) for value in row] for row in rows]
    widths = [max(len(row[column]) for row in cells) for column in range(len(headers))]
    return "\n".join(
        "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in cells
    )
