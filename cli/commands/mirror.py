"""`llm-bus mirror`: a project's ledger and state as files for git, over MCP with a token."""

from dataclasses import asdict
from pathlib import Path

import click

from cli.options import emit, json_option


@click.command("mirror", short_help="Export a project's ledger and state, for committing into git.")
@click.argument("project")
@click.argument("out", type=click.Path(file_okay=False, path_type=Path))
@json_option
def command(project: str, out: Path, as_json: bool) -> None:
    """Bring OUT/ledger.jsonl and OUT/state.md up to date with PROJECT.

    Needs no database: the bus is LLM_BUS_URL, and LLM_BUS_TOKEN a token of the project. Run again, it adds what is new;
    where nothing happened it changes no byte.
    """
    from cli import mirror
    from cli.connection import connect

    with connect() as bus:
        done = mirror.export(bus, project, out)
    state = ", state renewed" if done.state_changed else ""
    emit(asdict(done), f"{done.events} events, {done.added} new{state}.", as_json=as_json)
