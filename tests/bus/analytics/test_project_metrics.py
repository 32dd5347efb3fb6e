"""Project metrics of many events: every number equals the one computed from the ledger, for every period."""

import random
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

from bus.analytics import project_metrics, rollups
from bus.analytics.project_metrics import (
    MAX_PARTICIPANTS,
    MAX_SURFACES,
    PERIODS,
    PostStats,
    ProjectMetrics,
    Recipient,
    SurfaceStats,
)
from bus.db import Connection, Database
from bus.errors import Unavailable
from bus.tenancy.projects import Project
from tests import synthetic_history
from tests.concurrency import run_jobs_concurrently
from tests.factories import make_agent, make_project

_KILLED_CONNECTIONS = 4

# A flat copy of the ledger, from which the expected numbers are computed; uses neither rollups nor `post.acked_at`.
_LEDGER = """
CREATE UNLOGGED TABLE ledger AS
SELECT e.at, e.type, e.actor, e.payload ->> 'surface' AS surface, (e.payload ->> 'contended')::integer AS contended,
       e.payload ->> 'to_lane' AS to_lane, e.payload ->> 'to_actor' AS to_actor, e.payload ->> 'ref' AS ref,
       a.ms / 1000.0::float8 AS seconds,
       -- Rounded to three significant digits.
       round(a.ms::numeric, least(0, 3 - length(a.ms::text))) / 1000.0::float8 AS rounded
FROM event e LEFT JOIN (
    SELECT p.seq, (1000 * extract(epoch FROM min(k.at) - p.at))::bigint AS ms
    FROM event p JOIN event k ON k.project_id = p.project_id AND k.type = 'ack'
     AND (k.payload ->> 'post_id')::bigint = p.seq
     AND (k.actor <> p.actor OR (p.payload ->> 'to_actor' = k.actor AND p.payload ->> 'to_lane' IS NULL))
    WHERE p.project_id = %(project)s AND p.type = 'post' GROUP BY p.seq, p.at
) AS a ON a.seq = e.seq
WHERE e.project_id = %(project)s
"""
_BIN = "floor(extract(epoch FROM l.at - %(start)s::timestamptz) / %(width)s)::integer"
_EVENTS_BY_BIN = f"SELECT {_BIN}, l.type, count(*) FROM ledger l WHERE l.at >= %(start)s GROUP BY 1, 2"
_POST_STATS = """
SELECT {bin}, count(*), count(l.ref), count(l.seconds),
       percentile_cont(0.5) WITHIN GROUP (ORDER BY l.rounded), percentile_cont(0.9) WITHIN GROUP (ORDER BY l.rounded),
       percentile_cont(0.5) WITHIN GROUP (ORDER BY l.seconds)
FROM ledger l WHERE l.at >= %(start)s AND l.type = 'post' GROUP BY 1
"""
_SURFACES = """
SELECT l.surface, count(*), count(*) FILTER (WHERE l.contended > 0) FROM ledger l
WHERE l.at >= %(start)s AND l.type = 'lease' GROUP BY 1 ORDER BY 2 DESC, l.surface COLLATE "C"
"""
_MESSAGES = """
SELECT l.actor, 'lane', l.to_lane, count(*) FROM ledger l
WHERE l.at >= %(start)s AND l.type = 'post' AND l.to_lane IS NOT NULL GROUP BY 1, 3
UNION ALL
SELECT l.actor, 'actor', l.to_actor, count(*) FROM ledger l
WHERE l.at >= %(start)s AND l.type = 'post' AND l.to_actor IS NOT NULL GROUP BY 1, 3
"""


@pytest.fixture
def db(database_url: str) -> Iterator[Database]:
    """The owner's connections, since the tests create temporary tables."""
    with closing(Database(database_url, pool_size=20)) as database:
        yield database


@pytest.mark.parametrize("event_count", [150_000, pytest.param(1_000_000, marks=pytest.mark.exhaustive)])
def test_every_metric_equals_the_one_computed_from_the_ledger(db: Database, event_count: int) -> None:
    with db.transaction() as conn:
        project = make_project(conn)
        agents = [make_agent(conn, project, f"agent-{number}") for number in range(6)]
        synthetic_history.write(conn, project, agents, event_count)
    assert _roll_up_with_crashes(db, project) == _KILLED_CONNECTIONS
    with db.transaction() as conn:
        conn.raw.execute("SET LOCAL statement_timeout = 0")
        conn.raw.execute("SET LOCAL work_mem = '256MB'")
        conn.raw.execute(_LEDGER.encode(), {"project": project.id})
        conn.raw.execute("ANALYZE ledger")
    for period in PERIODS.values():
        with db.transaction() as conn:
            project_metrics.begin_snapshot(conn)
            metrics = project_metrics.get_project_metrics(conn, project.id, period)
            assert metrics.rollup_progress == rollups.RollupProgress(event_count, 0, None)
            conn.raw.execute("SET LOCAL statement_timeout = 0")
            _check_activity(conn, metrics)
            _check_post_stats(conn, metrics)
            _check_surfaces(conn, metrics)
            _check_messages(conn, metrics)
    # The last period has ninety days and covers most of the ledger.
    assert metrics.event_activity.event_count > 0.9 * event_count
    assert 0 < metrics.post_stats.acked < metrics.post_stats.posts < metrics.event_activity.event_count


