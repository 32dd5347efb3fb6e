"""`llm-bus verify`: whether a mirror is whole and says what the bus says."""

from pathlib import Path

import click

from cli.exit_codes import ExitCode
from cli.options import emit, json_option


@click.command("verify", short_help="Check a mirror against the bus.")
@click.argument("out", type=click.Path(file_okay=False, path_type=Path))
@json_option
@click.pass_context
def command(ctx: click.Context, out: Path, as_json: bool) -> None:
    """Check that OUT holds every event once, in order, as the bus has it; exit code 1 if not.

    A mirror that is only behind is well: `llm-bus mirror` brings it up to date.
    """
    from cli import mirror
    from cli.connection import connect

    with connect() as bus:
        wrong = mirror.verify(bus, out)
    emit({"ok": not wrong, "wrong": wrong}, "\n".join(wrong) or "It says what the bus says.", as_json=as_json)
    ctx.exit(ExitCode.FAILED if wrong else ExitCode.OK)
