"""`llm-bus stdio`: the gateway for a client that starts its servers as processes."""

from pathlib import Path

import click

from cli.options import data_option


@click.command("stdio", short_help="Serve one MCP client on standard input and output.")
@data_option
def command(data: Path | None) -> None:
    """Serve one MCP client on standard input and output, as the agent whose token is in LLM_BUS_TOKEN.

    Without a token, tools are listed and calls are refused.
    """
    from cli.runtime import settings_for_cli
    from cli.settings import AGENT_TOKEN, read_variable

    # Before the import of the gateway, which takes longer than everything else, so that an error is shown at once.
    settings, token = settings_for_cli(data), read_variable(AGENT_TOKEN) or None
    from mcp_gateway import stdio

    stdio.run(settings, token)
