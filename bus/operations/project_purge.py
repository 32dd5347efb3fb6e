"""Deletion of a project: what it holds, the begin of its purge, and the steps that delete its rows."""

from dataclasses import dataclass

from bus.billing import metering
from bus.db import Connection
from bus.db.capped_count import capped_count
from bus.errors import NotFound
from bus.notifications import outbox
from bus.tenancy import projects


@dataclass(frozen=True, slots=True)
class ProjectContents:
    """The contents of a project, which its purge deletes. Counts are capped at 1,000, except `event_count`."""

    event_count: int
    post_count: int
    task_count: int
    sequence_count: int
    participant_count: int
    live_token_count: int
    open_invite_count: int


_LIVE_TOKENS = (
    "FROM participation p JOIN token t ON t.participation_id = p.id"
    " WHERE p.project_id = pj.id AND t.parent_id IS NULL AND bus_token_is_live(t.revoked_at, t.expires_at)"
)
_OPEN_INVITES = (
    "FROM invite i WHERE i.project_id = pj.id AND i.revoked_at IS NULL"
    " AND i.used < i.uses AND i.expires_at > clock_timestamp()"
)
_PARTICIPATIONS = "FROM participation p WHERE p.project_id = pj.id AND p.removed_at IS NULL"
_CONTENTS_SQL = f"""
    SELECT c.last_seq AS event_count,
           c.last_task AS task_count,
           {capped_count("FROM post o WHERE o.project_id = pj.id", 1000)} AS post_count,
           {capped_count("FROM sequence s WHERE s.project_id = pj.id", 1000)} AS sequence_count,
           {capped_count(_PARTICIPATIONS, 1000)} AS participant_count,
           {capped_count(_LIVE_TOKENS, 1000)} AS live_token_count,
           {capped_count(_OPEN_INVITES, 1000)} AS open_invite_count
    FROM project pj JOIN project_clock c ON c.project_id = pj.id WHERE pj.id = %s AND pj.purging_at IS NULL
"""


def get_contents(conn: Connection, project_id: int) -> ProjectContents:
    """Return the contents of a project.

    Raises:
        BusError: `not_found`.
    """
    contents = conn.fetch_one_or_none_as(ProjectContents, _CONTENTS_SQL, (project_id,))
    if contents is None:
        raise NotFound("project")
    return contents


def begin_purge(
    conn: Connection, project_id: int, *, actor: str, reason: str = "", batch_size: int = metering.BATCH_SIZE
) -> bool:
    """Take one step towards the permanent deletion of a project; return whether the purge has begun.

    Call it until it returns true, each time in a transaction of its own, so that no transaction lasts long. The steps
    bill the events that are not metered yet, a batch each, since the purge deletes them. When the last step commits,
    the project is inaccessible; `purge_step` deletes its rows.

    Args:
        batch_size: the largest number of events in a batch; a step bills at most two batches.
    Raises:
        BusError: `not_found`, also when a concurrent purge of the project has begun.
    Locks: what metering locks, then the project clock, then the project.
    """
    project = projects.get(conn, project_id)
    if metering.bill_batch(conn, project_id, limit=batch_size).has_more:
        return False
    # From here on the ledger does not grow, and transactions that held the clock before have committed.
    conn.execute("SELECT bus_lock_clock(%s)", (project_id,))
    if metering.bill_batch(conn, project_id, limit=batch_size).has_more:
        return False
    conn.execute("SELECT bus_purge_begin(%s, %s, jsonb_build_object('reason', %s::text))", (project_id, actor, reason))
    outbox.give_up_messages_of_project(conn, project.owner_id, project_id)
    return True


def purge_step(conn: Connection, project_id: int, *, limit: int = 10_000) -> bool:
    """Delete up to `limit` rows of a project whose purge has begun; return whether nothing is left."""
    return bool(conn.fetch_one("SELECT bus_purge_step(%s, %s)", (project_id, limit))[0])
