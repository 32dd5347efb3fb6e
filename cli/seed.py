"""The initial content of a fresh bus: an owner, a project and two agents."""

from bus.db import Connection
from bus.errors import BusError
from bus.tenancy import owners, participations, projects
from cli.runtime import OWNER_EMAIL, NewAgent

OWNER_HANDLE = "owner"
PROJECT_NAME = "demo"
AGENT_NAMES = ("alice", "bob")


def seed_if_empty(conn: Connection) -> list[NewAgent]:
    """Create an owner, a project and two agents if there is no owner yet, and return the new agents."""
    if owners.list_owners(conn, limit=1):
        return []
    try:
        with conn.raw.transaction():
            owner = owners.add(conn, OWNER_EMAIL, handle=OWNER_HANDLE, operator=True, actor="cli")
            project = projects.add(conn, owner.id, PROJECT_NAME, actor="cli")
            grants = [participations.join(conn, project.id, name, actor="cli") for name in AGENT_NAMES]
    except BusError as error:
        if error.code == "conflict":
            # Another `up` on the same database was faster and has printed the tokens.
            return []
        raise
    return [NewAgent(grant.project, grant.participant, grant.token) for grant in grants]
