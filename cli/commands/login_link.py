"""`llm-bus login-link`: sign an owner in without a sign-in provider."""

from datetime import timedelta
from pathlib import Path

import click

from cli.options import data_option, emit, json_option


@click.command("login-link", short_help="Create a link that signs an owner in once.")
@click.argument("email")
@click.option(
    "--minutes", type=click.IntRange(1, 1440), default=15, show_default=True, help="Minutes until the link expires."
)
@data_option
@json_option
def command(email: str, minutes: int, data: Path | None, as_json: bool) -> None:
    """Create a link that signs the owner with this e-mail address or handle in, once.

    The link grants full access as the owner: treat it like a password.
    """
    from bus.auth import login_links
    from bus.client_setup import login_link_url
    from bus.tenancy import owners
    from cli.database import transaction
    from cli.web_address import find_web_url

    with transaction(data) as conn:
        owner = owners.get(conn, email)
        token = login_links.create_login_link(conn, owner, ttl=timedelta(minutes=minutes), actor="cli")
        url = login_link_url(find_web_url(conn, data), token)
    text = f"{url}\nIt signs {owner.handle} in once, within {minutes} minute{'' if minutes == 1 else 's'}."
    emit({"url": url}, text, as_json=as_json)
