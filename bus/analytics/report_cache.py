"""The last report of each project. Making one reads the whole ledger, so it is kept, and never made twice at once."""

import dataclasses
import json
import time
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from bus.analytics import reports
from bus.analytics.reports import EventTypeShare, ProjectReport
from bus.db import Connection
from bus.tenancy import projects

# A report is good for this long, and for so many times what it took: making them never takes more than a small part of
# a core, however often somebody asks.
_CACHE_TTL = timedelta(minutes=1)
_CACHE_TTL_PER_BUILD_SECOND = 30
# Where nothing was written since, only first sights can be new.
_UNCHANGED_CACHE_TTL = timedelta(hours=1)
# Whoever makes one and dies is waited for no longer than this.
_BUILD_LOCK_TTL = timedelta(minutes=5)


@dataclass(frozen=True, slots=True)
class CachedReport:
    """The newest report that there is.

    Attributes:
        report: None where the first one is being made at this moment.
        seq, made_at: the last event that it counts, and when it was made.
        being_made: somebody else is making a newer one.
    """

    report: ProjectReport | None
    last_seq: int
    generated_at: datetime | None
    is_refreshing: bool


_SELECT_CACHED_SQL = """
SELECT r.body, r.seq, r.made_at, coalesce(r.made_at > clock_timestamp() - greatest(
           CASE WHEN r.seq = c.last_seq THEN %(unchanged)s ELSE %(fresh)s END,
           make_interval(secs => %(times)s * r.took_seconds)), false),
       coalesce(r.busy_until > clock_timestamp(), false), c.last_seq
FROM project_clock c LEFT JOIN report r ON r.project_id = c.project_id WHERE c.project_id = %(project)s
"""

_ACQUIRE_BUILD_LOCK_SQL = """
INSERT INTO report AS r (project_id, busy_until)
SELECT pj.id, clock_timestamp() + %(busy)s FROM project pj
WHERE pj.id = %(project)s AND pj.purging_at IS NULL FOR SHARE
ON CONFLICT ON CONSTRAINT report_pkey DO UPDATE SET busy_until = excluded.busy_until
WHERE r.busy_until IS NULL OR r.busy_until < clock_timestamp() RETURNING 1
"""


def get_report(conn: Connection, project_id: int) -> CachedReport:
    """The report of a project: the kept one while it is new enough, else a new one, unless somebody is making it.

    The connection is in no transaction: a long ledger takes many statements, and none should last that long.

    Raises:
        BusError: `not_found`.
    """
    asked = {
        "project": project_id,
        "fresh": _CACHE_TTL,
        "times": _CACHE_TTL_PER_BUILD_SECOND,
        "unchanged": _UNCHANGED_CACHE_TTL,
        "busy": _BUILD_LOCK_TTL,
    }
    projects.get(conn, project_id)
    body, seq, made_at, is_fresh, is_busy, last = conn.fetch_one(_SELECT_CACHED_SQL, asked)
    kept = CachedReport(_report_from_json(body) if body else None, seq or 0, made_at, is_busy)
    if is_fresh or is_busy:
        return kept
    if conn.fetch_one_or_none(_ACQUIRE_BUILD_LOCK_SQL, asked) is None:
        return dataclasses.replace(kept, is_refreshing=True)
    try:
        started = time.monotonic()
        report = reports.build_report(conn, project_id)
        took = time.monotonic() - started
        row = conn.fetch_one_or_none(
            "UPDATE report SET body = %s::jsonb, seq = %s, made_at = clock_timestamp(), took_seconds = %s"
            " WHERE project_id = %s RETURNING made_at",
            (json.dumps(dataclasses.asdict(report), default=datetime.isoformat), last, took, project_id),
        )
    finally:
        conn.execute("UPDATE report SET busy_until = NULL WHERE project_id = %s", (project_id,))
    return CachedReport(report, last, row[0] if row else None, False)


def _report_from_json(body: dict[str, Any]) -> ProjectReport:
    times = {name: body[name] and datetime.fromisoformat(body[name]) for name in ("first_event_at", "last_event_at")}
    return ProjectReport(
        **{
            **body,
            **times,
            "projects": tuple(body["projects"]),
            "mix": tuple(EventTypeShare(**one) for one in body["mix"]),
        }
    )
