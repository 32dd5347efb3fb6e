"""An owner's own participation in a project: a person, who acts in the web and has no token."""

import sqlalchemy as sa

from bus.ctx import Ctx
from bus.db import Connection
from bus.errors import NotFound
from bus.tenancy import participants, participation_queries, participations
from bus.tenancy.project_locks import LockedProject, lock_project
from bus.tenancy.tables import participant_name


def find_owner_context(conn: Connection, owner_id: int, project_id: int) -> Ctx | None:
    """Return an owner as caller in a project, or None where the owner has no participation yet.

    Raises:
        BusError: `not_found` when the project does not exist or the owner has no role in it.
    """
    row = conn.fetch_one_or_none(
        "SELECT p.id, n.participant_id, pj.owner_id FROM project pj"
        " LEFT JOIN participant_name n ON n.owner_id = %(owner)s AND n.label_key = ''"
        " LEFT JOIN participation p ON p.project_id = pj.id AND p.participant_id = n.participant_id"
        "                          AND p.removed_at IS NULL"
        " WHERE pj.id = %(project)s AND bus_project_role(pj.id, %(owner)s) IS NOT NULL",
        {"owner": owner_id, "project": project_id},
    )
    if row is None:
        raise NotFound("project")
    participation_id, participant_id, project_owner_id = row
    if participation_id is None:
        return None
    return Ctx(
        project_id=project_id,
        participation_id=participation_id,
        participant_id=participant_id,
        owner_id=project_owner_id,
        token_id=None,
    )


def get_or_create_owner_context(conn: Connection, owner_id: int, project_id: int) -> Ctx:
    """As `find_owner_context`, but create the owner's participation where it is missing.

    With the participation agents can post to the owner's handle.

    Locks: the project clock, then the owner, where the participation is missing.
    """
    existing = find_owner_context(conn, owner_id, project_id)
    if existing is not None:
        return existing
    locked_project = lock_project(conn, project_id, grants=False, member_id=owner_id)
    create_own_participation(conn, locked_project, is_admin=locked_project.owner_id == owner_id)
    created = find_owner_context(conn, owner_id, project_id)
    assert created is not None
    return created


def create_own_participation(conn: Connection, locked_project: LockedProject, *, is_admin: bool) -> int:
    """Create or restore the own participation of the host, a person; concurrent callers create it once.

    Its participant has the empty label, so that its qualified name is the handle alone; it never has a token.
    """
    project_id = locked_project.project_id
    participant_id = conn.execute(
        sa.select(participant_name.c.participant_id).where(
            participant_name.c.owner_id == locked_project.host_id, participant_name.c.label_key == ""
        )
    ).scalar_one_or_none()
    if participant_id is None:
        participant_id = participants.insert(conn, locked_project.host_id, "", "human").id
    existing = participation_queries.find_of_participant(conn, project_id, participant_id)
    if existing is not None:
        return existing.id
    return participations.insert_or_restore(conn, project_id, participant_id, None, is_admin)
