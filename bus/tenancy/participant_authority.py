"""Which owner may act on a participant, and which participants may be project-admin."""

from bus.db import Connection
from bus.errors import BusError, NotFound
from bus.rules.member_rights import OWNER, managed_roles
from bus.tenancy.project_locks import LockedProject
from bus.tenancy.suspension import refuse_suspended_lead


def require_authority(
    conn: Connection, project_id: int, participant_owner_id: int, name: str, acting_owner_id: int | None
) -> None:
    """Refuse an act on a participant unless it is of the acting owner, or of an owner whose role it manages.

    Args:
        name: of the participant, for the message.
        acting_owner_id: the owner who acts, whose role is read under the lock; None for the command line.
    Raises:
        BusError: `not_found` when the acting owner has no role in the project; `forbidden`.
        OwnerSuspended: the acting owner is a lead and suspended, and the participant is not its own.
    """
    if acting_owner_id is None:
        return
    role, managed = conn.fetch_one(
        "SELECT bus_project_role(%(project)s, %(acting)s), bus_project_role(%(project)s, %(owner)s)",
        {"project": project_id, "acting": acting_owner_id, "owner": participant_owner_id},
    )
    if role is None:
        raise NotFound("project")
    if participant_owner_id != acting_owner_id and role != OWNER and managed not in managed_roles(role):
        raise BusError(
            "forbidden",
            f"Your role in this project does not manage {name}; ask the owner of the project.",
        )
    if participant_owner_id != acting_owner_id:
        refuse_suspended_lead(conn, project_id, acting_owner_id)


def require_host_for_admin(locked_project: LockedProject, is_admin: bool, participant_owner_id: int) -> None:
    """Refuse to make a participant of a member project-admin."""
    if is_admin and participant_owner_id != locked_project.owner_id:
        raise BusError(
            "forbidden",
            "Project-admin is for participants of the project's owner; give the person the role lead instead.",
        )
