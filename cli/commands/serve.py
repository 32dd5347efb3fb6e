"""`llm-bus serve`: web and gateway on one port."""

import click


@click.command("serve", short_help="Serve web and gateway on one port (PORT).")
def command() -> None:
    """Serve the web and the MCP endpoint on one port, until SIGTERM.

    For platforms that route one port to one process. If each process has an address of its own, run `web` and
    `gateway` of the Procfile instead: they scale independently. Settings come from the environment; DATABASE_URL is
    required.
    """
    from cli import serve

    serve.run()
