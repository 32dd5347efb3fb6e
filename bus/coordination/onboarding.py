"""The first steps of an owner: a project, agents that connect, a first handoff."""

from dataclasses import dataclass
from datetime import datetime

from bus.db import Connection

_MAX_AGENTS = 10


@dataclass(frozen=True, slots=True)
class NewAgent:
    """A participant of a new project; `connected_at` is its last call, or None before its first.

    Attributes:
        client: the stored name of the program that it called with, if that is known.
    """

    participation_id: int
    label: str
    connected_at: datetime | None
    client: str | None


@dataclass(frozen=True, slots=True)
class FirstSteps:
    """How far an owner is.

    Attributes:
        project_id, project_name: the newest project; None before the first one.
        agents: its participants except the owner, oldest first.
        has_post: whether there is a handoff in any project.
    """

    project_id: int | None
    project_name: str | None
    agents: list[NewAgent]
    has_post: bool

    @property
    def connected_agents(self) -> list[NewAgent]:
        """The agents that have called."""
        return [agent for agent in self.agents if agent.connected_at is not None]

    @property
    def is_complete(self) -> bool:
        """Whether the owner needs no help to begin: agents work together, or hand off work."""
        return self.has_post or len(self.connected_agents) > 1


def get_first_steps(conn: Connection, owner_id: int) -> FirstSteps:
    """Return how far an owner is; archived projects are left out."""
    row = conn.fetch_one_or_none(
        "SELECT p.id, p.name FROM project p WHERE p.owner_id = %s AND p.purging_at IS NULL AND p.archived_at IS NULL"
        " ORDER BY p.id DESC LIMIT 1",
        (owner_id,),
    )
    if row is None:
        return FirstSteps(None, None, [], has_post=False)
    project_id, project_name = row
    (has_post,) = conn.fetch_one(
        "SELECT EXISTS (SELECT FROM project p WHERE p.owner_id = %s AND p.purging_at IS NULL AND p.archived_at IS NULL"
        # A subquery with a limit is a lookup by key for each project.
        " AND (SELECT o.id FROM post o WHERE o.project_id = p.id ORDER BY o.id LIMIT 1) IS NOT NULL)",
        (owner_id,),
    )
    agents = conn.fetch_all_as(
        NewAgent,
        "SELECT p.id AS participation_id, pt.label, pr.last_seen AS connected_at, pr.client"
        " FROM participation p JOIN participant pt ON pt.id = p.participant_id AND pt.removed_at IS NULL"
        " LEFT JOIN presence pr ON pr.project_id = p.project_id AND pr.participation_id = p.id"
        " WHERE p.project_id = %s AND p.removed_at IS NULL AND pt.label <> '' ORDER BY p.id LIMIT %s",
        (project_id, _MAX_AGENTS),
    )
    return FirstSteps(project_id, project_name, agents, has_post)
