"""`llm-bus agent`: the participants of a project and their tokens, and tool calls for scripts."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cli import agent_calls
from cli.options import data_option, emit, format_table, json_option, limit_options

if TYPE_CHECKING:
    from bus.tenancy.participation_queries import Participation
    from bus.tenancy.participations import IssuedParticipation


@click.group("agent", short_help="Agents of a project: add, rotate, revoke, list; tool calls for scripts.")
def command() -> None:
    """The agents and humans of a project.

    PROJECT is a project's name, or OWNER/NAME where several owners have one of that name.

    claim, post, ack, lease, release, who-holds, wait and tasks act as the agent whose token is in LLM_BUS_TOKEN, on
    the bus at LLM_BUS_URL, or else on the one that runs on this machine; they need no database.
    """


for _agent_command in agent_calls.AGENT_COMMANDS:
    command.add_command(_agent_command)


@command.command("add")
@click.argument("project")
@click.argument("name")
@click.option("--kind", type=click.Choice(["agent", "human"]), help="Default: agent.")
@click.option("--lane", help="The lane it belongs to.")
@click.option("--admin", "is_admin", is_flag=True, help="Make it a project-admin.")
@click.option("--read-only", is_flag=True, help="Its token may only read.")
@data_option
@json_option
def add_agent(
    project: str,
    name: str,
    kind: str | None,
    lane: str | None,
    is_admin: bool,
    read_only: bool,
    data: Path | None,
    as_json: bool,
) -> None:
    """Add an agent to a project and show its token, once."""
    from bus.scopes import FULL_SCOPE
    from bus.tenancy import participations, projects
    from cli.database import transaction

    with transaction(data) as conn:
        project_id = projects.get_by_name(conn, project).id
        issued = participations.join(
            conn,
            project_id,
            name,
            kind=kind,
            lane=lane,
            is_admin=is_admin,
            scope="read" if read_only else FULL_SCOPE,
            actor="cli",
        )
    _emit_token(issued, "was added to", as_json=as_json)


@command.command("rotate")
@click.argument("project")
@click.argument("name")
@data_option
@json_option
def rotate_token(project: str, name: str, data: Path | None, as_json: bool) -> None:
    """Issue a new token for an agent and show it, once.

    The older tokens of the agent stop working immediately. The new one allows as much as they did.
    """
    from bus.tenancy import projects, tokens
    from cli.database import transaction

    with transaction(data) as conn:
        issued = tokens.rotate(conn, projects.get_by_name(conn, project).id, name, actor="cli")
    _emit_token(issued, "has a new token in", as_json=as_json)


@command.command("revoke")
@click.argument("project")
@click.argument("name")
@data_option
@json_option
def revoke_tokens(project: str, name: str, data: Path | None, as_json: bool) -> None:
    """Revoke every token of an agent; it stays in the project."""
    from bus.tenancy import projects, tokens
    from cli.database import transaction

    with transaction(data) as conn:
        owning_project = projects.get_by_name(conn, project)
        participation, count = tokens.revoke_all(conn, owning_project.id, name, actor="cli")
    text = f"Revoked {count} token{'' if count == 1 else 's'} of {participation.actor}." if count else "No live token."
    emit(
        {"project": owning_project.name, "name": participation.label, "revoked": count},
        text,
        as_json=as_json,
    )


@command.command("list")
@click.argument("project")
@limit_options
@data_option
@json_option
def list_agents(project: str, after: int, limit: int, data: Path | None, as_json: bool) -> None:
    """List the participants of a project."""
    from bus.tenancy import participation_queries, projects
    from cli.database import transaction

    with transaction(data) as conn:
        listed_project = projects.get_by_name(conn, project)
        members = participation_queries.list_participations(conn, listed_project.id, after=after, limit=limit)
    rows = [
        (member.id, member.actor, member.kind, member.granted_lane, "admin" if member.is_admin else "")
        for member in members
    ]
    emit(
        {"project": listed_project.name, "agents": [_to_json(member) for member in members]},
        format_table(("id", "name", "kind", "lane", ""), rows),
        as_json=as_json,
    )


def _emit_token(participation: "IssuedParticipation", verb_phrase: str, *, as_json: bool) -> None:
    from bus import scopes

    value = {
        "project": participation.project,
        "name": participation.participant,
        "actor": participation.actor,
        "kind": participation.kind,
        "lane": participation.lane,
        "is_admin": participation.is_admin,
        "token": participation.token,
        "scope": scopes.to_oauth(participation.scope),
    }
    text = (
        f"{participation.actor} {verb_phrase} {participation.project}. "
        f"Its token, shown only once:\n{participation.token}"
    )
    emit(value, text, as_json=as_json)


def _to_json(participation: "Participation") -> dict[str, Any]:
    return {
        "id": participation.id,
        "name": participation.label,
        "actor": participation.actor,
        "kind": participation.kind,
        "lane": participation.granted_lane,
        "is_admin": participation.is_admin,
    }
