"""Report cache: the latest report of each project, since building one reads the whole ledger.

Concurrent callers never build the same report twice.
"""

import dataclasses
import json
import time
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from bus.analytics import reports
from bus.analytics.delivery_times import DeliveryStats, DeliveryTimes
from bus.analytics.reports import EventTypeShare, ProjectReport
from bus.db import Connection
from bus.tenancy import projects

# A report is fresh for this long, or for a multiple of its build time if that is longer: building reports takes only a
# small part of a core, however often they are requested.
_CACHE_TTL = timedelta(minutes=1)
_CACHE_TTL_PER_BUILD_SECOND = 30
# Without new events, only the times at which posts are first shown can change.
_UNCHANGED_CACHE_TTL = timedelta(hours=1)
# The lock of a caller that died while building expires after this.
_BUILD_LOCK_TTL = timedelta(minutes=5)


@dataclass(frozen=True, slots=True)
class CachedReport:
    """The latest report of a project.

    Attributes:
        report: None while the first one is being built.
        last_seq: the last event that it counts.
        generated_at: None without a report.
        is_refreshing: another caller is building a newer one.
    """

    report: ProjectReport | None
    last_seq: int
    generated_at: datetime | None
    is_refreshing: bool


_SELECT_CACHED_SQL = """
SELECT r.body, r.seq, r.made_at, coalesce(r.made_at > clock_timestamp() - greatest(
           CASE WHEN r.seq = c.last_seq THEN %(unchanged_ttl)s ELSE %(ttl)s END,
           make_interval(secs => %(ttl_per_build_second)s * r.took_seconds)), false),
       coalesce(r.busy_until > clock_timestamp(), false), c.last_seq
FROM project_clock c LEFT JOIN report r ON r.project_id = c.project_id WHERE c.project_id = %(project)s
"""

_ACQUIRE_BUILD_LOCK_SQL = """
INSERT INTO report AS r (project_id, busy_until)
SELECT pj.id, clock_timestamp() + %(lock_ttl)s FROM project pj
WHERE pj.id = %(project)s AND pj.purging_at IS NULL FOR SHARE
ON CONFLICT ON CONSTRAINT report_pkey DO UPDATE SET busy_until = excluded.busy_until
WHERE r.busy_until IS NULL OR r.busy_until < clock_timestamp()
"""


def get_report(conn: Connection, project_id: int) -> CachedReport:
    """Return the cached report while it is fresh or being rebuilt; otherwise build a new one.

    The connection must be in no transaction: a long ledger takes many statements, too long for one transaction.

    Raises:
        NotFound: there is no such project.
    """
    params = {
        "project": project_id,
        "ttl": _CACHE_TTL,
        "ttl_per_build_second": _CACHE_TTL_PER_BUILD_SECOND,
        "unchanged_ttl": _UNCHANGED_CACHE_TTL,
        "lock_ttl": _BUILD_LOCK_TTL,
    }
    projects.get(conn, project_id)
    body, seq, made_at, is_fresh, is_locked, ledger_end = conn.fetch_one(_SELECT_CACHED_SQL, params)
    cached = CachedReport(
        report=_report_from_json(body) if body else None,
        last_seq=seq or 0,
        generated_at=made_at,
        is_refreshing=is_locked,
    )
    if is_fresh or is_locked:
        return cached
    if conn.execute(_ACQUIRE_BUILD_LOCK_SQL, params) == 0:
        return dataclasses.replace(cached, is_refreshing=True)
    try:
        started = time.monotonic()
        report = reports.build_report(conn, project_id)
        build_seconds = time.monotonic() - started
        row = conn.fetch_one_or_none(
            "UPDATE report SET body = %s::jsonb, seq = %s, made_at = clock_timestamp(), took_seconds = %s"
            " WHERE project_id = %s RETURNING made_at",
            (json.dumps(dataclasses.asdict(report), default=datetime.isoformat), ledger_end, build_seconds, project_id),
        )
    finally:
        conn.execute("UPDATE report SET busy_until = NULL WHERE project_id = %s", (project_id,))
    return CachedReport(report=report, last_seq=ledger_end, generated_at=row[0] if row else None, is_refreshing=False)


def _report_from_json(body: dict[str, Any]) -> ProjectReport:
    times = {name: body[name] and datetime.fromisoformat(body[name]) for name in ("first_event_at", "last_event_at")}
    return ProjectReport(
        **{
            **body,
            **times,
            "projects": tuple(body["projects"]),
            "mix": tuple(EventTypeShare(**share) for share in body["mix"]),
            # A report that the previous version has built has none.
            "delivery_times": DeliveryStats(
                **{
                    dimension: tuple(DeliveryTimes(**times) for times in groups)
                    for dimension, groups in body.get("delivery_times", {}).items()
                }
            ),
        }
    )
