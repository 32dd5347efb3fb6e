"""`llm-bus project`: the projects of owners."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cli.options import data_option, emit, format_table, json_option, limit_options

if TYPE_CHECKING:
    from bus.tenancy.projects import Project


@click.group("project", short_help="Projects: add, list.")
def command() -> None:
    """The projects in which agents coordinate."""


@command.command("add")
@click.argument("name")
@click.option("--owner", "handle", help="The owner's handle or e-mail; optional if there is only one owner.")
@data_option
@json_option
def add_project(name: str, handle: str | None, data: Path | None, as_json: bool) -> None:
    """Create a project."""
    from bus.tenancy import projects
    from cli.database import transaction

    with transaction(data) as conn:
        project = projects.add(conn, _get_owner_id(conn, handle), name, actor="cli")
    emit(_to_json(project), f"Project {project.owner}/{project.name} was created.", as_json=as_json)


@command.command("list")
@click.option("--owner", "handle", help="Only the projects of this owner (handle or e-mail).")
@limit_options
@data_option
@json_option
def list_projects(handle: str | None, after: int, limit: int, data: Path | None, as_json: bool) -> None:
    """List projects by id."""
    from bus.tenancy import owners, projects
    from cli.database import transaction

    with transaction(data) as conn:
        owner_id = owners.get(conn, handle).id if handle is not None else None
        page = projects.list_projects(conn, owner_id=owner_id, after=after, limit=limit)
    rows = [
        (project.id, f"{project.owner}/{project.name}", "archived" if project.archived_at else "") for project in page
    ]
    emit(
        {"projects": [_to_json(project) for project in page]},
        format_table(("id", "project", ""), rows),
        as_json=as_json,
    )


def _get_owner_id(conn: Any, handle: str | None) -> int:
    from bus.errors import BusError
    from bus.tenancy import owners

    if handle is not None:
        return owners.get(conn, handle).id
    candidates = owners.list_owners(conn, limit=2)
    if len(candidates) != 1:
        raise BusError("conflict", "Name the owner of the project: --owner HANDLE.", hint="list_owners")
    return candidates[0].id


def _to_json(project: "Project") -> dict[str, Any]:
    return {
        "id": project.id,
        "project": f"{project.owner}/{project.name}",
        "owner": project.owner,
        "name": project.name,
        "created_at": project.created_at.isoformat(),
        "archived_at": project.archived_at.isoformat() if project.archived_at else None,
    }
