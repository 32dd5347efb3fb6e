"""Usage: credits spent by an owner per day, project, participant and event type, and the forecast of the balance.

Reads `credit_usage`, which the debits maintain; reads no ledger. Days are UTC days of the events.
Source: docs/decisions/0023-usage.md
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, timedelta

from bus.db import Connection
from bus.rules import forecast as forecast_rules
from bus.rules import validation

PERIOD_DAYS = (7, 30, 90)
"""Selectable lengths of a period in days, today included."""

MAX_LISTED = 20
_FORECAST_SAMPLE_DAYS = 7


@dataclass(frozen=True, slots=True)
class DailyUsage:
    """Billed events of one UTC day.

    Attributes:
        event_count, credits: events with a price, and their cost.
        balance: balance at the end of the day, with all its events billed; for today, the current balance.
        credits_by_project: credits in the order of `Usage.projects`.
    """

    day: date
    event_count: int
    credits: int
    balance: int
    credits_by_project: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class UsageShare:
    """Usage of one project, participant or event type.

    Attributes:
        id: of the project or participant; None for an event type and for the combined rest.
        name: None for an unrecorded participant and for a project whose name is lost; empty for the combined rest.
        is_removed: the project was purged, or the participant removed.
    """

    id: int | None
    name: str | None
    is_removed: bool
    event_count: int
    credits: int


@dataclass(frozen=True, slots=True)
class Usage:
    """Usage of a period: its days, oldest first, and the most expensive projects, participants and event types.

    Projects and participants beyond MAX_LISTED are combined into a last share whose name is empty.
    """

    days: list[DailyUsage]
    projects: list[UsageShare]
    participants: list[UsageShare]
    event_types: list[UsageShare]
    event_count: int
    credits: int


@dataclass(frozen=True, slots=True)
class BalanceForecast:
    """Forecast of the balance at the recent rate of usage.

    Attributes:
        sample_days: whole UTC days before today from which the rate is taken: 7, or fewer since the first usage.
        credits_used: in those days.
        today: UTC day from which the forecast starts.
        exhausted_on: day on which the balance reaches zero; None if it does not fall, is exhausted, or lasts for more
            than ten years.
    """

    sample_days: int
    credits_used: int
    today: date
    exhausted_on: date | None

    @property
    def credits_per_day(self) -> float:
        """Average number of credits used per day."""
        return self.credits_used / self.sample_days


def get_usage(conn: Connection, owner_id: int, days: int) -> Usage:
    """Return the usage of an owner in the last days, today included.

    Args:
        days: 1 to the largest of PERIOD_DAYS.
    """
    validation.integer(days, "days", 1, PERIOD_DAYS[-1])
    (today,) = conn.fetch_one("SELECT (clock_timestamp() AT TIME ZONE 'UTC')::date")
    rows = conn.fetch_all(_USAGE_SQL, {"owner": owner_id, "after": today - timedelta(days=days)})
    # Pairs of (events, credits).
    by_day: dict[date, tuple[int, int]] = {}
    by_project: dict[int, tuple[int, int]] = {}
    credits_by_day_and_project: dict[tuple[date, int], int] = {}
    participant_totals: list[tuple[int, int, int]] = []
    type_totals: list[tuple[str, int, int]] = []
    for day, project_id, participant_id, event_type, events, cost in rows:
        if day is not None:
            by_day[day] = _add_usage(by_day.get(day), events, cost)
            by_project[project_id] = _add_usage(by_project.get(project_id), events, cost)
            credits_by_day_and_project[day, project_id] = cost
        elif participant_id is not None:
            participant_totals.append((participant_id, events, cost))
        else:
            type_totals.append((event_type, events, cost))
    projects = _top_shares(
        ((project_id, events, cost) for project_id, (events, cost) in by_project.items()),
        _project_name_lookup(conn, owner_id),
    )
    listed_ids = [share.id for share in projects if share.id is not None]
    balances = _end_of_day_balances(conn, owner_id, today, days, {day: cost for day, (_, cost) in by_day.items()})
    daily_usage = []
    for day in (today - timedelta(days=back) for back in reversed(range(days))):
        events, credits = by_day.get(day, (0, 0))
        credits_by_project = [credits_by_day_and_project.get((day, project_id), 0) for project_id in listed_ids]
        if len(listed_ids) < len(projects):
            credits_by_project.append(credits - sum(credits_by_project))
        daily_usage.append(
            DailyUsage(
                day=day,
                event_count=events,
                credits=credits,
                balance=balances[day],
                credits_by_project=tuple(credits_by_project),
            )
        )
    return Usage(
        days=daily_usage,
        projects=projects,
        participants=_top_shares(participant_totals, _participant_name_lookup(conn, owner_id)),
        event_types=[
            UsageShare(id=None, name=event_type, is_removed=False, event_count=events, credits=cost)
            for event_type, events, cost in sorted(type_totals, key=lambda row: (-row[2], row[0]))
        ],
        event_count=sum(events for events, _ in by_day.values()),
        credits=sum(cost for _, cost in by_day.values()),
    )


def forecast_balance(conn: Connection, owner_id: int, balance: int) -> BalanceForecast | None:
    """Forecast how long a balance lasts at the rate of the last seven whole days.

    Returns:
        None before the first whole day after the first usage, when there is no rate yet.
    """
    today, days_since_first_usage, credits_used = conn.fetch_one(
        "SELECT t.today, t.today - (SELECT min(u.day) FROM credit_usage u WHERE u.owner_id = %(owner)s),"
        " (SELECT coalesce(sum(u.credits), 0)::bigint FROM credit_usage u WHERE u.owner_id = %(owner)s"
        "   AND u.day >= t.today - %(days)s AND u.day < t.today)"
        " FROM (SELECT (clock_timestamp() AT TIME ZONE 'UTC')::date AS today) AS t",
        {"owner": owner_id, "days": _FORECAST_SAMPLE_DAYS},
    )
    if days_since_first_usage is None or days_since_first_usage < 1:
        return None
    sample_days = min(days_since_first_usage, _FORECAST_SAMPLE_DAYS)
    return BalanceForecast(
        sample_days=sample_days,
        credits_used=credits_used,
        today=today,
        exhausted_on=forecast_rules.forecast_exhaustion_date(balance, credits_used, sample_days, today),
    )


def find_project_names(conn: Connection, owner_id: int, ids: Iterable[int]) -> dict[int, tuple[str | None, bool]]:
    """Return names of an owner's projects by id, and whether each is purged; a purged one has its last name."""
    return _project_name_lookup(conn, owner_id)(list(ids))


