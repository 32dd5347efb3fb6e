"""Metering: bill each event of the ledger exactly once, never on the path of a call.

Event numbers have no gaps and follow commit order, so all events up to a project's `last_seq` are readable. The
project's `metered_seq` advances over (metered_seq, last_seq] in the transaction that debits. The lock of the account
serialises concurrent meters.
Source: docs/decisions/0014-metering.md
"""

from dataclasses import dataclass

from bus.billing import credits
from bus.db import Connection
from bus.tenancy import audit

# Events per debit; each debit is one short transaction.
BATCH_SIZE = 5_000
_PROJECT_PAGE_SIZE = 200


@dataclass(frozen=True, slots=True)
class BilledBatch:
    """Result of one debit.

    Attributes:
        events, credits: number of billed events and their total price.
        has_more: more events of the project are unbilled.
    """

    events: int
    credits: int
    has_more: bool


_EMPTY_BATCH = BilledBatch(events=0, credits=0, has_more=False)


def is_metering_enabled(conn: Connection) -> bool:
    """Return whether events are billed."""
    return bool(conn.fetch_one("SELECT running FROM metering")[0])


def set_metering_enabled(conn: Connection, enabled: bool, *, actor: str = "clock") -> bool:
    """Switch metering on or off; returns whether that changed anything.

    Switching on moves every project's `metered_seq` to the end of its ledger, so that earlier events are never billed.
    Switching off lifts every suspension for exhausted credits.

    Locks: the table `metering`, exclusively; every debit shares it, so none is in progress.
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
        conn.enter_all_projects()
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
    """Store the billing settings of the workers, which the web shows to owners.

    Args:
        grace_hours: from a balance of zero to the suspension.
        trial_credits: opening balance of a new account.
    Locks: the table `metering`, exclusively, and only if a setting has changed.
    """
    stored_terms = conn.fetch_one("SELECT grace_hours, trial_credits FROM metering")
    if stored_terms != (grace_hours, trial_credits):
        credits.lock_metering_exclusive(conn)
        conn.execute("UPDATE metering SET grace_hours = %s, trial_credits = %s", (grace_hours, trial_credits))


def list_unmetered_projects(conn: Connection, after: int = 0) -> list[int]:
    """Return the ids of projects with unbilled events, ascending, above the id `after`."""
    rows = conn.fetch_all(
        "SELECT c.project_id FROM project_clock c LEFT JOIN meter_mark m ON m.project_id = c.project_id"
        " WHERE c.last_seq > coalesce(m.metered_seq, 0) AND c.project_id > %s ORDER BY c.project_id LIMIT %s",
        (after, _PROJECT_PAGE_SIZE),
    )
    return [project_id for (project_id,) in rows]


def bill_batch(conn: Connection, project_id: int, *, trial_credits: int = 0, limit: int = BATCH_SIZE) -> BilledBatch:
    """Bill the next events of a project, each at the price of its own time; bills nothing while metering is off.

    The costs are added to `credit_usage`, by UTC day of the event and participant.

    Args:
        trial_credits: opening balance of a new account.
        limit: most events of one debit.
    Locks: the row of `metering` (shared), the owner's account, the project's `meter_mark`, then rows of usage. Events
        are read afterwards.
    """
    if conn.fetch_one_or_none("SELECT 1 FROM metering WHERE running FOR SHARE") is None:
        return _EMPTY_BATCH
    row = conn.fetch_one_or_none("SELECT owner_id FROM project WHERE id = %s", (project_id,))
    if row is None:
        return _EMPTY_BATCH
    (owner_id,) = row
    conn.enter_project(project_id)
    account = credits.get_or_create_account(conn, owner_id, trial_credits=trial_credits)
    conn.execute(
        "INSERT INTO meter_mark (project_id, metered_seq) VALUES (%s, 0) ON CONFLICT DO NOTHING",
        (project_id,),
    )
    (metered_seq,) = conn.fetch_one(
        "SELECT metered_seq FROM meter_mark WHERE project_id = %s FOR UPDATE", (project_id,)
    )
    (ledger_end,) = conn.fetch_one("SELECT last_seq FROM project_clock WHERE project_id = %s", (project_id,))
    last_seq = min(ledger_end, metered_seq + limit)
    if last_seq <= metered_seq:
        return _EMPTY_BATCH
    priced = conn.fetch_all(
        _PRICE_AND_RECORD_USAGE_SQL,
        {"owner": owner_id, "project": project_id, "after": metered_seq, "last": last_seq},
    )
    detail = {event_type: [count, cost] for event_type, count, cost in priced}
    total_cost = sum(cost for _, cost in detail.values())
    if total_cost:
        credits.debit(
            conn,
            account,
            total_cost,
            project_id=project_id,
            first_seq=metered_seq + 1,
            last_seq=last_seq,
            detail=detail,
        )
    conn.execute("UPDATE meter_mark SET metered_seq = %s WHERE project_id = %s", (last_seq, project_id))
    return BilledBatch(events=last_seq - metered_seq, credits=total_cost, has_more=last_seq < ledger_end)


# Prices the events and adds them to the owner's usage in one pass, so that the two cannot differ. The lock of the
# owner's account keeps other writers from these rows. Grouping by participation first keeps the join small; each
# participation belongs to one participant.
_PRICE_AND_RECORD_USAGE_SQL = """
    WITH price_period AS MATERIALIZED (
        SELECT p.event_type, p.credits, p.effective_from,
               lead(p.effective_from, 1, 'infinity') OVER (PARTITION BY p.event_type ORDER BY p.effective_from) AS until
        FROM price p),
    billed AS MATERIALIZED (
        SELECT (e.at AT TIME ZONE 'UTC')::date AS day, e.participation_id, e.type, count(*) AS events,
               count(*) FILTER (WHERE pp.credits > 0) AS costing, coalesce(sum(pp.credits), 0) AS credits
        FROM event e LEFT JOIN price_period pp
            ON pp.event_type = e.type AND e.at >= pp.effective_from AND e.at < pp.until
        WHERE e.project_id = %(project)s AND e.seq > %(after)s AND e.seq <= %(last)s
        GROUP BY 1, 2, 3),
    recorded AS (
        INSERT INTO credit_usage AS u (owner_id, day, project_id, participant_id, event_type, events, credits)
        SELECT %(owner)s, b.day, %(project)s, coalesce(p.participant_id, 0), b.type, sum(b.costing), sum(b.credits)
        FROM billed b LEFT JOIN participation p ON p.id = b.participation_id
        WHERE b.credits > 0 GROUP BY 2, 4, 5
        ON CONFLICT ON CONSTRAINT credit_usage_pkey
        DO UPDATE SET events = u.events + excluded.events, credits = u.credits + excluded.credits)
    SELECT b.type, sum(b.events)::bigint, sum(b.credits)::bigint FROM billed b GROUP BY b.type ORDER BY b.type
"""
