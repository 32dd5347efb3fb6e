"""`llm-bus up`: a whole bus on this machine."""

from pathlib import Path

import click

from cli.options import data_option, json_option


@click.command("up", short_help="Start a whole bus here and keep it running until Ctrl-C.")
@data_option
@json_option
@click.pass_context
def command(ctx: click.Context, data: Path | None, as_json: bool) -> None:
    """Start PostgreSQL, Redis and every process of the bus, and keep them running until Ctrl-C.

    With DATABASE_URL or REDIS_URL set, that server is used and none is started. The first start creates an
    owner, a project `demo` and the agents alice and bob, and shows their tokens.

    With --json, one line on standard output says where everything is as soon as it answers.
    """
    from cli import data_dir
    from cli.up import up

    ctx.exit(up(data_dir.locate(data), as_json=as_json))
