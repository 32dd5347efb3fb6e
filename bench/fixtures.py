"""Projects and agents to measure with, made through the engine as any door would make them."""

from dataclasses import dataclass, field
from itertools import count

from bus.ctx import Ctx
from bus.db import Database
from bus.rules.token_format import fingerprint
from bus.tenancy import owners, participations, projects, tokens

# Padded where they are used, so that answers have the same size in every run.
_numbers = count(1)


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


def make_teams(database: Database, teams: int, size: int, *, lanes: int = 4) -> list[Team]:
    """Make projects of one new owner.

    Args:
        size: agents in each project.
        lanes: in how many lanes the agents of a project are, in turn.
    """
    with database.write() as conn:
        owner = owners.add(conn, f"bench-{next(_numbers):04}@example.org")
    made = []
    for _ in range(teams):
        # A transaction for each project, so that none of them lasts long.
        with database.write() as conn:
            project = projects.add(conn, owner.id, f"project-{next(_numbers):04}")
            agents = []
            for number in range(size):
                lane = f"lane-{number % lanes}"
                granted = participations.grant(
                    conn, project.id, f"agent-{next(_numbers):04}", lane=lane, is_admin=number == 0
                )
                ctx = tokens.resolve(conn, fingerprint(granted.token))
                assert ctx is not None
                agents.append(Agent(ctx, granted.token, granted.participant, lane))
        made.append(Team(project.id, agents))
    return made


def dealt(teams: list[Team], count_: int) -> list[Agent]:
    """So many agents, taken from the teams in turn; again from the start when all were taken."""
    in_turn = [agent for agents in zip(*(team.agents for team in teams), strict=True) for agent in agents]
    return [in_turn[number % len(in_turn)] for number in range(count_)]
