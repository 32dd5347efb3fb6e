"""Projects and agents to measure with, made through the engine as any door would make them."""

from dataclasses import dataclass, field
from itertools import count

from bus.ctx import Ctx
from bus.db import Database
from bus.rules.token_format import fingerprint
from bus.tenancy import owners, participations, projects, tokens

# Padded where they are used, so that answers have the same size in every run.
_name_counter = count(1)


@dataclass(frozen=True)
class Agent:
    """A participation with a live token; `label` is how others of its project address it."""

    ctx: Ctx
    token: str = field(repr=False)
    label: str
    lane: str

    @property
    def project_id(self) -> int:
        return self.ctx.project_id


@dataclass(frozen=True)
class Team:
    """The agents of one project; the first is project-admin."""

    project_id: int
    agents: list[Agent]


def make_teams(database: Database, count: int, team_size: int, *, lane_count: int = 4) -> list[Team]:
    """Make projects of one new owner.

    Args:
        size: agents in each project.
        lanes: in how many lanes the agents of a project are, in turn.
    """
    with database.transaction() as conn:
        owner = owners.add(conn, f"bench-{next(_name_counter):04}@example.org", actor="cli")
    made = []
    for _ in range(count):
        # A transaction for each project, so that none of them lasts long.
        with database.transaction() as conn:
            project = projects.add(conn, owner.id, f"project-{next(_name_counter):04}", actor="cli")
            agents = []
            for number in range(team_size):
                lane = f"lane-{number % lane_count}"
                granted = participations.join(
                    conn, project.id, f"agent-{next(_name_counter):04}", lane=lane, is_admin=number == 0, actor="cli"
                )
                ctx = tokens.find_caller(conn, fingerprint(granted.token))
                assert ctx is not None
                agents.append(Agent(ctx, granted.token, granted.participant, lane))
        made.append(Team(project.id, agents))
    return made


def assign_round_robin(teams: list[Team], total: int) -> list[Agent]:
    """So many agents, taken from the teams in turn; again from the start when all were taken."""
    in_turn = [agent for agents in zip(*(team.agents for team in teams), strict=True) for agent in agents]
    return [in_turn[number % len(in_turn)] for number in range(total)]
