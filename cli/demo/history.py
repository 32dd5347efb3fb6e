"""A past for the projects of a demo: what a fleet does in seconds is written as if it had taken days.

The ledger is append-only and takes its times from PostgreSQL, so events cannot be moved to the past afterwards. The
steps are run in a transaction, their rows are read, everything is rolled back, and the rows are inserted with other
times.
"""

import bisect
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

from psycopg.types.json import Jsonb

from bus.ctx import Ctx
from bus.db import Connection, Database
from bus.rules.token_format import fingerprint
from bus.tenancy import tokens
from cli.demo.model import Step
from cli.demo.plan import MAX_CONCURRENT_SCRIPTS
from cli.demo.runner import resolve_placeholders
from cli.demo.setup import ProvisionedFleet
from mcp_gateway.tools import all_tools

# In the order in which they are written. Cursors stay where they are for a new participant.
_TABLES = ("event", "post", "delivery", "lease", "task", "task_blocker", "sequence", "presence")
_TIMES = {
    "event": ("at",),
    "post": ("created_at", "acked_at"),
    "delivery": ("acked_at",),
    "lease": ("acquired_at", "ended_at"),
    "task": ("created_at", "updated_at"),
    "task_blocker": ("created_at", "resolved_at"),
    "sequence": ("claimed_at",),
    "presence": ("registered_at",),
}
# How much of a working day's activity falls into each hour of the day, and of a week's into each day.
_HOURS = (1, 1, 1, 1, 1, 1, 2, 6, 18, 40, 56, 52, 24, 36, 52, 56, 48, 32, 14, 8, 5, 4, 2, 1)
_WEEKDAYS = (10, 11, 11, 10, 8, 1, 1)
# The team is still at work: this share of the events is of the last hour.
_RECENT_SHARE = 0.04
# A lease that was held across a break had been renewed.
_RENEWED_FOR = timedelta(minutes=10)


def make_times(count: int, days: int, now: datetime, random: Random) -> list[datetime]:
    """Return `count` rising times of the last days: in working hours mostly, and rarely on weekends."""
    hours = [now - timedelta(hours=number) for number in range(1, 24 * days + 1)]
    weights = [_HOURS[hour.hour] * _WEEKDAYS[hour.weekday()] for hour in hours]
    recent_count = max(1, round(count * _RECENT_SHARE))
    begins = [*random.choices(hours, weights, k=max(0, count - recent_count)), *([hours[0]] * recent_count)][:count]
    return sorted(begin + timedelta(seconds=random.uniform(0, 3599)) for begin in begins)


def record(
    database: Database,
    fleet: ProvisionedFleet,
    make_steps: Callable[[Callable[[], bool], int, int], Iterator[Step]],
    *,
    events: int,
    days: int,
    random: Random,
) -> tuple[list[dict[str, Any]], Counter[str]]:
    """Run steps and write what they lead to into the past of the fleet's projects.

    Args:
        make_steps: returns steps; its arguments say whether to begin nothing more, the position of the first step, and
            how many scripts run at once.
        events: their number. What the last ones have begun stays open.
        days: how long ago the first ones are.
    Returns:
        The results that later steps refer to, and the number of events by type.
    """
    counts: Counter[str] = Counter()
    results: list[dict[str, Any]] = []
    rows: dict[int, dict[str, list[dict[str, Any]]]] = {}
    clocks: dict[int, tuple[int, int]] = {}
    with database.transaction() as conn:
        callers = {key: tokens.find_caller(conn, fingerprint(token)) for key, token in fleet.tokens.items()}
        with conn.raw.transaction(force_rollback=True):

            def run(step: Step) -> None:
                caller = callers[step.project, step.agent]
                assert caller is not None
                results.append(_call(conn, caller, step, resolve_placeholders(step.arguments, results, fleet)))
                counts.update(step.events)

            # Few scripts at once, so that what belongs together is not spread over days.
            for step in make_steps(lambda: counts.total() >= events * (1 - _RECENT_SHARE), 0, 3):
                run(step)
            for step in make_steps(lambda: False, len(results), MAX_CONCURRENT_SCRIPTS):
                run(step)
                if counts.total() >= events:
                    break
            for project in fleet.projects:
                rows[project.id] = {table: _read(conn, table, project.id) for table in _TABLES}
                query = "SELECT last_seq, last_task FROM project_clock WHERE project_id = %s"
                last_seq, last_task = conn.fetch_one(query, (project.id,))
                clocks[project.id] = (last_seq, last_task)
        for project_id, tables in rows.items():
            conn.enter_project(project_id)
            _insert(conn, project_id, tables, *clocks[project_id], days, random)
    return results, counts


def _call(conn: Connection, caller: Ctx, step: Step, arguments: dict[str, Any]) -> dict[str, Any]:
    tool = all_tools()[step.tool]
    result = tool.function(conn, caller, **tool.decode(arguments))
    return {name: getattr(result, name) for name in ("post_id", "task_id") if hasattr(result, name)}


def _read(conn: Connection, table: str, project_id: int) -> list[dict[str, Any]]:
    query = f"SELECT coalesce(jsonb_agg(to_jsonb(t)), '[]') FROM {table} t WHERE t.project_id = %s"
    rows: list[dict[str, Any]] = conn.fetch_one(query, (project_id,))[0]
    return rows


def _insert(
    conn: Connection,
    project_id: int,
    tables: dict[str, list[dict[str, Any]]],
    last_seq: int,
    last_task: int,
    days: int,
    random: Random,
) -> None:
    events = sorted(tables["event"], key=lambda event: event["seq"])
    # Events of one call have one time.
    originals = sorted({datetime.fromisoformat(event["at"]) for event in events})
    times = make_times(len(originals), days, datetime.now(UTC), random)
    move = _make_move(originals, times)
    last_seen: dict[int, datetime] = {}
    for table, rows in tables.items():
        for row in rows:
            if table == "lease":
                length = datetime.fromisoformat(row["expires_at"]) - datetime.fromisoformat(row["acquired_at"])
            for column in _TIMES[table]:
                row[column] = row[column] and move(datetime.fromisoformat(row[column])).isoformat()
            if table == "event":
                last_seen[row["participation_id"]] = datetime.fromisoformat(row["at"])
            elif table == "lease":
                ends = [datetime.fromisoformat(row["acquired_at"]) + length]
                if row["ended_at"]:
                    ends.append(datetime.fromisoformat(row["ended_at"]) + _RENEWED_FOR)
                row["expires_at"] = max(ends).isoformat()
            elif table == "presence":
                row["last_seen"] = last_seen[row["participation_id"]].isoformat()
        conn.execute(f"INSERT INTO {table} SELECT * FROM jsonb_populate_recordset(NULL::{table}, %s)", (Jsonb(rows),))
    conn.execute(
        "UPDATE project_clock SET last_seq = %s, last_at = %s, last_task = %s WHERE project_id = %s",
        (last_seq, times[-1], last_task, project_id),
    )
    begin = times[0] - timedelta(hours=1)
    conn.execute("UPDATE project SET created_at = %s WHERE id = %s", (begin, project_id))
    conn.execute("UPDATE participation SET created_at = %s WHERE project_id = %s", (begin, project_id))


def _make_move(originals: Sequence[datetime], times: Sequence[datetime]) -> Callable[[datetime], datetime]:
    def move(at: datetime) -> datetime:
        """The time of the event that was written at this time, or the last one before it."""
        return times[max(0, bisect.bisect_right(originals, at) - 1)]

    return move
