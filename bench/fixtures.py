"""Projects and agents for the scenarios, created by the engine."""

from dataclasses import dataclass, field
from itertools import count

from bus.ctx import Ctx
from bus.db import Database
from bus.rules.token_format import fingerprint
from bus.tenancy import owners, participations, projects, tokens

# Padded in names, so that responses have the same size in every run.
_name_counter = count(1)


@dataclass(frozen=True)
class Agent:
    """A participation with an active token; other agents of its project address it by `label`."""

    ctx: Ctx
    token: str = field(repr=False)
    label: str
    lane: str

    @property
    def project_id(self) -> int:
        """The id of its project."""
        return self.ctx.project_id


@dataclass(frozen=True)
class Team:
    """The agents of one project; the first is project-admin."""

    project_id: int
    agents: list[Agent]


def make_teams(database: Database, count: int, team_size: int, *, lane_count: int = 4) -> list[Team]:
    """Create projects of one new owner.

    Args:
        count: the number of projects.
        team_size: the number of agents in each project.
        lane_count: the number of lanes to which the agents of a project are assigned in turn.
    """
    with database.transaction() as conn:
        owner = owners.add(conn, f"bench-{next(_name_counter):04}@example.org", actor="cli")
    teams = []
    for _ in range(count):
        # One transaction per project, so that none lasts long.
        with database.transaction() as conn:
            project = projects.add(conn, owner.id, f"project-{next(_name_counter):04}", actor="cli")
            agents = []
            for number in range(team_size):
                lane = f"lane-{number % lane_count}"
                issued = participations.join(
                    conn, project.id, f"agent-{next(_name_counter):04}", lane=lane, is_admin=number == 0, actor="cli"
                )
                ctx = tokens.find_caller(conn, fingerprint(issued.token))
                assert ctx is not None
                agents.append(Agent(ctx, issued.token, issued.participant, lane))
        teams.append(Team(project.id, agents))
    return teams


def assign_round_robin(teams: list[Team], total: int) -> list[Agent]:
    """Take `total` agents from the teams in turn, starting over after the last one."""
    agents_in_turn = [agent for agents in zip(*(team.agents for team in teams), strict=True) for agent in agents]
    return [agents_in_turn[number % len(agents_in_turn)] for number in range(total)]
