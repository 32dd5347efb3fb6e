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

PERIOD_DAYS = (7, 30, 90)
"""How many days one may look back, today included."""

MAX_LISTED = 20
_FORECAST_SAMPLE_DAYS = 7


@dataclass(frozen=True, slots=True)
class DailyUsage:
    """A day: the events that cost something, what they cost, and that by the projects of `Usage.projects`.

    Attributes:
        balance: the balance at the end of the day, once everything of it was billed; of today, the balance now.
        by_project: credits in the order of `Usage.projects`.
    """

    day: date
    event_count: int
    credits: int
    balance: int
    credits_by_project: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class UsageShare:
    """What one project, participant or type of event used.

    Attributes:
        id: of the project or participant; None for a type, and for the rest that is put together.
        name: as people know it; None for a participant that was not kept, and for a project whose name is lost.
        gone: it was deleted or removed.
    """

    id: int | None
    name: str | None
    is_removed: bool
    event_count: int
    credits: int


@dataclass(frozen=True, slots=True)
class Usage:
    """A period: each of its days, oldest first, and the most expensive projects, participants and types.

    Projects and participants beyond LISTED are put together as a last `Share` whose name is empty.
    """

    days: list[DailyUsage]
    projects: list[UsageShare]
    participants: list[UsageShare]
    event_types: list[UsageShare]
    event_count: int
    credits: int


@dataclass(frozen=True, slots=True)
class BalanceForecast:
    """How fast credits go.

    Attributes:
        days: the whole UTC days before today that it is taken from: 7, or as many as there were since the first usage.
        credits: used in those days.
        today: the UTC day from which on it is counted.
        until: the day on which the balance reaches zero; None where it does not fall, is used up, or lasts for more
            than ten years.
    """

    sample_days: int
    credits_used: int
    today: date
    exhausted_on: date | None

    @property
    def credits_per_day(self) -> float:
        """Credits a day."""
        return self.credits_used / self.sample_days


def get_usage(conn: Connection, owner_id: int, days: int) -> Usage:
    """What an owner used in the last days, today included.

    Args:
        days: one of PERIODS.
    """
    validation.integer(days, "days", 1, PERIOD_DAYS[-1])
    (today,) = conn.fetch_one("SELECT (clock_timestamp() AT TIME ZONE 'UTC')::date")
    rows = conn.fetch_all(_USAGE_SQL, {"owner": owner_id, "after": today - timedelta(days=days)})
    by_day: dict[date, tuple[int, int]] = {}
    by_project: dict[int, tuple[int, int]] = {}
    by_day_project: dict[tuple[date, int], int] = {}
    people: list[tuple[int, int, int]] = []
    types: list[tuple[str, int, int]] = []
    for day, project_id, participant_id, kind, events, cost in rows:
        if day is not None:
            by_day[day] = _add_usage(by_day.get(day), events, cost)
            by_project[project_id] = _add_usage(by_project.get(project_id), events, cost)
            by_day_project[day, project_id] = cost
        elif participant_id is not None:
            people.append((participant_id, events, cost))
        else:
            types.append((kind, events, cost))
    projects = _top_shares(((key, *sums) for key, sums in by_project.items()), _project_name_lookup(conn, owner_id))
    shown = [share.id for share in projects if share.id is not None]
    balances = _end_of_day_balances(conn, owner_id, today, days, {day: cost for day, (_, cost) in by_day.items()})
    listed = []
    for day in (today - timedelta(days=back) for back in reversed(range(days))):
        events, credits = by_day.get(day, (0, 0))
        parts = [by_day_project.get((day, project_id), 0) for project_id in shown]
        if len(shown) < len(projects):
            parts.append(credits - sum(parts))
        listed.append(DailyUsage(day, events, credits, balances[day], tuple(parts)))
    return Usage(
        listed,
        projects,
        _top_shares(people, _participant_name_lookup(conn, owner_id)),
        [UsageShare(None, key, False, n, cost) for key, n, cost in sorted(types, key=lambda row: (-row[2], row[0]))],
        sum(n for n, _ in by_day.values()),
        sum(cost for _, cost in by_day.values()),
    )


def forecast_balance(conn: Connection, owner_id: int, balance: int) -> BalanceForecast | None:
    """How long a balance lasts at the pace of the last seven whole days.

    Returns:
        None before the first whole day since credits were first used: there is no pace yet.
    """
    today, age, used = conn.fetch_one(
        "SELECT t.today, t.today - (SELECT min(u.day) FROM credit_usage u WHERE u.owner_id = %(owner)s),"
        " (SELECT coalesce(sum(u.credits), 0)::bigint FROM credit_usage u WHERE u.owner_id = %(owner)s"
        "   AND u.day >= t.today - %(days)s AND u.day < t.today)"
        " FROM (SELECT (clock_timestamp() AT TIME ZONE 'UTC')::date AS today) AS t",
        {"owner": owner_id, "days": _FORECAST_SAMPLE_DAYS},
    )
    if age is None or age < 1:
        return None
    days = min(age, _FORECAST_SAMPLE_DAYS)
    return BalanceForecast(days, used, today, forecast_rules.forecast_exhaustion_date(balance, used, days, today))


