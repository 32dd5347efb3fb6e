"""`llm-bus webhook`: webhooks for overdue handoffs and credit notices."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cli.options import data_option, emit, format_table, json_option

if TYPE_CHECKING:
    from bus.db import Connection
    from bus.notifications.outbox import LogEntry

_owner_option = click.option("--owner", "owner", help="The owner, for credit notices; otherwise give --project.")
_project_option = click.option("--project", "project", help="The project, for overdue handoffs.")


@click.group("webhook", short_help="Webhooks for overdue handoffs and credit notices.")
def command() -> None:
    """Webhooks for overdue handoffs and credit notices. Each message is signed (Standard Webhooks)."""


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
        webhook = outbox.add_webhook(conn, owner_id, url, project_id=project_id, actor="cli")
    emit(
        dataclasses.asdict(webhook),
        f"Webhook {webhook.id} to {webhook.url}\nSecret: {webhook.secret}",
        as_json=as_json,
    )


@command.command("list")
@_owner_option
@_project_option
@data_option
@json_option
def list_webhooks(owner: str | None, project: str | None, data: Path | None, as_json: bool) -> None:
    """List webhooks and the results of their last notices."""
    from bus.notifications import outbox
    from cli.database import transaction

    with transaction(data) as conn:
        owner_id, project_id = _resolve_scope(conn, owner, project)
        webhooks = outbox.list_webhooks(conn, owner_id, project_id=project_id)
        entries = outbox.list_log_entries(conn, owner_id, project_id=project_id, limit=20)
    webhook_table = format_table(("ID", "URL"), [(webhook.id, webhook.url) for webhook in webhooks])
    rows = [
        (
            entry.id,
            f"{entry.created_at:%Y-%m-%d %H:%M}",
            entry.kind,
            entry.channel,
            entry.state,
            entry.attempts,
            entry.last_result,
        )
        for entry in entries
    ]
    emit(
        {
            "webhooks": [
                {"id": webhook.id, "url": webhook.url, "created_at": webhook.created_at} for webhook in webhooks
            ],
            "notices": [_notice_to_json(entry) for entry in entries],
        },
        f"{webhook_table}\n\n{format_table(('NOTICE', 'AT', 'KIND', 'BY', 'STATE', 'TRIES', 'LAST RESULT'), rows)}",
        as_json=as_json,
    )


@command.command("remove")
@click.argument("webhook_id", type=click.IntRange(1))
@_owner_option
@_project_option
@data_option
@json_option
def remove_webhook(webhook_id: int, owner: str | None, project: str | None, data: Path | None, as_json: bool) -> None:
    """Remove a webhook."""
    from bus.notifications import outbox
    from cli.database import transaction

    with transaction(data) as conn:
        owner_id, _ = _resolve_scope(conn, owner, project)
        outbox.remove_webhook(conn, owner_id, webhook_id, actor="cli")
    emit({"removed": webhook_id}, f"Webhook {webhook_id} is removed.", as_json=as_json)


@command.command("test")
@_owner_option
@_project_option
@click.option("--email", help="Also send it to this address.")
@data_option
@json_option
def send_test_notice(
    owner: str | None, project: str | None, email: str | None, data: Path | None, as_json: bool
) -> None:
    """Send a test notice.

    A worker delivers it within seconds; `llm-bus webhook list` shows the result.
    """
    from bus.notifications import outbox
    from bus.rules import validation
    from cli.database import transaction

    if email is not None:
        email = validation.email(email, "email")
    with transaction(data) as conn:
        owner_id, project_id = _resolve_scope(conn, owner, project)
        count = outbox.enqueue(conn, "test", owner_id=owner_id, project_id=project_id, email=email)
    emit({"notices": count}, f"{count} notice{'' if count == 1 else 's'} queued.", as_json=as_json)


def _notice_to_json(entry: "LogEntry") -> dict[str, Any]:
    fields = dataclasses.asdict(entry) | {"state": entry.state}
    # The key is part of the command's interface, the attribute's name is not.
    fields["said"] = fields.pop("last_result")
    return fields


def _resolve_scope(conn: "Connection", owner: str | None, project: str | None) -> tuple[int, int | None]:
    from bus.tenancy import owners, projects
    from cli.exit_codes import CliError, ExitCode

    if (owner is None) == (project is None):
        raise CliError("Give either --owner or --project.", ExitCode.USAGE)
    if owner is not None:
        return owners.get(conn, owner).id, None
    assert project is not None
    target = projects.get_by_name(conn, project)
    return target.owner_id, target.id
