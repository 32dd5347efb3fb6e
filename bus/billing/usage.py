"""Usage: what an owner's credits went to, by day, project, participant and type, and how long they will last.

Read from `credit_usage`, which the debits keep; no ledger is read. Days are UTC days of the events.
Source: docs/decisions/0023-usage.md
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, timedelta

from bus.db import Connection
from bus.rules import forecast as forecast_rules
from bus.rules import validation

PERIODS = (7, 30, 90)
"""How many days one may look back, today included."""

LISTED = 20
_PACE_DAYS = 7


@dataclass(frozen=True, slots=True)
class Day:
    """A day: the events that cost something, what they cost, and that by the projects of `Usage.projects`.

    Attributes:
        balance: the balance at the end of the day, once everything of it was billed; of today, the balance now.
        by_project: credits in the order of `Usage.projects`.
    """

    day: date
    events: int
    credits: int
    balance: int
    by_project: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Share:
    """What one project, participant or type of event used.

    Attributes:
        id: of the project or participant; None for a type, and for the rest that is put together.
        name: as people know it; None for a participant that was not kept, and for a project whose name is lost.
        gone: it was deleted or removed.
    """

    id: int | None
    name: str | None
    gone: bool
    events: int
    credits: int


@dataclass(frozen=True, slots=True)
class Usage:
    """A period: each of its days, oldest first, and the most expensive projects, participants and types.

    Projects and participants beyond LISTED are put together as a last `Share` whose name is empty.
    """

    days: list[Day]
    projects: list[Share]
    participants: list[Share]
    types: list[Share]
    events: int
    credits: int


@dataclass(frozen=True, slots=True)
class Forecast:
    """How fast credits go.

    Attributes:
        days: the whole UTC days before today that it is taken from: 7, or as many as there were since the first usage.
        credits: used in those days.
        today: the UTC day from which on it is counted.
        until: the day on which the balance reaches zero; None where it does not fall, is used up, or lasts for more
            than ten years.
    """

    days: int
    credits: int
    today: date
    until: date | None

    @property
    def a_day(self) -> float:
        """Credits a day."""
        return self.credits / self.days


def get(conn: Connection, owner_id: int, days: int) -> Usage:
    """What an owner used in the last days, today included.

    Args:
        days: one of PERIODS.
    """
    validation.integer(days, "days", 1, PERIODS[-1])
    (today,) = conn.one("SELECT (clock_timestamp() AT TIME ZONE 'UTC')::date")
    rows = conn.all(_SUMS, {"owner": owner_id, "after": today - timedelta(days=days)})
    by_day: dict[date, tuple[int, int]] = {}
    by_project: dict[int, tuple[int, int]] = {}
    by_day_project: dict[tuple[date, int], int] = {}
    people: list[tuple[int, int, int]] = []
    types: list[tuple[str, int, int]] = []
    for day, project_id, participant_id, kind, events, cost in rows:
        if day is not None:
            by_day[day] = _plus(by_day.get(day), events, cost)
            by_project[project_id] = _plus(by_project.get(project_id), events, cost)
            by_day_project[day, project_id] = cost
        elif participant_id is not None:
            people.append((participant_id, events, cost))
        else:
            types.append((kind, events, cost))
    projects = _shares(((key, *sums) for key, sums in by_project.items()), _project_names(conn, owner_id))
    shown = [share.id for share in projects if share.id is not None]
    balances = _balances(conn, owner_id, today, days, {day: cost for day, (_, cost) in by_day.items()})
    listed = []
    for day in (today - timedelta(days=back) for back in reversed(range(days))):
        events, credits = by_day.get(day, (0, 0))
        parts = [by_day_project.get((day, project_id), 0) for project_id in shown]
        if len(shown) < len(projects):
            parts.append(credits - sum(parts))
        listed.append(Day(day, events, credits, balances[day], tuple(parts)))
    return Usage(
        listed,
        projects,
        _shares(people, _participant_names(conn, owner_id)),
        [Share(None, key, False, n, cost) for key, n, cost in sorted(types, key=lambda row: (-row[2], row[0]))],
        sum(n for n, _ in by_day.values()),
        sum(cost for _, cost in by_day.values()),
    )


def forecast(conn: Connection, owner_id: int, balance: int) -> Forecast | None:
    """How long a balance lasts at the pace of the last seven whole days.

    Returns:
        None before the first whole day since credits were first used: there is no pace yet.
    """
    today, age, used = conn.one(
        "SELECT t.today, t.today - (SELECT min(u.day) FROM credit_usage u WHERE u.owner_id = %(owner)s),"
        " (SELECT coalesce(sum(u.credits), 0)::bigint FROM credit_usage u WHERE u.owner_id = %(owner)s"
        "   AND u.day >= t.today - %(days)s AND u.day < t.today)"
        " FROM (SELECT (clock_timestamp() AT TIME ZONE 'UTC')::date AS today) AS t",
        {"owner": owner_id, "days": _PACE_DAYS},
    )
    if age is None or age < 1:
        return None
    days = min(age, _PACE_DAYS)
    return Forecast(days, used, today, forecast_rules.lasts_until(balance, used, days, today))


def name_projects(conn: Connection, owner_id: int, ids: Iterable[int]) -> dict[int, tuple[str | None, bool]]:
    """The names of an owner's projects and whether they are gone; of those, as they were called at their end."""
    return _project_names(conn, owner_id)(list(ids))


