"""`llm-bus up`: run a complete bus on this machine."""

from pathlib import Path

import click

from cli.options import data_option, json_option


@click.command("up", short_help="Run a complete bus here until Ctrl-C.")
@data_option
@json_option
@click.pass_context
def command(ctx: click.Context, data: Path | None, as_json: bool) -> None:
    """Start PostgreSQL, Redis and every process of the bus, and keep them running until Ctrl-C.

    If DATABASE_URL or REDIS_URL is set, that server is used and none is started. The first start creates an
    owner, a project `demo` and the agents alice and bob, and shows their tokens.

    With --json, one line on standard output has the addresses as soon as the bus is ready.
    """
    from cli import data_dir
    from cli.up import up

    ctx.exit(up(data_dir.locate(data), as_json=as_json))
