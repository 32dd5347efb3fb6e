"""`llm-bus mirror`: export a project's ledger and state as files for git, over MCP with a token."""

from dataclasses import asdict
from pathlib import Path

import click

from cli.options import emit, json_option


@click.command("mirror", short_help="Export a project's ledger and state as files for git.")
@click.argument("project")
@click.argument("out", type=click.Path(file_okay=False, path_type=Path))
@json_option
def command(project: str, out: Path, as_json: bool) -> None:
    """Bring OUT/ledger.jsonl and OUT/state.md up to date with PROJECT.

    Needs no database: it calls the bus at LLM_BUS_URL, or else the one that runs on this machine, with LLM_BUS_TOKEN, a
    token of the project. A repeated run appends new events; if there are none, it changes no byte.
    """
    from cli import mirror
    from cli.connection import connect

    with connect() as bus:
        result = mirror.export(bus, project, out)
    state = ", state updated" if result.state_changed else ""
    emit(asdict(result), f"{result.events} events, {result.added} new{state}.", as_json=as_json)
