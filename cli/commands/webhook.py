"""`llm-bus webhook`: where overdue handoffs and credit notices are told."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cli.options import data_option, emit, format_table, json_option

if TYPE_CHECKING:
    from bus.db import Connection

_owner_option = click.option("--owner", "owner", help="Of an owner, for credit notices; else give --project.")
_project_option = click.option("--project", "project", help="Of a project, for overdue handoffs.")


@click.group("webhook", short_help="Webhooks for overdue handoffs and credit notices.")
def command() -> None:
    """Where people are told what agents leave lying. Each message is signed (Standard Webhooks)."""


@command.command("add")
@click.argument("url")
@_owner_option
@_project_option
@data_option
@json_option
def add_webhook(url: str, owner: str | None, project: str | None, data: Path | None, as_json: bool) -> None:
    """Send notices to URL, and show the secret that signs them."""
    from bus.notifications import outbox
    from cli.database import transaction

    with transaction(data) as conn:
        owner_id, project_id = _resolve_scope(conn, owner, project)
        made = outbox.add_webhook(conn, owner_id, url, project_id=project_id, actor="cli")
    emit(dataclasses.asdict(made), f"Webhook {made.id} to {made.url}\nSecret: {made.secret}", as_json=as_json)


@command.command("list")
@_owner_option
@_project_option
@data_option
@json_option
def list_webhooks(owner: str | None, project: str | None, data: Path | None, as_json: bool) -> None:
    """The webhooks of a project or an owner, and how their last notices went."""
    from bus.notifications import outbox
    from cli.database import transaction

    with transaction(data) as conn:
        owner_id, project_id = _resolve_scope(conn, owner, project)
        found = outbox.list_webhooks(conn, owner_id, project_id=project_id)
        log = outbox.list_log_entries(conn, owner_id, project_id=project_id, limit=20)
    hooks = format_table(("ID", "URL"), [(one.id, one.url) for one in found])
    rows = [
        (one.id, f"{one.created_at:%Y-%m-%d %H:%M}", one.kind, one.channel, one.state, one.attempts, one.last_result)
        for one in log
    ]
    emit(
        {
            "webhooks": [{"id": one.id, "url": one.url, "created_at": one.created_at} for one in found],
            "notices": [dataclasses.asdict(one) | {"state": one.state} for one in log],
        },
        f"{hooks}\n\n{format_table(('NOTICE', 'AT', 'KIND', 'BY', 'STATE', 'TRIES', 'LAST ANSWER'), rows)}",
        as_json=as_json,
    )


@command.command("remove")
@click.argument("webhook_id", type=click.IntRange(1))
@_owner_option
@_project_option
@data_option
@json_option
def remove_webhook(webhook_id: int, owner: str | None, project: str | None, data: Path | None, as_json: bool) -> None:
    """Send nothing there any more."""
    from bus.notifications import outbox
    from cli.database import transaction

    with transaction(data) as conn:
        owner_id, _ = _resolve_scope(conn, owner, project)
        outbox.remove_webhook(conn, owner_id, webhook_id, actor="cli")
    emit({"removed": webhook_id}, f"Webhook {webhook_id} is removed.", as_json=as_json)


@command.command("test")
@_owner_option
@_project_option
@click.option("--email", help="Also to this address.")
@data_option
@json_option
def send_test_notice(
    owner: str | None, project: str | None, email: str | None, data: Path | None, as_json: bool
) -> None:
    """Send a test notice; a worker tells it within seconds, and `llm-bus webhook list` says what came of it."""
    from bus.notifications import outbox
    from bus.rules import validation
    from cli.database import transaction

    if email is not None:
        email = validation.email(email, "email")
    with transaction(data) as conn:
        owner_id, project_id = _resolve_scope(conn, owner, project)
        count = outbox.enqueue(conn, "test", owner_id=owner_id, project_id=project_id, email=email)
    emit({"notices": count}, f"{count} notices are on their way.", as_json=as_json)


def _resolve_scope(conn: "Connection", owner: str | None, project: str | None) -> tuple[int, int | None]:
    from bus.tenancy import owners, projects
    from cli.exit_codes import CliError, ExitCode

    if (owner is None) == (project is None):
        raise CliError("Give either --owner or --project.", ExitCode.USAGE)
    if owner is not None:
        return owners.get(conn, owner).id, None
    assert project is not None
    found = projects.get_by_name(conn, project)
    return found.owner_id, found.id
