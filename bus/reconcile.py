"""The nightly proof: what must always hold, computed again from the ledger and the entries. It repairs nothing.

A difference is an alarm: somebody has to look, since every one of them means that a guarantee was broken.
"""

from dataclasses import dataclass

import sqlalchemy as sa

from bus.db import Connection

_MOST = 100


@dataclass(frozen=True, slots=True)
class Difference:
    """Something that does not hold: which check, of what, and what was found."""

    check: str
    subject: str
    found: str


def begin(conn: Connection) -> None:
    """Begin a transaction that reads long and sees one moment: a proof looks at everything, and at nothing else."""
    conn.run(sa.text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ"))
    conn.run(sa.text("SET LOCAL statement_timeout = '10min'"))


def check_accounts(conn: Connection) -> list[Difference]:
    """The entries of each account add up to its balance, and so does the balance that the newest entry says."""
    rows = conn.all(
        "SELECT o.handle, a.balance, e.total, e.newest FROM credit_account a JOIN owner o ON o.id = a.owner_id"
        " CROSS JOIN LATERAL (SELECT coalesce(sum(x.amount), 0) AS total,"
        "  (array_agg(x.balance ORDER BY x.id DESC))[1] AS newest"
        "  FROM credit_entry x WHERE x.owner_id = a.owner_id) AS e"
        " WHERE a.balance <> e.total OR a.balance <> coalesce(e.newest, 0) LIMIT %s",
        (_MOST,),
    )
    return [
        Difference(
            "balance", handle, f"the balance is {balance}, its entries add up to {total}, the newest says {last}"
        )
        for handle, balance, total, last in rows
    ]


def check_project(conn: Connection, project_id: int) -> list[Difference]:
    """The ledger of a project has no holes, its sequences stand where it says, and what was metered is what it holds.

    Reads one snapshot. Call it in a transaction of its own.
    """
    name = f"project {project_id}"
    found = [
        *_holes(conn, project_id, name),
        *_sequences(conn, project_id, name),
        *_metered(conn, project_id, name),
    ]
    return found[:_MOST]


def list_projects(conn: Connection, after: int = 0) -> list[int]:
    """Projects above an id, in order, that are not being deleted."""
    rows = conn.all("SELECT id FROM project WHERE id > %s AND purging_at IS NULL ORDER BY id LIMIT 200", (after,))
    return [project_id for (project_id,) in rows]


def _holes(conn: Connection, project_id: int, name: str) -> list[Difference]:
    (last, count, least, most) = conn.one(
        "SELECT c.last_seq, e.count, e.least, e.most FROM project_clock c CROSS JOIN LATERAL ("
        " SELECT count(*) AS count, coalesce(min(seq), 0) AS least, coalesce(max(seq), 0) AS most"
        " FROM event e WHERE e.project_id = c.project_id AND e.seq <= c.last_seq) AS e WHERE c.project_id = %s",
        (project_id,),
    )
    if (count, most) == (last, last) and (last == 0 or least == 1):
        return []
    return [Difference("ledger", name, f"the clock shows {last}; there are {count} events from {least} to {most}")]


def _sequences(conn: Connection, project_id: int, name: str) -> list[Difference]:
    rows = conn.all(
        "WITH moves AS (SELECT e.payload ->> 'sequence' AS sequence, e.seq, e.type,"
        "   coalesce((e.payload ->> 'number')::bigint, (e.payload ->> 'current')::bigint) AS value"
        "  FROM event e WHERE e.project_id = %(project)s AND e.type IN ('claim', 'seed')),"
        " steps AS (SELECT m.*, lag(m.value, 1, 0::bigint) OVER w AS before, lead(m.seq) OVER w IS NULL AS newest"
        "  FROM moves m WINDOW w AS (PARTITION BY m.sequence ORDER BY m.seq))"
        " SELECT s.sequence, s.seq, format('%%s to %%s by event %%s moves from %%s to %%s', s.type, s.sequence, s.seq,"
        "  s.before, s.value) FROM steps s"
        " WHERE (s.type = 'claim' AND s.value <> s.before + 1) OR (s.type = 'seed' AND s.value < s.before)"
        " UNION ALL"
        " SELECT q.name, 0, format('%%s stands at %%s, its ledger at %%s', q.name, q.current, s.value)"
        " FROM sequence q LEFT JOIN steps s ON s.sequence = q.name AND s.newest"
        " WHERE q.project_id = %(project)s AND q.current IS DISTINCT FROM coalesce(s.value, 0)"
        " ORDER BY 1, 2 LIMIT %(limit)s",
        {"project": project_id, "limit": _MOST},
    )
    return [Difference("sequence", name, found) for _, _, found in rows]


def _metered(conn: Connection, project_id: int, name: str) -> list[Difference]:
    mark = conn.maybe("SELECT started_seq, metered_seq FROM meter_mark WHERE project_id = %s", (project_id,))
    if mark is None:
        return []
    started, metered = mark
    (due,) = conn.one(
        "SELECT coalesce(sum((SELECT p.credits FROM price p WHERE p.event_type = e.type AND p.effective_from <= e.at"
        "  ORDER BY p.effective_from DESC LIMIT 1)), 0)::bigint"
        " FROM event e WHERE e.project_id = %s AND e.seq > %s AND e.seq <= %s",
        (project_id, started, metered),
    )
    billed, doubled = conn.one(
        "SELECT coalesce(-sum(amount), 0)::bigint, coalesce(bool_or(first_seq <= before), false) FROM ("
        "  SELECT amount, first_seq, lag(last_seq) OVER (ORDER BY last_seq) AS before FROM credit_entry"
        "  WHERE project_id = %s AND kind = 'usage' AND first_seq > %s) AS usage",
        (project_id, started),
    )
    found = []
    if billed != due:
        found.append(
            Difference("metering", name, f"events {started + 1} to {metered} cost {due} credits, {billed} were billed")
        )
    if doubled:
        found.append(Difference("metering", name, "an event was billed twice"))
    return found