# Days and projects are summed up from their pairs, which are needed anyway.
_SUMS = """
    SELECT u.day, u.project_id, u.participant_id, u.event_type, sum(u.events)::bigint, sum(u.credits)::bigint
    FROM credit_usage u WHERE u.owner_id = %(owner)s AND u.day > %(after)s
    GROUP BY GROUPING SETS ((u.day, u.project_id), (u.participant_id), (u.event_type))
"""


def _plus(before: tuple[int, int] | None, events: int, cost: int) -> tuple[int, int]:
    return (events, cost) if before is None else (before[0] + events, before[1] + cost)


class _Names:
    """Looks names up: by id, what it is called and whether it is gone."""

    def __init__(self, conn: Connection, owner_id: int, sql: str) -> None:
        self._conn, self._owner_id, self._sql = conn, owner_id, sql

    def __call__(self, ids: list[int]) -> dict[int, tuple[str | None, bool]]:
        if not ids:
            return {}
        rows = self._conn.all(self._sql, {"owner": self._owner_id, "ids": ids})
        return {int(number): (name, gone) for number, name, gone in rows}


def _project_names(conn: Connection, owner_id: int) -> _Names:
    return _Names(
        conn,
        owner_id,
        "SELECT wanted.id, coalesce(pj.name, ("
        "   SELECT a.subject FROM audit a WHERE a.project_id = wanted.id AND a.action = 'project.purge'"
        "   AND a.owner_id = %(owner)s ORDER BY a.id DESC LIMIT 1)), pj.id IS NULL"
        " FROM unnest(%(ids)s::bigint[]) AS wanted(id)"
        " LEFT JOIN project pj ON pj.id = wanted.id AND pj.owner_id = %(owner)s AND pj.purging_at IS NULL",
    )


def _participant_names(conn: Connection, owner_id: int) -> _Names:
    return _Names(
        conn,
        owner_id,
        "SELECT pt.id, CASE WHEN pt.label = '' THEN o.handle ELSE o.handle || '/' || pt.label END,"
        " pt.removed_at IS NOT NULL FROM participant pt JOIN owner o ON o.id = pt.owner_id"
        " WHERE pt.owner_id = %(owner)s AND pt.id = ANY (%(ids)s::bigint[])",
    )


def _shares(rows: Iterable[tuple[int, int, int]], names: _Names) -> list[Share]:
    """The most expensive LISTED with their names, and the rest as one."""
    ordered = sorted(rows, key=lambda row: (-row[2], row[0]))
    top, rest = ordered[:LISTED], ordered[LISTED:]
    known = names([key for key, _, _ in top])
    shares = [Share(key, *known.get(key, (None, False)), n, cost) for key, n, cost in top]
    if rest:
        shares.append(Share(None, "", False, sum(n for _, n, _ in rest), sum(cost for _, _, cost in rest)))
    return shares


def _balances(conn: Connection, owner_id: int, today: date, days: int, used: dict[date, int]) -> dict[date, int]:
    """The balance at the end of each day, reckoned backwards from now: without what was added and used since."""
    row = conn.maybe("SELECT balance FROM credit_account WHERE owner_id = %s", (owner_id,))
    balance = int(row[0]) if row else 0
    added: dict[date, int] = dict(
        conn.all(
            "SELECT (e.at AT TIME ZONE 'UTC')::date, sum(e.amount)::bigint FROM credit_entry e"
            " WHERE e.owner_id = %s AND e.kind <> 'usage' AND e.at >= %s::timestamp AT TIME ZONE 'UTC' GROUP BY 1",
            (owner_id, today - timedelta(days=days)),
        )
    )
    balances = {}
    for day in (today - timedelta(days=back) for back in range(days)):
        balances[day] = balance
        balance += used.get(day, 0) - added.get(day, 0)
    return balances
