"""Provisioning of a demo: its projects, agents and tokens."""

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

# Marks projects and agents as those of a demo, and keeps the demo away from the user's own agents.
_NAME_PREFIX = "demo-"


@dataclass(frozen=True, slots=True)
class ProvisionedFleet:
    """The provisioned fleet: projects and labels by their index in the plan, tokens by project and agent."""

    projects: list[Project] = field(default_factory=list)
    labels: dict[int, str] = field(default_factory=dict)
    tokens: dict[tuple[int, int], str] = field(default_factory=dict, repr=False)

    @property
    def project_names(self) -> list[str]:
        """The names of the projects."""
        return [project.name for project in self.projects]


def provision(database: Database, plan: Plan, fleet: ProvisionedFleet, owner: str | None) -> None:
    """Create the projects of a plan and add its agents, recording each in `fleet`.

    Args:
        database: of the bus.
        plan: the plan to provision.
        fleet: receives the projects, labels and tokens, also if a later step fails.
        owner: handle or e-mail of the owner; default: the first owner of the bus.

    Raises:
        BusError: `not_found` for the owner.
    """
    with database.transaction() as conn:
        project_owner = _get_or_create_owner(conn, owner)
        names = _choose_project_names(conn, project_owner, plan.projects)
    for number, (name, team) in enumerate(zip(names, plan.teams, strict=True)):
        # A transaction for each project, so that none of them lasts long.
        with database.transaction() as conn:
            project = projects.add(conn, project_owner.id, name, actor="cli")
            fleet.projects.append(project)
            for agent in team:
                label = fleet.labels.get(agent, f"{_NAME_PREFIX}{plan.agents[agent].label}")
                issued = _add_participant(conn, project, label)
                fleet.labels[agent] = issued.participant
                fleet.tokens[number, agent] = issued.token


def revoke_tokens(database: Database, fleet: ProvisionedFleet) -> None:
    """Revoke the tokens of the fleet; projects and ledgers stay."""
    for number, project in enumerate(fleet.projects):
        with database.transaction() as conn:
            for token_project, agent in fleet.tokens:
                if token_project == number:
                    tokens.revoke_all(conn, project.id, fleet.labels[agent], actor="cli")


def _get_or_create_owner(conn: Connection, name: str | None) -> Owner:
    if name is not None:
        return owners.get(conn, name)
    existing = owners.list_owners(conn, limit=1)
    return existing[0] if existing else owners.add(conn, OWNER_EMAIL, handle=OWNER_HANDLE, actor="cli")


def _choose_project_names(conn: Connection, owner: Owner, base_names: tuple[str, ...]) -> list[str]:
    """Return unused names of the form demo-NAME, or demo-NAME-N from the second demo on."""
    for run in count(1):
        names = [f"{_NAME_PREFIX}{name}" if run == 1 else f"{_NAME_PREFIX}{name}-{run}" for name in base_names]
        if not any(_project_exists(conn, f"{owner.handle}/{name}") for name in names):
            return names
    raise AssertionError


def _project_exists(conn: Connection, name: str) -> bool:
    with suppress(BusError):
        projects.get_by_name(conn, name)
        return True
    return False


def _add_participant(conn: Connection, project: Project, label: str) -> participations.IssuedParticipation:
    """Add the agent with this label; append a number if a removed participant had the label."""
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
