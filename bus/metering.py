"""Metering: billing the events of the ledger, each exactly once, and never on the path of a call.

Event numbers have no holes and their order is that of the commits, so everything up to the number that a project's
clock shows is there to be read. A project's mark moves over (metered_seq, last_seq] in the transaction that debits;
however many meters run, the account's lock lets one at a time do so.
Source: docs/decisions/0014-metering.md
"""

from dataclasses import dataclass

from bus import credits
from bus.db import Connection

# Events of one debit. Each is one short transaction.
BATCH = 5_000
_PROJECTS = 200


@dataclass(frozen=True, slots=True)
class Billed:
    """What one debit covered; `more` asks for another."""

    events: int
    credits: int
    more: bool


def is_running(conn: Connection) -> bool:
    """Whether events are billed."""
    return bool(conn.one("SELECT running FROM metering")[0])


def switch(conn: Connection, running: bool, *, actor: str = "clock") -> bool:
    """Begin or end to bill; returns whether that changed anything.

    What happened before it begins is never billed: every project's mark moves to the end of its ledger. When it ends,
    whoever was suspended for want of credits is not any more.

    Locks: the switch, which every debit shares, so that none is under way.
    """
    changed = conn.maybe(
        "UPDATE metering SET running = %(running)s, changed_at = clock_timestamp(), changed_by = %(actor)s"
        " WHERE running <> %(running)s RETURNING 1",
        {"running": running, "actor": actor},
    )
    if changed is None:
        return False
    if running:
        conn.maybe(
            "INSERT INTO meter_mark AS m (project_id, metered_seq, started_seq)"
            " SELECT c.project_id, c.last_seq, c.last_seq FROM project_clock c ORDER BY c.project_id"
            " ON CONFLICT ON CONSTRAINT meter_mark_pkey DO UPDATE"
            " SET metered_seq = excluded.metered_seq, started_seq = excluded.started_seq RETURNING 1"
        )
    else:
        credits.forgive_all(conn)
    return True


def find_unmetered(conn: Connection, after: int = 0) -> list[int]:
    """Projects above an id, in order, that have events to bill."""
    rows = conn.all(
        "SELECT c.project_id FROM project_clock c LEFT JOIN meter_mark m ON m.project_id = c.project_id"
        " WHERE c.last_seq > coalesce(m.metered_seq, 0) AND c.project_id > %s ORDER BY c.project_id LIMIT %s",
        (after, _PROJECTS),
    )
    return [project_id for (project_id,) in rows]


def bill(conn: Connection, project_id: int, *, trial: int = 0, limit: int = BATCH) -> Billed:
    """Bill the next events of a project, each at the price of its own time; nothing while metering is off.

    Args:
        trial: what an owner's account is opened with.
        limit: the most events of one debit.
    Locks: the switch (shared), the owner's account, then the mark. What is billed is read afterwards.
    """
    if conn.maybe("SELECT 1 FROM metering WHERE running FOR SHARE") is None:
        return Billed(0, 0, False)
    row = conn.maybe("SELECT owner_id FROM project WHERE id = %s", (project_id,))
    if row is None:
        return Billed(0, 0, False)
    account = credits.open_account(conn, row[0], trial=trial)
    conn.maybe(
        "INSERT INTO meter_mark (project_id, metered_seq) VALUES (%s, 0) ON CONFLICT DO NOTHING RETURNING 1",
        (project_id,),
    )
    (mark,) = conn.one("SELECT metered_seq FROM meter_mark WHERE project_id = %s FOR UPDATE", (project_id,))
    (end,) = conn.one("SELECT last_seq FROM project_clock WHERE project_id = %s", (project_id,))
    last = min(end, mark + limit)
    if last <= mark:
        return Billed(0, 0, False)
    priced = conn.all(_PRICED, {"project": project_id, "after": mark, "last": last})
    detail = {kind: [count, int(cost)] for kind, count, cost in priced}
    cost = sum(cost for _, cost in detail.values())
    if cost:
        credits.debit(conn, account, cost, project_id=project_id, first=mark + 1, last=last, detail=detail)
    conn.maybe("UPDATE meter_mark SET metered_seq = %s WHERE project_id = %s RETURNING 1", (last, project_id))
    return Billed(last - mark, cost, last < end)


_PRICED = """
    SELECT e.type, count(*), sum(coalesce((
        SELECT p.credits FROM price p WHERE p.event_type = e.type AND p.effective_from <= e.at
        ORDER BY p.effective_from DESC LIMIT 1), 0))
    FROM event e WHERE e.project_id = %(project)s AND e.seq > %(after)s AND e.seq <= %(last)s
    GROUP BY e.type ORDER BY e.type
"""