def find_project_names(conn: Connection, owner_id: int, ids: Iterable[int]) -> dict[int, tuple[str | None, bool]]:
    """The names of an owner's projects and whether they are gone; of those, as they were called at their end."""
    return _project_name_lookup(conn, owner_id)(list(ids))


# Days and projects are summed up from their pairs, which are needed anyway.
_USAGE_SQL = """
    SELECT u.day, u.project_id, u.participant_id, u.event_type, sum(u.events)::bigint, sum(u.credits)::bigint
    FROM credit_usage u WHERE u.owner_id = %(owner)s AND u.day > %(after)s
    GROUP BY GROUPING SETS ((u.day, u.project_id), (u.participant_id), (u.event_type))
"""


def _add_usage(before: tuple[int, int] | None, events: int, cost: int) -> tuple[int, int]:
    return (events, cost) if before is None else (before[0] + events, before[1] + cost)


class _NameLookup:
    """Looks names up: by id, what it is called and whether it is gone."""

    def __init__(self, conn: Connection, owner_id: int, sql: str) -> None:
        self._conn, self._owner_id, self._sql = conn, owner_id, sql

    def __call__(self, ids: list[int]) -> dict[int, tuple[str | None, bool]]:
        if not ids:
            return {}
        rows = self._conn.fetch_all(self._sql, {"owner": self._owner_id, "ids": ids})
        return {int(number): (name, gone) for number, name, gone in rows}


def _project_name_lookup(conn: Connection, owner_id: int) -> _NameLookup:
    return _NameLookup(
        conn,
        owner_id,
        "SELECT wanted.id, coalesce(pj.name, ("
        "   SELECT a.subject FROM audit a WHERE a.project_id = wanted.id AND a.action = 'project.purge'"
        "   AND a.owner_id = %(owner)s ORDER BY a.id DESC LIMIT 1)), pj.id IS NULL"
        " FROM unnest(%(ids)s::bigint[]) AS wanted(id)"
        " LEFT JOIN project pj ON pj.id = wanted.id AND pj.owner_id = %(owner)s AND pj.purging_at IS NULL",
    )


def _participant_name_lookup(conn: Connection, owner_id: int) -> _NameLookup:
    return _NameLookup(
        conn,
        owner_id,
        "SELECT pt.id, bus_qualified_name(o.handle, pt.label),"
        " pt.removed_at IS NOT NULL FROM participant pt JOIN owner o ON o.id = pt.owner_id"
        " WHERE pt.owner_id = %(owner)s AND pt.id = ANY (%(ids)s::bigint[])",
    )


def _top_shares(rows: Iterable[tuple[int, int, int]], lookup: _NameLookup) -> list[UsageShare]:
    """The most expensive LISTED with their names, and the rest as one."""
    ordered = sorted(rows, key=lambda row: (-row[2], row[0]))
    top, rest = ordered[:MAX_LISTED], ordered[MAX_LISTED:]
    known = lookup([key for key, _, _ in top])
    shares = [UsageShare(key, *known.get(key, (None, False)), n, cost) for key, n, cost in top]
    if rest:
        shares.append(UsageShare(None, "", False, sum(n for _, n, _ in rest), sum(cost for _, _, cost in rest)))
    return shares


def _end_of_day_balances(
    conn: Connection, owner_id: int, today: date, days: int, credits_by_day: dict[date, int]
) -> dict[date, int]:
    """The balance at the end of each day, reckoned backwards from now: without what was added and used since."""
    row = conn.fetch_one_or_none("SELECT balance FROM credit_account WHERE owner_id = %s", (owner_id,))
    balance = int(row[0]) if row else 0
    added: dict[date, int] = dict(
        conn.fetch_all(
            "SELECT (e.at AT TIME ZONE 'UTC')::date, sum(e.amount)::bigint FROM credit_entry e"
            " WHERE e.owner_id = %s AND e.kind <> 'usage' AND e.at >= %s::timestamp AT TIME ZONE 'UTC' GROUP BY 1",
            (owner_id, today - timedelta(days=days)),
        )
    )
    balances = {}
    for day in (today - timedelta(days=back) for back in range(days)):
        balances[day] = balance
        balance += credits_by_day.get(day, 0) - added.get(day, 0)
    return balances
