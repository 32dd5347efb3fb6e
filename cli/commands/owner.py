"""`llm-bus owner`: the humans who own projects."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cli.options import data_option, emit, format_table, json_option, limit_options

if TYPE_CHECKING:
    from bus.tenancy.owners import Owner


@click.group("owner", short_help="Owners: add, list, operator.")
def command() -> None:
    """The humans who own projects and are billed."""


@command.command("add")
@click.argument("email")
@click.option("--handle", help="The public name; made from the e-mail address when left out.")
@click.option("--operator", is_flag=True, help="May use the operator console.")
@data_option
@json_option
def add_owner(email: str, handle: str | None, operator: bool, data: Path | None, as_json: bool) -> None:
    """Create an owner."""
    from bus.tenancy import owners
    from cli.database import transaction

    with transaction(data) as conn:
        made = owners.add(conn, email, handle=handle, operator=operator, actor="cli")
    emit(_to_json(made), f"Owner {made.handle} ({made.email}) was created.", as_json=as_json)


@command.command("list")
@limit_options
@data_option
@json_option
def list_owners(after: int, limit: int, data: Path | None, as_json: bool) -> None:
    """List owners by id."""
    from bus.tenancy import owners
    from cli.database import transaction

    with transaction(data) as conn:
        found = owners.list_owners(conn, after=after, limit=limit)
    rows = [
        (
            one.id,
            one.handle,
            one.email,
            "operator" if one.operator else "",
            "suspended" if one.suspended_at else "",
        )
        for one in found
    ]
    emit(
        {"owners": [_to_json(one) for one in found]},
        format_table(("id", "handle", "e-mail", "", ""), rows),
        as_json=as_json,
    )


@command.command("operator")
@click.argument("owner")
@click.option("--remove", is_flag=True, help="Take it away.")
@data_option
@json_option
def set_operator(owner: str, remove: bool, data: Path | None, as_json: bool) -> None:
    """Let OWNER (handle or e-mail) use the operator console, from the next request on."""
    from bus.tenancy import owners
    from cli.database import transaction

    with transaction(data) as conn:
        found = owners.get(conn, owner)
        owners.set_operator(conn, found.id, not remove, actor="cli")
        now = owners.get(conn, owner)
    emit(_to_json(now), f"{now.handle} is {'' if now.operator else 'no '}operator.", as_json=as_json)


def _to_json(owner: "Owner") -> dict[str, Any]:
    return {
        "id": owner.id,
        "handle": owner.handle,
        "email": owner.email,
        "operator": owner.operator,
        "created_at": owner.created_at.isoformat(),
        "suspended_at": owner.suspended_at.isoformat() if owner.suspended_at else None,
    }