def _roll_up_with_crashes(db: Database, project: Project) -> int:
    """Roll up with three concurrent workers; kill some connections after they counted, and return how many."""
    remaining, guard = [_KILLED_CONNECTIONS], threading.Lock()

    def work(number: int) -> None:
        randomness, count = random.Random(number), rollups.BATCH_SIZE
        with closing(Database(db.url, pool_size=1)) as own_pool:
            while count == rollups.BATCH_SIZE:
                try:
                    with own_pool.transaction() as conn:
                        count = rollups.roll_up_batch(conn, project.id)
                        if randomness.random() < 0.3:
                            with guard:
                                is_killed, remaining[0] = remaining[0] > 0, max(0, remaining[0] - 1)
                            if is_killed:
                                conn.execute("SELECT pg_terminate_backend(pg_backend_pid())")
                except Unavailable:
                    count = rollups.BATCH_SIZE

    outcomes = run_jobs_concurrently(*(lambda number=number: work(number) for number in range(3)))
    assert outcomes == [None] * 3
    return _KILLED_CONNECTIONS - remaining[0]


def _params(metrics: ProjectMetrics, width: float = 1.0) -> dict[str, Any]:
    return {"start": metrics.start, "width": width}


def _check_activity(conn: Connection, metrics: ProjectMetrics) -> None:
    activity = metrics.event_activity
    expected: dict[str, list[int]] = {}
    for index, event_type, n in conn.fetch_all(
        _EVENTS_BY_BIN, _params(metrics, metrics.period.fine_bin_width.total_seconds())
    ):
        expected.setdefault(event_type, [0] * metrics.period.fine_bin_count)[index] = n
    assert {event_type: list(counts) for event_type, counts in activity.bin_counts_by_type.items()} == expected
    assert activity.counts_by_type == {event_type: sum(counts) for event_type, counts in expected.items()}
    assert activity.event_count == sum(activity.counts_by_type.values())
    assert list(activity.counts_by_type.values()) == sorted(activity.counts_by_type.values(), reverse=True)
    assert activity.bin_starts[0] == metrics.start
    assert activity.bin_starts[-1] + metrics.period.fine_bin_width == metrics.end


def _check_post_stats(conn: Connection, metrics: ProjectMetrics) -> None:
    width = metrics.period.coarse_bin_width.total_seconds()
    expected = {row[0]: row[1:] for row in conn.fetch_all(_POST_STATS.format(bin=_BIN), _params(metrics, width))}
    for index, stats in enumerate(metrics.post_stats_by_bin):
        _check_stats(stats, expected.get(index, (*(0,) * 3, None, None, None)))
    _check_stats(metrics.post_stats, conn.fetch_one(_POST_STATS.format(bin="1"), _params(metrics))[1:])


def _check_stats(stats: PostStats, expected: tuple[Any, ...]) -> None:
    *counts, median, p90, exact_median = expected
    assert [stats.posts, stats.with_ref, stats.acked] == counts
    assert stats.median_ack_seconds == pytest.approx(median)
    assert stats.p90_ack_seconds == pytest.approx(p90)
    if exact_median is not None:
        # Rounding to three digits changes a median by less than this.
        assert stats.median_ack_seconds == pytest.approx(exact_median, rel=0.005)


def _check_surfaces(conn: Connection, metrics: ProjectMetrics) -> None:
    rows = [SurfaceStats(*row) for row in conn.fetch_all(_SURFACES, _params(metrics))]
    lease_stats = metrics.lease_stats
    assert list(lease_stats.top_surfaces) == rows[:MAX_SURFACES]
    assert (lease_stats.leases, lease_stats.contended) == (
        sum(row.leases for row in rows),
        sum(row.contended for row in rows),
    )
    rest = rows[MAX_SURFACES:]
    assert lease_stats.other_surfaces == SurfaceStats(
        "", sum(row.leases for row in rest), sum(row.contended for row in rest)
    )
    assert len(rows) > MAX_SURFACES


def _check_messages(conn: Connection, metrics: ProjectMetrics) -> None:
    matrix = metrics.message_matrix
    expected = {
        (sender, Recipient(kind, name)): n for sender, kind, name, n in conn.fetch_all(_MESSAGES, _params(metrics))
    }
    counts = {(matrix.senders[row], matrix.recipients[column]): n for (row, column), n in matrix.counts.items()}
    assert counts == expected
    for names, side in ((matrix.senders, 0), (matrix.recipients, 1)):
        totals: Counter[Any] = Counter()
        for pair, n in expected.items():
            totals[pair[side]] += n
        assert [totals[name] for name in names] == sorted(totals.values(), reverse=True)
    assert len(matrix.recipients) <= MAX_PARTICIPANTS
