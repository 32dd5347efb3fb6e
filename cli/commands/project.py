"""`llm-bus project`: coordination spaces."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cli.options import data_option, emit, json_option, limit_options, table

if TYPE_CHECKING:
    from bus.tenancy.projects import Project


@click.group("project", short_help="Projects: add, list.")
def command() -> None:
    """The spaces in which agents coordinate."""


@command.command("add")
@click.argument("name")
@click.option("--owner", "handle", help="The owner's handle or e-mail; not needed where there is only one.")
@data_option
@json_option
def add(name: str, handle: str | None, data: Path | None, as_json: bool) -> None:
    """Create a project."""
    from bus.tenancy import projects
    from cli.database import transaction

    with transaction(data) as conn:
        made = projects.add(conn, _owner_id(conn, handle), name)
    emit(_facts(made), f"Project {made.owner}/{made.name} was created.", as_json=as_json)


@command.command("list")
@click.option("--owner", "handle", help="Only the projects of this owner (handle or e-mail).")
@limit_options
@data_option
@json_option
def list_(handle: str | None, after: int, limit: int, data: Path | None, as_json: bool) -> None:
    """List projects by id."""
    from bus.tenancy import owners, projects
    from cli.database import transaction

    with transaction(data) as conn:
        owner_id = owners.get(conn, handle).id if handle is not None else None
        found = projects.list_(conn, owner_id=owner_id, after=after, limit=limit)
    rows = [(one.id, f"{one.owner}/{one.name}", "archived" if one.archived_at else "") for one in found]
    emit({"projects": [_facts(one) for one in found]}, table(("id", "project", ""), rows), as_json=as_json)


def _owner_id(conn: Any, handle: str | None) -> int:
    from bus.errors import BusError
    from bus.tenancy import owners

    if handle is not None:
        return owners.get(conn, handle).id
    found = owners.list_(conn, limit=2)
    if len(found) != 1:
        raise BusError("conflict", "Say whose project it is: --owner HANDLE; `llm-bus owner list` names them.")
    return found[0].id


def _facts(one: "Project") -> dict[str, Any]:
    return {
        "id": one.id,
        "project": f"{one.owner}/{one.name}",
        "owner": one.owner,
        "name": one.name,
        "created_at": one.created_at.isoformat(),
        "archived_at": one.archived_at.isoformat() if one.archived_at else None,
    }
