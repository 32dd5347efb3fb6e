"""An owner who acts in the web: who they are in a project, and what they may do that agents may not."""

from bus.coordination.caller_transaction import CallerTransaction
from bus.ctx import Ctx
from bus.db import Connection
from bus.errors import BusError, NotFound
from bus.tenancy import audit, participations


def find_owner_context(conn: Connection, owner_id: int, project_id: int) -> Ctx | None:
    """The caller that the owner is in a project of theirs, or None where they were never there.

    Raises:
        BusError: `not_found` when the project is not the owner's, as for one that does not exist.
    """
    row = conn.fetch_one_or_none(
        "SELECT p.id, n.participant_id FROM project pj"
        " LEFT JOIN participant_name n ON n.owner_id = pj.owner_id AND n.label_key = ''"
        " LEFT JOIN participation p ON p.project_id = pj.id AND p.participant_id = n.participant_id"
        "                          AND p.removed_at IS NULL"
        " WHERE pj.id = %s AND pj.owner_id = %s AND pj.purging_at IS NULL",
        (project_id, owner_id),
    )
    if row is None:
        raise NotFound("project")
    participation_id, participant_id = row
    return None if participation_id is None else Ctx(project_id, participation_id, participant_id, owner_id, None)


def get_or_create_owner_context(conn: Connection, owner_id: int, project_id: int) -> Ctx:
    """As `find`, but make the owner's participation where there is none: agents can then write to the handle.

    Locks: the project clock, then the owner, where one is made.
    """
    found = find_owner_context(conn, owner_id, project_id)
    if found is not None:
        return found
    participations.get_or_create_owner_participation(conn, project_id)
    made = find_owner_context(conn, owner_id, project_id)
    assert made is not None
    return made


def release_lease(conn: Connection, ctx: Ctx, fence: int) -> bool:
    """End a live lease of anybody, when its holder is stuck. The ledger and the audit say who did it to whom.

    Args:
        fence: which lease, as lists of leases show it.
    Returns:
        Whether it was live; one that has ended adds nothing.
    Raises:
        BusError: `not_found` when the project never had such a lease; `forbidden` unless project-admin.
    Locks: the project clock, then the lease.
    """
    verb = CallerTransaction(conn, ctx)
    if not verb.is_admin:
        raise BusError("forbidden", "Only a project-admin may do that; ask the owner or an admin of the project.")
    row = conn.fetch_one_or_none(
        "UPDATE lease SET ended_at = clock_timestamp(), ended_by = 'release'"
        " WHERE project_id = %s AND id = %s AND ended_at IS NULL AND expires_at > clock_timestamp()"
        " RETURNING surface, actor",
        (verb.project_id, fence),
    )
    if row is None:
        if (
            conn.fetch_one_or_none("SELECT 1 FROM lease WHERE project_id = %s AND id = %s", (verb.project_id, fence))
            is None
        ):
            raise NotFound("lease")
        return False
    surface, holder = row
    verb.record_event("release", surface=surface, held_by=holder, fence=fence)
    verb.finish()
    audit.record(
        conn, ctx.owner_id, verb.actor, "lease.release", surface, project_id=ctx.project_id, held_by=holder, fence=fence
    )
    return True
