"""`llm-bus owner`: the people who own projects."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cli.options import data_option, emit, format_table, json_option, limit_options

if TYPE_CHECKING:
    from bus.tenancy.owners import Owner


@click.group("owner", short_help="Owners: add, list, rename, operator, lift.")
def command() -> None:
    """The people who own projects and are billed."""


@command.command("add")
@click.argument("email")
@click.option("--handle", help="The public name; default: derived from the e-mail address.")
@click.option("--operator", is_flag=True, help="Allow the operator console.")
@data_option
@json_option
def add_owner(email: str, handle: str | None, operator: bool, data: Path | None, as_json: bool) -> None:
    """Create an owner."""
    from bus.tenancy import owners
    from cli.database import transaction

    with transaction(data) as conn:
        owner = owners.add(conn, email, handle=handle, operator=operator, actor="cli")
    emit(_to_json(owner), f"Owner {owner.handle} ({owner.email}) was created.", as_json=as_json)


@command.command("list")
@limit_options
@data_option
@json_option
def list_owners(after: int, limit: int, data: Path | None, as_json: bool) -> None:
    """List owners by id."""
    from bus.tenancy import owners
    from cli.database import transaction

    with transaction(data) as conn:
        page = owners.list_owners(conn, after=after, limit=limit)
    rows = [
        (
            owner.id,
            owner.handle,
            owner.email,
            "operator" if owner.operator else "",
            "suspended" if owner.suspended_at else "",
        )
        for owner in page
    ]
    emit(
        {"owners": [_to_json(owner) for owner in page]},
        format_table(("id", "handle", "e-mail", "", ""), rows),
        as_json=as_json,
    )


@command.command("rename")
@click.argument("owner")
@click.argument("handle")
@data_option
@json_option
def rename_owner(owner: str, handle: str, data: Path | None, as_json: bool) -> None:
    """Change the handle of OWNER (handle or e-mail) to HANDLE.

    The former handle stays reserved for the owner and still finds it.
    """
    from bus.tenancy import owners
    from cli.database import transaction

    with transaction(data) as conn:
        target = owners.get(conn, owner)
        is_changed = owners.rename(conn, target.id, handle, actor="cli")
        changed = owners.get(conn, owner)
    text = f"{target.handle} is now {changed.handle}." if is_changed else f"The handle is {changed.handle} already."
    emit(_to_json(changed), text, as_json=as_json)


@command.command("operator")
@click.argument("owner")
@click.option("--remove", is_flag=True, help="Withdraw the access.")
@data_option
@json_option
def set_operator(owner: str, remove: bool, data: Path | None, as_json: bool) -> None:
    """Allow OWNER (handle or e-mail) the operator console.

    The change takes effect with the next request.
    """
    from bus.tenancy import owners
    from cli.database import transaction

    with transaction(data) as conn:
        owners.set_operator(conn, owners.get(conn, owner).id, not remove, actor="cli")
        changed = owners.get(conn, owner)
    emit(
        _to_json(changed),
        f"{changed.handle} is {'now' if changed.operator else 'no longer'} an operator.",
        as_json=as_json,
    )


@command.command("lift")
@click.argument("owner")
@click.option("--reason", default="", help="Recorded in the owner's audit log.")
@data_option
@json_option
def lift_suspension(owner: str, reason: str, data: Path | None, as_json: bool) -> None:
    """Lift the suspension of OWNER (handle or e-mail).

    For an operator who is suspended and therefore has no access to the operator console.
    """
    from bus.tenancy import owners
    from cli.database import transaction

    with transaction(data) as conn:
        target = owners.get(conn, owner)
        is_changed = owners.lift_suspension(conn, target.id, actor="cli", note=reason)
        changed = owners.get(conn, owner)
    text = f"The suspension of {changed.handle} is lifted." if is_changed else f"{changed.handle} was not suspended."
    emit(_to_json(changed), text, as_json=as_json)


def _to_json(owner: "Owner") -> dict[str, Any]:
    return {
        "id": owner.id,
        "handle": owner.handle,
        "email": owner.email,
        "operator": owner.operator,
        "created_at": owner.created_at.isoformat(),
        "suspended_at": owner.suspended_at.isoformat() if owner.suspended_at else None,
    }
