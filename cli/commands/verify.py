"""`llm-bus verify`: compare a mirror with the bus."""

from pathlib import Path

import click

from cli.exit_codes import ExitCode
from cli.options import emit, json_option


@click.command("verify", short_help="Check a mirror against the bus.")
@click.argument("out", type=click.Path(file_okay=False, path_type=Path))
@json_option
@click.pass_context
def command(ctx: click.Context, out: Path, as_json: bool) -> None:
    """Check that OUT holds the events of the bus, each once and in order. Exit code 1: it differs.

    An outdated mirror passes: `llm-bus mirror` brings it up to date.
    """
    from cli import mirror
    from cli.connection import connect

    with connect() as bus:
        differences = mirror.verify(bus, out)
    emit(
        {"ok": not differences, "wrong": differences},
        "\n".join(differences) or "The mirror matches the bus.",
        as_json=as_json,
    )
    ctx.exit(ExitCode.FAILED if differences else ExitCode.OK)