# Totals of days and of projects are summed up from their pairs, which are needed anyway.
_USAGE_SQL = """
    SELECT u.day, u.project_id, u.participant_id, u.event_type, sum(u.events)::bigint, sum(u.credits)::bigint
    FROM credit_usage u WHERE u.owner_id = %(owner)s AND u.day > %(after)s
    GROUP BY GROUPING SETS ((u.day, u.project_id), (u.participant_id), (u.event_type))
"""


def _add_usage(before: tuple[int, int] | None, events: int, cost: int) -> tuple[int, int]:
    return (events, cost) if before is None else (before[0] + events, before[1] + cost)


class _NameLookup:
    """Looks up names by id, and whether the named object is gone."""

    def __init__(self, conn: Connection, owner_id: int, sql: str) -> None:
        self._conn, self._owner_id, self._sql = conn, owner_id, sql

    def __call__(self, ids: list[int]) -> dict[int, tuple[str | None, bool]]:
        if not ids:
            return {}
        rows = self._conn.fetch_all(self._sql, {"owner": self._owner_id, "ids": ids})
        return {int(row_id): (name, is_removed) for row_id, name, is_removed in rows}


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
        # Also those of members, whose events in its projects the owner pays.
        "SELECT pt.id, bus_qualified_name(o.handle, pt.label),"
        " pt.removed_at IS NOT NULL FROM participant pt JOIN owner o ON o.id = pt.owner_id"
        " WHERE pt.id = ANY (%(ids)s::bigint[]) AND (pt.owner_id = %(owner)s OR EXISTS (SELECT FROM credit_usage u"
        "  WHERE u.owner_id = %(owner)s AND u.participant_id = pt.id))",
    )


def _top_shares(rows: Iterable[tuple[int, int, int]], lookup: _NameLookup) -> list[UsageShare]:
    """Return the MAX_LISTED most expensive rows with their names, and the rest combined into one share.

    Args:
        rows: id, events and credits.
    """
    ordered = sorted(rows, key=lambda row: (-row[2], row[0]))
    top, rest = ordered[:MAX_LISTED], ordered[MAX_LISTED:]
    names = lookup([row_id for row_id, _, _ in top])
    shares = []
    for row_id, events, cost in top:
        name, is_removed = names.get(row_id, (None, False))
        shares.append(UsageShare(id=row_id, name=name, is_removed=is_removed, event_count=events, credits=cost))
    if rest:
        shares.append(
            UsageShare(
                id=None,
                name="",
                is_removed=False,
                event_count=sum(events for _, events, _ in rest),
                credits=sum(cost for _, _, cost in rest),
            )
        )
    return shares


def _end_of_day_balances(
    conn: Connection, owner_id: int, today: date, days: int, credits_by_day: dict[date, int]
) -> dict[date, int]:
    """Compute the balance at the end of each day, backwards from the current balance."""
    row = conn.fetch_one_or_none("SELECT balance FROM credit_account WHERE owner_id = %s", (owner_id,))
    balance = int(row[0]) if row else 0
    added_by_day: dict[date, int] = dict(
        conn.fetch_all(
            "SELECT (e.at AT TIME ZONE 'UTC')::date, sum(e.amount)::bigint FROM credit_entry e"
            " WHERE e.owner_id = %s AND e.kind <> 'usage' AND e.at >= %s::timestamp AT TIME ZONE 'UTC' GROUP BY 1",
            (owner_id, today - timedelta(days=days)),
        )
    )
    balances = {}
    for day in (today - timedelta(days=back) for back in range(days)):
        balances[day] = balance
        balance += credits_by_day.get(day, 0) - added_by_day.get(day, 0)
    return balances
