"""Metering: billing the events of the ledger, each exactly once, and never on the path of a call.

Event numbers have no holes and their order is that of the commits, so everything up to the number that a project's
clock shows is there to be read. A project's mark moves over (metered_seq, last_seq] in the transaction that debits;
however many meters run, the account's lock lets one at a time do so.
Source: docs/decisions/0014-metering.md
"""

from dataclasses import dataclass

from bus.billing import credits
from bus.db import Connection
from bus.tenancy import audit

# Events of one debit. Each is one short transaction.
BATCH_SIZE = 5_000
_PROJECT_PAGE_SIZE = 200


@dataclass(frozen=True, slots=True)
class BilledBatch:
    """What one debit covered; `more` asks for another."""

    events: int
    credits: int
    has_more: bool


def is_metering_enabled(conn: Connection) -> bool:
    """Whether events are billed."""
    return bool(conn.fetch_one("SELECT running FROM metering")[0])


def set_metering_enabled(conn: Connection, enabled: bool, *, actor: str = "clock") -> bool:
    """Begin or end to bill; returns whether that changed anything.

    What happened before it begins is never billed: every project's mark moves to the end of its ledger. When it ends,
    whoever was suspended for want of credits is not any more.

    Locks: the switch, which every debit shares, so that none is under way.
    """
    if is_metering_enabled(conn) == enabled:
        return False
    credits.lock_metering_exclusive(conn)
    changed = conn.fetch_one_or_none(
        "UPDATE metering SET running = %(running)s, changed_at = clock_timestamp(), changed_by = %(actor)s"
        " WHERE running <> %(running)s RETURNING 1",
        {"running": enabled, "actor": actor},
    )
    if changed is None:
        return False
    audit.record(conn, None, actor, "metering.on" if enabled else "metering.off", "metering")
    if enabled:
        conn.execute(
            "INSERT INTO meter_mark AS m (project_id, metered_seq, started_seq)"
            " SELECT c.project_id, c.last_seq, c.last_seq FROM project_clock c ORDER BY c.project_id"
            " ON CONFLICT ON CONSTRAINT meter_mark_pkey DO UPDATE"
            " SET metered_seq = excluded.metered_seq, started_seq = excluded.started_seq"
        )
    else:
        credits.clear_delinquencies(conn)
    return True


def record_terms(conn: Connection, *, grace_hours: int, trial_credits: int) -> None:
    """Keep what the workers were told, for whoever tells owners what happens at zero.

    Locks: the switch, and only where something is new.
    """
    known = conn.fetch_one("SELECT grace_hours, trial_credits FROM metering")
    if known != (grace_hours, trial_credits):
        credits.lock_metering_exclusive(conn)
        conn.execute("UPDATE metering SET grace_hours = %s, trial_credits = %s", (grace_hours, trial_credits))


def list_unmetered_projects(conn: Connection, after: int = 0) -> list[int]:
    """Projects above an id, in order, that have events to bill."""
    rows = conn.fetch_all(
        "SELECT c.project_id FROM project_clock c LEFT JOIN meter_mark m ON m.project_id = c.project_id"
        " WHERE c.last_seq > coalesce(m.metered_seq, 0) AND c.project_id > %s ORDER BY c.project_id LIMIT %s",
        (after, _PROJECT_PAGE_SIZE),
    )
    return [project_id for (project_id,) in rows]


def bill_batch(conn: Connection, project_id: int, *, trial_credits: int = 0, limit: int = BATCH_SIZE) -> BilledBatch:
    """Bill the next events of a project, each at the price of its own time; nothing while metering is off.

    What they cost is added to `credit_usage`, by the UTC day of each event and by who wrote it.

    Args:
        trial: what an owner's account is opened with.
        limit: the most events of one debit.
    Locks: the switch (shared), the owner's account, the mark, then rows of usage. What is billed is read afterwards.
    """
    if conn.fetch_one_or_none("SELECT 1 FROM metering WHERE running FOR SHARE") is None:
        return BilledBatch(0, 0, False)
    row = conn.fetch_one_or_none("SELECT owner_id FROM project WHERE id = %s", (project_id,))
    if row is None:
        return BilledBatch(0, 0, False)
    account = credits.get_or_create_account(conn, row[0], trial_credits=trial_credits)
    conn.execute(
        "INSERT INTO meter_mark (project_id, metered_seq) VALUES (%s, 0) ON CONFLICT DO NOTHING",
        (project_id,),
    )
    (mark,) = conn.fetch_one("SELECT metered_seq FROM meter_mark WHERE project_id = %s FOR UPDATE", (project_id,))
    (end,) = conn.fetch_one("SELECT last_seq FROM project_clock WHERE project_id = %s", (project_id,))
    last = min(end, mark + limit)
    if last <= mark:
        return BilledBatch(0, 0, False)
    priced = conn.fetch_all(
        _PRICE_AND_RECORD_USAGE_SQL, {"owner": row[0], "project": project_id, "after": mark, "last": last}
    )
    detail = {kind: [count, cost] for kind, count, cost in priced}
    cost = sum(cost for _, cost in detail.values())
    if cost:
        credits.debit(conn, account, cost, project_id=project_id, first_seq=mark + 1, last_seq=last, detail=detail)
    conn.execute("UPDATE meter_mark SET metered_seq = %s WHERE project_id = %s", (last, project_id))
    return BilledBatch(last - mark, cost, last < end)


# Prices the events and adds them to their owner's usage in one pass, so that the two cannot differ. The owner's account
# is locked, and so nobody else adds to these rows. Grouped by participation first, which is one participant's.
_PRICE_AND_RECORD_USAGE_SQL = """
    WITH held AS MATERIALIZED (
        SELECT p.event_type, p.credits, p.effective_from,
               lead(p.effective_from, 1, 'infinity') OVER (PARTITION BY p.event_type ORDER BY p.effective_from) AS until
        FROM price p),
    billed AS MATERIALIZED (
        SELECT (e.at AT TIME ZONE 'UTC')::date AS day, e.participation_id, e.type, count(*) AS events,
               count(*) FILTER (WHERE h.credits > 0) AS costing, coalesce(sum(h.credits), 0) AS credits
        FROM event e LEFT JOIN held h ON h.event_type = e.type AND e.at >= h.effective_from AND e.at < h.until
        WHERE e.project_id = %(project)s AND e.seq > %(after)s AND e.seq <= %(last)s
        GROUP BY 1, 2, 3),
    kept AS (
        INSERT INTO credit_usage AS u (owner_id, day, project_id, participant_id, event_type, events, credits)
        SELECT %(owner)s, b.day, %(project)s, coalesce(p.participant_id, 0), b.type, sum(b.costing), sum(b.credits)
        FROM billed b LEFT JOIN participation p ON p.id = b.participation_id
        WHERE b.credits > 0 GROUP BY 2, 4, 5
        ON CONFLICT ON CONSTRAINT credit_usage_pkey
        DO UPDATE SET events = u.events + excluded.events, credits = u.credits + excluded.credits)
    SELECT b.type, sum(b.events)::bigint, sum(b.credits)::bigint FROM billed b GROUP BY b.type ORDER BY b.type
"""
