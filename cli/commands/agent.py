"""`llm-bus agent`: participants of a project with their tokens, and what they do, for scripts."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cli import agent_calls
from cli.options import data_option, emit, format_table, json_option, limit_options

if TYPE_CHECKING:
    from bus.tenancy.participations import IssuedParticipation, Participation


@click.group("agent", short_help="Agents of a project; claim, post, lease and more for scripts.")
def command() -> None:
    """The agents and humans of a project.

    PROJECT is a project's name, or OWNER/NAME where several owners have one of that name.

    claim, post, ack, lease, release, who-holds, wait and tasks act as the agent whose token is in LLM_BUS_TOKEN, on
    the bus at LLM_BUS_URL; they need no database.
    """


for _call in agent_calls.AGENT_COMMANDS:
    command.add_command(_call)


@command.command("add")
@click.argument("project")
@click.argument("name")
@click.option("--kind", type=click.Choice(["agent", "human"]), help="agent is the default.")
@click.option("--lane", help="The lane it is granted.")
@click.option("--admin", "is_admin", is_flag=True, help="Make it a project-admin.")
@data_option
@json_option
def add_agent(
    project: str,
    name: str,
    kind: str | None,
    lane: str | None,
    is_admin: bool,
    data: Path | None,
    as_json: bool,
) -> None:
    """Let an agent into a project and show its token, this once."""
    from bus.tenancy import participations, projects
    from cli.database import transaction

    with transaction(data) as conn:
        where = projects.get_by_name(conn, project)
        made = participations.join(
            conn, where.id, name, kind=kind, lane=lane, is_admin=is_admin, actor="cli"
        )
    _emit_token(made, "is in", as_json=as_json)


@command.command("rotate")
@click.argument("project")
@click.argument("name")
@data_option
@json_option
def rotate_token(project: str, name: str, data: Path | None, as_json: bool) -> None:
    """Give an agent a new token, shown this once; its older ones stop working at once."""
    from bus.tenancy import projects, tokens
    from cli.database import transaction

    with transaction(data) as conn:
        made = tokens.rotate(conn, projects.get_by_name(conn, project).id, name, actor="cli")
    _emit_token(made, "has a new token in", as_json=as_json)


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
        where = projects.get_by_name(conn, project)
        found, count = tokens.revoke_all(conn, where.id, name, actor="cli")
    said = f"{count} token{'' if count == 1 else 's'} of {found.actor} revoked." if count else "No live token."
    emit({"project": where.name, "name": found.label, "revoked": count}, said, as_json=as_json)


@command.command("list")
@click.argument("project")
@limit_options
@data_option
@json_option
def list_agents(project: str, after: int, limit: int, data: Path | None, as_json: bool) -> None:
    """List who is in a project."""
    from bus.tenancy import participations, projects
    from cli.database import transaction

    with transaction(data) as conn:
        where = projects.get_by_name(conn, project)
        found = participations.list_participations(conn, where.id, after=after, limit=limit)
    rows = [(one.id, one.actor, one.kind, one.granted_lane, "admin" if one.is_admin else "") for one in found]
    emit(
        {"project": where.name, "agents": [_to_json(one) for one in found]},
        format_table(("id", "name", "kind", "lane", ""), rows),
        as_json=as_json,
    )


def _emit_token(participation: "IssuedParticipation", verb_phrase: str, *, as_json: bool) -> None:
    facts = {
        "project": participation.project,
        "name": participation.participant,
        "actor": participation.actor,
        "kind": participation.kind,
        "lane": participation.lane,
        "is_admin": participation.is_admin,
        "token": participation.token,
    }
    said = f"{participation.actor} {verb_phrase} {participation.project}. Its token, shown this once:\n{participation.token}"
    emit(facts, said, as_json=as_json)


def _to_json(participation: "Participation") -> dict[str, Any]:
    return {
        "id": participation.id,
        "name": participation.label,
        "actor": participation.actor,
        "kind": participation.kind,
        "lane": participation.granted_lane,
        "is_admin": participation.is_admin,
    }
