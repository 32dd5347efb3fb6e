"""Integrity checks: recompute invariants from the ledger and the credit entries every night; they repair nothing.

Each discrepancy is an alarm that needs a person, since it means that a guarantee was broken.
"""

from dataclasses import dataclass

import sqlalchemy as sa

from bus.db import Connection, Database

_MAX_DISCREPANCIES = 100


@dataclass(frozen=True, slots=True)
class Discrepancy:
    """A violated invariant.

    Attributes:
        check: name of the check.
        subject: the owner's handle or the project.
        detail: the expected and the actual values.
    """

    check: str
    subject: str
    detail: str


def begin_snapshot(conn: Connection) -> None:
    """Make the transaction read one snapshot, for up to ten minutes per statement; call it first in a transaction."""
    conn.execute(sa.text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ"))
    conn.execute(sa.text("SET LOCAL statement_timeout = '10min'"))


def check_all(database: Database) -> list[Discrepancy]:
    """Check every project and every account, each in its own snapshot."""
    discrepancies: list[Discrepancy] = []
    after = 0
    while True:
        with database.connection() as conn:
            project_ids = list_projects(conn, after)
        if not project_ids:
            break
        for after in project_ids:
            with database.transaction() as conn:
                begin_snapshot(conn)
                discrepancies += check_project(conn, after)
    with database.transaction() as conn:
        begin_snapshot(conn)
        return discrepancies + check_accounts(conn)


def check_accounts(conn: Connection) -> list[Discrepancy]:
    """Check that each balance equals the sum of the account's entries and the balance of the newest entry.

    Also checks that each owner's usage equals the usage entries, purged projects included.
    """
    rows = conn.fetch_all(
        "SELECT o.handle, a.balance, e.total, e.newest FROM credit_account a JOIN owner o ON o.id = a.owner_id"
        " CROSS JOIN LATERAL (SELECT coalesce(sum(x.amount), 0) AS total,"
        "  (array_agg(x.balance ORDER BY x.id DESC))[1] AS newest"
        "  FROM credit_entry x WHERE x.owner_id = a.owner_id) AS e"
        " WHERE a.balance <> e.total OR a.balance <> coalesce(e.newest, 0) LIMIT %s",
        (_MAX_DISCREPANCIES,),
    )
    return [
        Discrepancy(
            check="balance",
            subject=handle,
            detail=f"the balance is {balance}, its entries add up to {total}, the newest entry has {newest}",
        )
        for handle, balance, total, newest in rows
    ] + _check_usage_totals(conn)


def check_project(conn: Connection, project_id: int) -> list[Discrepancy]:
    """Check a project: its ledger has no gaps and agrees with its sequences, its metering and its usage.

    Usage by type is compared with the credit entries, usage by day, participant and type with the ledger.

    Call it in its own transaction, after `begin_snapshot`. Returns nothing for a project that is being purged or does
    not exist, as nothing can be checked.
    """
    if conn.fetch_one_or_none("SELECT 1 FROM project WHERE id = %s AND purging_at IS NULL", (project_id,)) is None:
        return []
    subject = f"project {project_id}"
    discrepancies = [
        *_check_ledger_gaps(conn, project_id, subject),
        *_check_sequences(conn, project_id, subject),
        *_check_metering(conn, project_id, subject),
        *_check_usage_items(conn, project_id, subject),
    ]
    return discrepancies[:_MAX_DISCREPANCIES]


def list_projects(conn: Connection, after: int = 0) -> list[int]:
    """Return the ids of projects that are not being purged, ascending, above the id `after`; at most 200."""
    rows = conn.fetch_all("SELECT id FROM project WHERE id > %s AND purging_at IS NULL ORDER BY id LIMIT 200", (after,))
    return [project_id for (project_id,) in rows]


def _check_ledger_gaps(conn: Connection, project_id: int, subject: str) -> list[Discrepancy]:
    last_seq, count, lowest, highest = conn.fetch_one(
        "SELECT c.last_seq, e.count, e.lowest, e.highest FROM project_clock c CROSS JOIN LATERAL ("
        " SELECT count(*) AS count, coalesce(min(seq), 0) AS lowest, coalesce(max(seq), 0) AS highest"
        " FROM event e WHERE e.project_id = c.project_id AND e.seq <= c.last_seq) AS e WHERE c.project_id = %s",
        (project_id,),
    )
    if (count, highest) == (last_seq, last_seq) and (last_seq == 0 or lowest == 1):
        return []
    detail = f"the clock is at {last_seq}; there are {count} events from {lowest} to {highest}"
    return [Discrepancy(check="ledger", subject=subject, detail=detail)]


def _check_sequences(conn: Connection, project_id: int, subject: str) -> list[Discrepancy]:
    rows = conn.fetch_all(
        "WITH moves AS (SELECT e.payload ->> 'sequence' AS sequence, e.seq, e.type,"
        "   coalesce((e.payload ->> 'number')::bigint, (e.payload ->> 'current')::bigint) AS value"
        "  FROM event e WHERE e.project_id = %(project)s AND e.type IN ('claim', 'seed')),"
        " steps AS (SELECT m.*, lag(m.value, 1, 0::bigint) OVER w AS before, lead(m.seq) OVER w IS NULL AS newest"
        "  FROM moves m WINDOW w AS (PARTITION BY m.sequence ORDER BY m.seq))"
        " SELECT s.sequence, s.seq, format('%%s to %%s by event %%s moves from %%s to %%s', s.type, s.sequence, s.seq,"
        "  s.before, s.value) FROM steps s"
        # What was imported is kept as it was, duplicate numbers included.
        " WHERE s.seq > coalesce((SELECT coalesce(i.last_seq, 9007199254740991) FROM project_import i"
        "  WHERE i.project_id = %(project)s), 0)"
        "  AND (s.type = 'claim' AND s.value <> s.before + 1 OR s.type = 'seed' AND s.value < s.before)"
        " UNION ALL"
        " SELECT q.name, 0, format('%%s is at %%s, its ledger at %%s', q.name, q.current, s.value)"
        " FROM sequence q LEFT JOIN steps s ON s.sequence = q.name AND s.newest"
        " WHERE q.project_id = %(project)s AND q.current IS DISTINCT FROM coalesce(s.value, 0)"
        " ORDER BY 1, 2 LIMIT %(limit)s",
        {"project": project_id, "limit": _MAX_DISCREPANCIES},
    )
    return [Discrepancy(check="sequence", subject=subject, detail=detail) for _, _, detail in rows]


def _check_metering(conn: Connection, project_id: int, subject: str) -> list[Discrepancy]:
    watermark = conn.fetch_one_or_none(
        "SELECT started_seq, metered_seq FROM meter_mark WHERE project_id = %s", (project_id,)
    )
    if watermark is None:
        return []
    started_seq, metered_seq = watermark
    (due,) = conn.fetch_one(
        "SELECT coalesce(sum((SELECT p.credits FROM price p WHERE p.event_type = e.type AND p.effective_from <= e.at"
        "  ORDER BY p.effective_from DESC LIMIT 1)), 0)::bigint"
        " FROM event e WHERE e.project_id = %s AND e.seq > %s AND e.seq <= %s",
        (project_id, started_seq, metered_seq),
    )
    billed, has_overlap = conn.fetch_one(
        "SELECT coalesce(-sum(amount), 0)::bigint, coalesce(bool_or(first_seq <= before), false) FROM ("
        "  SELECT amount, first_seq, lag(last_seq) OVER (ORDER BY last_seq) AS before FROM credit_entry"
        "  WHERE project_id = %s AND kind = 'usage' AND first_seq > %s) AS usage",
        (project_id, started_seq),
    )
    discrepancies = []
    if billed != due:
        detail = f"events {started_seq + 1} to {metered_seq} cost {due} credits, {billed} were billed"
        discrepancies.append(Discrepancy(check="metering", subject=subject, detail=detail))
    if has_overlap:
        discrepancies.append(Discrepancy(check="metering", subject=subject, detail="an event was billed twice"))
    return discrepancies


def _check_usage_totals(conn: Connection) -> list[Discrepancy]:
    rows = conn.fetch_all(
        "SELECT o.handle, coalesce(e.billed, 0), coalesce(u.used, 0) FROM"
        " (SELECT owner_id, -sum(amount) AS billed FROM credit_entry WHERE kind = 'usage' GROUP BY owner_id) AS e"
        " FULL JOIN (SELECT owner_id, sum(credits) AS used FROM credit_usage GROUP BY owner_id) AS u USING (owner_id)"
        " JOIN owner o ON o.id = owner_id WHERE e.billed IS DISTINCT FROM u.used ORDER BY o.id LIMIT %s",
        (_MAX_DISCREPANCIES,),
    )
    return [
        Discrepancy(check="usage", subject=handle, detail=f"the usage adds up to {used} credits, {billed} were billed")
        for handle, billed, used in rows
    ]


def _check_usage_items(conn: Connection, project_id: int, subject: str) -> list[Discrepancy]:
    by_type = conn.fetch_all(
        "SELECT type, coalesce(e.billed, 0), coalesce(u.used, 0) FROM"
        " (SELECT kind.key AS type, sum((kind.value ->> 1)::bigint) AS billed"
        "  FROM credit_entry x CROSS JOIN LATERAL jsonb_each(x.detail) AS kind"
        "  WHERE x.project_id = %(project)s AND x.kind = 'usage' GROUP BY kind.key"
        "  HAVING sum((kind.value ->> 1)::bigint) > 0) AS e"
        " FULL JOIN (SELECT event_type AS type, sum(credits) AS used FROM credit_usage"
        "  WHERE project_id = %(project)s GROUP BY event_type) AS u USING (type)"
        " WHERE e.billed IS DISTINCT FROM u.used ORDER BY type",
        {"project": project_id},
    )
    rows = conn.fetch_all(_LEDGER_USAGE_SQL, {"project": project_id, "limit": _MAX_DISCREPANCIES})
    return [
        Discrepancy(
            check="usage",
            subject=subject,
            detail=f"{event_type}: {used} credits of usage, {billed} in the entries",
        )
        for event_type, billed, used in by_type
    ] + [
        Discrepancy(
            check="usage",
            subject=subject,
            detail=f"{day}, participant {participant_id}, {event_type}: {used} credits of usage, {due} by the ledger",
        )
        for day, participant_id, event_type, due, used in rows
    ]


# Compares only days whose events were all billed since metering was last switched on and with participants recorded:
# those after the day on which metering began, and after the last day with an unrecorded participant.
_LEDGER_USAGE_SQL = """
    WITH mark AS (
        SELECT m.started_seq, m.metered_seq, greatest(
            (SELECT (e.at AT TIME ZONE 'UTC')::date FROM event e
             WHERE e.project_id = m.project_id AND e.seq = m.started_seq),
            (SELECT max(u.day) FROM credit_usage u WHERE u.project_id = m.project_id AND u.participant_id = 0),
            '-infinity') AS before
        FROM meter_mark m WHERE m.project_id = %(project)s),
    due AS (
        SELECT priced.day, coalesce(p.participant_id, 0) AS participant_id, priced.type,
               sum(priced.credits)::bigint AS credits
        FROM (
            SELECT (e.at AT TIME ZONE 'UTC')::date AS day, e.participation_id, e.type, sum((
                SELECT p.credits FROM price p WHERE p.event_type = e.type AND p.effective_from <= e.at
                ORDER BY p.effective_from DESC LIMIT 1)) AS credits
            FROM mark JOIN event e ON e.project_id = %(project)s AND e.seq > mark.started_seq
             AND e.seq <= mark.metered_seq
            WHERE (e.at AT TIME ZONE 'UTC')::date > mark.before GROUP BY 1, 2, 3) AS priced
        LEFT JOIN participation p ON p.id = priced.participation_id
        WHERE priced.credits > 0 GROUP BY 1, 2, 3),
    kept AS (
        SELECT u.day, u.participant_id, u.event_type AS type, u.credits
        FROM mark JOIN credit_usage u ON u.project_id = %(project)s AND u.day > mark.before)
    SELECT day, participant_id, type, coalesce(due.credits, 0), coalesce(kept.credits, 0)
    FROM due FULL JOIN kept USING (day, participant_id, type)
    WHERE due.credits IS DISTINCT FROM kept.credits ORDER BY 1, 2, 3 LIMIT %(limit)s
"""
