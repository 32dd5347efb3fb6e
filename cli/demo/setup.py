"""The projects and agents of a run, made on the bus that it is played on."""

from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count

from bus.db import Connection, Database
from bus.errors import BusError
from bus.tenancy import owners, participations, projects, tokens
from bus.tenancy.owners import Owner
from bus.tenancy.projects import Project
from cli.demo.model import Plan
from cli.runtime import OWNER_EMAIL
from cli.seed import OWNER_HANDLE

# Whoever meets them in a list knows where they come from, and no agent of the user's is drawn in.
_NAME_PREFIX = "demo-"


@dataclass(frozen=True, slots=True)
class ProvisionedFleet:
    """What was made: projects and labels by the index that the plan gives them, tokens by project and agent."""

    projects: list[Project] = field(default_factory=list)
    labels: dict[int, str] = field(default_factory=dict)
    tokens: dict[tuple[int, int], str] = field(default_factory=dict, repr=False)


def provision(database: Database, plan: Plan, fleet: ProvisionedFleet, owner: str | None) -> None:
    """Create the projects of a plan and grant its agents into them, filling `stage` as it goes.

    Args:
        owner: whose they are (handle or e-mail); the first owner of the bus when left out.
    Raises:
        BusError: `not_found` for the owner.
    """
    with database.transaction() as conn:
        whose = _get_or_create_owner(conn, owner)
        names = _choose_project_names(conn, whose, plan.projects)
    for number, (name, team) in enumerate(zip(names, plan.teams, strict=True)):
        # A transaction for each project, so that none of them lasts long.
        with database.transaction() as conn:
            project = projects.add(conn, whose.id, name, actor="cli")
            fleet.projects.append(project)
            for agent in team:
                wanted = fleet.labels.get(agent, f"{_NAME_PREFIX}{plan.agents[agent].label}")
                granted = _add_participant(conn, project, wanted)
                fleet.labels[agent] = granted.participant
                fleet.tokens[number, agent] = granted.token


def revoke_tokens(database: Database, fleet: ProvisionedFleet) -> None:
    """Revoke the tokens, which nobody will use again. Projects and ledgers stay, to be looked at."""
    for number, project in enumerate(fleet.projects):
        with database.transaction() as conn:
            for place, agent in fleet.tokens:
                if place == number:
                    tokens.revoke_all(conn, project.id, fleet.labels[agent], actor="cli")


def _get_or_create_owner(conn: Connection, named: str | None) -> Owner:
    if named is not None:
        return owners.get(conn, named)
    found = owners.list_owners(conn, limit=1)
    return found[0] if found else owners.add(conn, OWNER_EMAIL, handle=OWNER_HANDLE, actor="cli")


def _choose_project_names(conn: Connection, owner: Owner, wanted: tuple[str, ...]) -> list[str]:
    """The wanted names, with the number of the run behind them where it is not the first."""
    for run in count(1):
        names = [f"{_NAME_PREFIX}{name}" if run == 1 else f"{_NAME_PREFIX}{name}-{run}" for name in wanted]
        if not any(_project_exists(conn, f"{owner.handle}/{name}") for name in names):
            return names
    raise AssertionError


def _project_exists(conn: Connection, name: str) -> bool:
    with suppress(BusError):
        projects.get_by_name(conn, name)
        return True
    return False


def _add_participant(conn: Connection, project: Project, label: str) -> participations.IssuedParticipation:
    """Grant the agent of that name; where the name was taken away from somebody, one with a number."""
    for attempt in count(1):
        try:
            with conn.raw.transaction():
                return participations.join(
                    conn, project.id, label if attempt == 1 else f"{label}-{attempt}", actor="cli"
                )
        except BusError as error:
            if error.data.get("reason") != "name_taken":
                raise
    raise AssertionError
