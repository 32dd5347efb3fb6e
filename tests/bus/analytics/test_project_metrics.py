"""Pictures of a million events: every figure equals what the ledger itself says, for every period."""

import random
import threading
from collections import Counter
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

_EVENTS = 1_000_000
_LOST = 4

# The ledger as tables of its own, once: no figure below is read from a rollup, and none from `post.acked_at`.
_LEDGER = """
CREATE UNLOGGED TABLE ledger AS
SELECT e.at, e.type, e.actor, e.payload ->> 'surface' AS surface, (e.payload ->> 'contended')::integer AS contended,
       e.payload ->> 'to_lane' AS to_lane, e.payload ->> 'to_actor' AS to_actor, e.payload ->> 'ref' AS ref,
       a.ms / 1000.0::float8 AS seconds,
       -- All digits but the first three are rounded away.
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
_HANDOFFS = """
SELECT {bin}, count(*), count(l.ref), count(l.seconds),
       percentile_cont(0.5) WITHIN GROUP (ORDER BY l.rounded), percentile_cont(0.9) WITHIN GROUP (ORDER BY l.rounded),
       percentile_cont(0.5) WITHIN GROUP (ORDER BY l.seconds)
FROM ledger l WHERE l.at >= %(start)s AND l.type = 'post' GROUP BY 1
"""
_SURFACES = """
SELECT l.surface, count(*), count(*) FILTER (WHERE l.contended > 0) FROM ledger l
WHERE l.at >= %(start)s AND l.type = 'lease' GROUP BY 1 ORDER BY 2 DESC, l.surface COLLATE "C"
"""
_TALK = """
SELECT l.actor, 'lane', l.to_lane, count(*) FROM ledger l
WHERE l.at >= %(start)s AND l.type = 'post' AND l.to_lane IS NOT NULL GROUP BY 1, 3
UNION ALL
SELECT l.actor, 'actor', l.to_actor, count(*) FROM ledger l
WHERE l.at >= %(start)s AND l.type = 'post' AND l.to_actor IS NOT NULL GROUP BY 1, 3
"""


def test_every_figure_of_every_picture_is_what_the_ledger_says(db: Database) -> None:
    with db.transaction() as conn:
        project = make_project(conn)
        agents = [make_agent(conn, project, f"agent-{number}") for number in range(6)]
        synthetic_history.write(conn, project, agents, _EVENTS)
    lost = _count(db, project)
    assert lost == _LOST
    with db.transaction() as conn:
        conn.raw.execute("SET LOCAL statement_timeout = 0")
        conn.raw.execute("SET LOCAL work_mem = '256MB'")
        conn.raw.execute(_LEDGER.encode(), {"project": project.id})
        conn.raw.execute("ANALYZE ledger")
    for period in PERIODS.values():
        with db.transaction() as conn:
            project_metrics.begin_snapshot(conn)
            shown = project_metrics.get_project_metrics(conn, project.id, period)
            assert shown.rollup_progress == rollups.RollupProgress(_EVENTS, 0, None)
            conn.raw.execute("SET LOCAL statement_timeout = 0")
            _check_activity(conn, shown)
            _check_handoffs(conn, shown)
            _check_surfaces(conn, shown)
            _check_talk(conn, shown)
    # The last is of ninety days, so these are figures of most of the ledger.
    assert shown.event_activity.event_count > 0.9 * _EVENTS
    assert 0 < shown.post_stats.acked < shown.post_stats.posts < shown.event_activity.event_count


def _count(db: Database, project: Project) -> int:
    """Count by three workers at once, of which some lose their connection when they have counted, and how many did."""
    left, guard = [_LOST], threading.Lock()

    def work(number: int) -> None:
        chance, done = random.Random(number), rollups.BATCH_SIZE
        with closing(Database(db.url, pool_size=1)) as mine:
            while done == rollups.BATCH_SIZE:
                try:
                    with mine.transaction() as conn:
                        done = rollups.roll_up_batch(conn, project.id)
                        if chance.random() < 0.3:
                            with guard:
                                dies, left[0] = left[0] > 0, max(0, left[0] - 1)
                            if dies:
                                conn.execute("SELECT pg_terminate_backend(pg_backend_pid())")
                except Unavailable:
                    done = rollups.BATCH_SIZE

    outcomes = run_jobs_concurrently(*(lambda number=number: work(number) for number in range(3)))
    assert outcomes == [None] * 3
    return _LOST - left[0]


def _asked(shown: ProjectMetrics, width: float = 1.0) -> dict[str, Any]:
    return {"start": shown.start, "width": width}


def _check_activity(conn: Connection, shown: ProjectMetrics) -> None:
    activity = shown.event_activity
    found: dict[str, list[int]] = {}
    for place, kind, n in conn.fetch_all(_EVENTS_BY_BIN, _asked(shown, shown.period.fine_bin_width.total_seconds())):
        found.setdefault(kind, [0] * shown.period.fine_bin_count)[place] = n
    assert {kind: list(counts) for kind, counts in activity.bin_counts_by_type.items()} == found
    assert activity.counts_by_type == {kind: sum(counts) for kind, counts in found.items()}
    assert activity.event_count == sum(activity.counts_by_type.values())
    assert list(activity.counts_by_type.values()) == sorted(activity.counts_by_type.values(), reverse=True)
    assert activity.bin_starts[0] == shown.start
    assert activity.bin_starts[-1] + shown.period.fine_bin_width == shown.end


def _check_handoffs(conn: Connection, shown: ProjectMetrics) -> None:
    width = shown.period.coarse_bin_width.total_seconds()
    found = {row[0]: row[1:] for row in conn.fetch_all(_HANDOFFS.format(bin=_BIN), _asked(shown, width))}
    for place, one in enumerate(shown.post_stats_by_bin):
        _check_one(one, found.get(place, (*(0,) * 3, None, None, None)))
    _check_one(shown.post_stats, conn.fetch_one(_HANDOFFS.format(bin="1"), _asked(shown))[1:])


def _check_one(one: PostStats, ledger: tuple[Any, ...]) -> None:
    *counts, median, p90, exact = ledger
    assert [one.posts, one.with_ref, one.acked] == counts
    assert one.median_ack_seconds == pytest.approx(median)
    assert one.p90_ack_seconds == pytest.approx(p90)
    # Three digits are kept of every time, which moves no median by more.
    assert one.median_ack_seconds == pytest.approx(exact, rel=0.005)


def _check_surfaces(conn: Connection, shown: ProjectMetrics) -> None:
    rows = [SurfaceStats(*row) for row in conn.fetch_all(_SURFACES, _asked(shown))]
    found = shown.lease_stats
    assert list(found.top_surfaces) == rows[:MAX_SURFACES]
    assert (found.leases, found.contended) == (sum(one.leases for one in rows), sum(one.contended for one in rows))
    rest = rows[MAX_SURFACES:]
    assert found.other_surfaces == SurfaceStats("", sum(one.leases for one in rest), sum(one.contended for one in rest))
    assert len(rows) > MAX_SURFACES


def _check_talk(conn: Connection, shown: ProjectMetrics) -> None:
    talk = shown.message_matrix
    ledger = {(sender, Recipient(kind, name)): n for sender, kind, name, n in conn.fetch_all(_TALK, _asked(shown))}
    found = {(talk.senders[row], talk.recipients[column]): n for (row, column), n in talk.counts.items()}
    assert found == ledger
    for names, side in ((talk.senders, 0), (talk.recipients, 1)):
        sums: Counter[Any] = Counter()
        for pair, n in ledger.items():
            sums[pair[side]] += n
        assert [sums[name] for name in names] == sorted(sums.values(), reverse=True)
    assert len(talk.recipients) <= MAX_PARTICIPANTS
