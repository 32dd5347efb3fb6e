"""Pictures: how the agents of a project work together over time, from the rollup and never from the ledger.

A period is whole hours or whole days, UTC, and ends with the present one. What is read is bounded by the rollup
(bus/analytics/rollups.py), what comes back by SURFACES and PEOPLE.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa

from bus.analytics import rollups
from bus.analytics.rollups import RollupProgress
from bus.db import Connection
from bus.rules.percentiles import compute_quantiles

# Surfaces, senders and addressees that are named, those with the most first; the others are put together.
MAX_SURFACES, MAX_PARTICIPANTS = 8, 12
_HOUR, _DAY = timedelta(hours=1), timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Period:
    """A stretch of time that ends now.

    Attributes:
        name: as it stands in addresses.
        fine, fine_bins: how wide a bin of the events is, and how many there are.
        coarse, coarse_bins: the same of handoffs; all sums are of these too, and both cover the same time.
    """

    name: str
    fine_bin_width: timedelta
    fine_bin_count: int
    coarse_bin_width: timedelta
    coarse_bin_count: int


PERIODS = {
    period.name: period
    for period in (
        Period("24h", _HOUR, 24, _HOUR, 24),
        Period("7d", _HOUR, 7 * 24, _DAY, 7),
        Period("30d", _DAY, 30, _DAY, 30),
        Period("90d", _DAY, 90, _DAY, 90),
    )
}


@dataclass(frozen=True, slots=True)
class EventActivity:
    """Events by type: `types`, the most frequent first, and of each of them how many there were in each bin.

    Attributes:
        bins: the beginnings of the bins.
        counts: for each type of `types`, a number for each bin.
    """

    event_count: int
    counts_by_type: dict[str, int]
    bin_starts: tuple[datetime, ...]
    bin_counts_by_type: dict[str, tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class PostStats:
    """Posts that were written in a stretch of time, however long after it they were acked.

    Attributes:
        posts, anchored: all, and those with a ref to an artifact.
        acked: those that somebody other than their sender has acked so far.
        median_seconds, p90_seconds: from a post to its first such ack, of those that are acked; None of nothing.
    """

    posts: int
    with_ref: int
    acked: int
    median_ack_seconds: float | None
    p90_ack_seconds: float | None


@dataclass(frozen=True, slots=True)
class SurfaceStats:
    """A path or glob, how often it was leased, and how often that met a live lease of somebody else."""

    surface: str
    leases: int
    contended: int


@dataclass(frozen=True, slots=True)
class LeaseStats:
    """Leases by surface: the SURFACES most leased.

    Attributes:
        leases, contended: of all surfaces together.
        others: the surfaces that are not listed, put together; the name is empty.
    """

    leases: int
    contended: int
    top_surfaces: tuple[SurfaceStats, ...]
    other_surfaces: SurfaceStats


@dataclass(frozen=True, slots=True)
class Recipient:
    """To whom posts go: a lane, or a participant; an empty name is all others together."""

    kind: str
    name: str


@dataclass(frozen=True, slots=True)
class MessageMatrix:
    """Who wrote to whom: posts from participants (rows) to lanes and participants (columns), those with the most first.

    A post to a lane and to somebody counts in both columns.

    Attributes:
        senders: at most PEOPLE, and the empty name for all others if there are any.
        addressees: at most PEOPLE, and an empty name for all others if there are any.
        counts: how many, for a sender's and an addressee's place; missing where there are none.
    """

    senders: tuple[str, ...]
    recipients: tuple[Recipient, ...]
    counts: dict[tuple[int, int], int]


@dataclass(frozen=True, slots=True)
class ProjectMetrics:
    """All pictures of a project over a period.

    Attributes:
        start, end: the period; `end` lies ahead, where the present hour or day ends.
        handoffs: of the whole period.
        bins, by_bin: the beginnings of its stretches, and the handoffs of each.
        progress: how far the project is counted.
    """

    period: Period
    start: datetime
    end: datetime
    event_activity: EventActivity
    post_stats: PostStats
    bin_starts: tuple[datetime, ...]
    post_stats_by_bin: tuple[PostStats, ...]
    lease_stats: LeaseStats
    message_matrix: MessageMatrix
    rollup_progress: RollupProgress


def begin_snapshot(conn: Connection) -> None:
    """Begin a transaction that sees one moment, so that the pictures agree with each other."""
    conn.execute(sa.text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY"))


def get_project_metrics(conn: Connection, project_id: int, period: Period) -> ProjectMetrics:
    """The pictures of a project. Call it in a transaction of its own, after `begin`."""
    (now,) = conn.fetch_one("SELECT clock_timestamp()")
    coarse = _bin_starts(now, period.coarse_bin_width, period.coarse_bin_count)
    # Hours of the days that the coarse bins are, those to come included.
    fine = tuple(coarse[0] + place * period.fine_bin_width for place in range(period.fine_bin_count))
    asked = {"project": project_id, "start": coarse[0]}
    activity = _get_event_activity(conn, asked, period.fine_bin_width, fine)
    handoffs, by_bin = _get_post_stats(conn, asked, period.coarse_bin_width, coarse, activity)
    return ProjectMetrics(
        period=period,
        start=coarse[0],
        end=coarse[-1] + period.coarse_bin_width,
        event_activity=activity,
        post_stats=handoffs,
        bin_starts=coarse,
        post_stats_by_bin=by_bin,
        lease_stats=_get_lease_stats(conn, asked, period.coarse_bin_width),
        message_matrix=_get_message_matrix(conn, asked, period.coarse_bin_width),
        rollup_progress=rollups.get_progress(conn, project_id),
    )


def _bin_starts(now: datetime, width: timedelta, count: int) -> tuple[datetime, ...]:
    last = now.replace(minute=0, second=0, microsecond=0)
    if width == _DAY:
        last = last.replace(hour=0)
    return tuple(last - (count - 1 - place) * width for place in range(count))


def _granularity(width: timedelta) -> str:
    return "day" if width == _DAY else "hour"


_COUNTS_BY_BIN_SQL = """
SELECT t.start, t.key, t.n FROM tally t
WHERE t.project_id = %(project)s AND t.grain = %(grain)s AND t.figure = %(figure)s AND t.start >= %(start)s
"""


def _get_event_activity(
    conn: Connection, params: dict[str, Any], width: timedelta, bins: Sequence[datetime]
) -> EventActivity:
    place = {start: at for at, start in enumerate(bins)}
    counts: dict[str, list[int]] = {}
    for start, kind, n in conn.fetch_all(
        _COUNTS_BY_BIN_SQL, {**params, "grain": _granularity(width), "figure": "events"}
    ):
        # Where the clock of the database was set back, there may be hours ahead.
        if start in place:
            counts.setdefault(kind, [0] * len(bins))[place[start]] = n
    totals = {kind: sum(some) for kind, some in counts.items()}
    ordered = sorted(totals, key=lambda kind: (-totals[kind], kind))
    return EventActivity(
        event_count=sum(totals.values()),
        counts_by_type={kind: totals[kind] for kind in ordered},
        bin_starts=tuple(bins),
        bin_counts_by_type={kind: tuple(counts[kind]) for kind in ordered},
    )


# A day may have thousands of different times: as one object they are read several times as fast as in rows.
_ACK_TIMES_SQL = """
SELECT t.start, json_object_agg(t.key, t.n) FROM tally t
WHERE t.project_id = %(project)s AND t.grain = %(grain)s AND t.figure = 'waits' AND t.start >= %(start)s
GROUP BY t.start
"""


def _get_post_stats(
    conn: Connection, params: dict[str, Any], width: timedelta, bins: Sequence[datetime], activity: EventActivity
) -> tuple[PostStats, tuple[PostStats, ...]]:
    """Of the whole period, and of each bin. Posts are counted among the events, whose bins may be finer."""
    place = {start: at for at, start in enumerate(bins)}
    posts, anchored = [0] * len(bins), [0] * len(bins)
    waits: list[dict[float, int]] = [{} for _ in bins]
    for start, n in zip(activity.bin_starts, activity.bin_counts_by_type.get("post", ()), strict=False):
        posts[(start - bins[0]) // width] += n
    grain = _granularity(width)
    for start, _, n in conn.fetch_all(_COUNTS_BY_BIN_SQL, {**params, "grain": grain, "figure": "anchored"}):
        if start in place:
            anchored[place[start]] = n
    together: dict[float, int] = {}
    for start, counts in conn.fetch_all(_ACK_TIMES_SQL, {**params, "grain": grain}):
        if start in place:
            some = waits[place[start]] = {float(key): n for key, n in counts.items()}
            for key, n in some.items():
                together[key] = together.get(key, 0) + n
    return (
        _build_post_stats(sum(posts), sum(anchored), together),
        tuple(_build_post_stats(*one) for one in zip(posts, anchored, waits, strict=True)),
    )


def _build_post_stats(posts: int, with_ref: int, ack_times: dict[float, int]) -> PostStats:
    return PostStats(posts, with_ref, sum(ack_times.values()), *compute_quantiles(ack_times, (0.5, 0.9)))


_LEASE_STATS_SQL = """
WITH of AS (
    SELECT t.key, sum(t.n) FILTER (WHERE t.figure = 'leases') AS leases,
           sum(t.n) FILTER (WHERE t.figure = 'contended') AS contended
    FROM tally t WHERE t.project_id = %(project)s AND t.grain = %(grain)s AND t.figure IN ('leases', 'contended')
      AND t.start >= %(start)s GROUP BY t.key
)
SELECT o.key, coalesce(o.leases, 0)::bigint, coalesce(o.contended, 0)::bigint,
       coalesce(sum(o.leases) OVER (), 0)::bigint, coalesce(sum(o.contended) OVER (), 0)::bigint
FROM of o ORDER BY o.key = '', coalesce(o.leases, 0) DESC, o.key LIMIT %(listed)s
"""


def _get_lease_stats(conn: Connection, params: dict[str, Any], width: timedelta) -> LeaseStats:
    rows = conn.fetch_all(_LEASE_STATS_SQL, {**params, "grain": _granularity(width), "listed": MAX_SURFACES})
    leases, contended = rows[0][3:] if rows else (0, 0)
    listed = tuple(SurfaceStats(*row[:3]) for row in rows if row[0])
    others = SurfaceStats(
        "", leases - sum(one.leases for one in listed), contended - sum(one.contended for one in listed)
    )
    return LeaseStats(leases, contended, listed, others)


# Who is not among those with the most goes by the empty name, in the statement: there may be very many pairs.
_MESSAGE_MATRIX_SQL = """
WITH pair AS MATERIALIZED (
    SELECT t.key AS sender, t.figure AS kind, t.other AS addressee, sum(t.n) AS n
    FROM tally t WHERE t.project_id = %(project)s AND t.grain = %(grain)s AND t.figure IN ('to_lane', 'to_actor')
      AND t.start >= %(start)s GROUP BY 1, 2, 3
), sender AS (
    SELECT p.sender, sum(p.n) AS n FROM pair p WHERE p.sender <> '' GROUP BY 1 ORDER BY 2 DESC, 1 LIMIT %(listed)s
), addressee AS (
    SELECT p.kind, p.addressee, sum(p.n) AS n FROM pair p WHERE p.addressee <> ''
    GROUP BY 1, 2 ORDER BY 3 DESC, 1, 2 LIMIT %(listed)s
)
SELECT coalesce(s.sender, ''), coalesce(a.kind, ''), coalesce(a.addressee, ''), sum(p.n)::bigint, s.n, a.n
FROM pair p LEFT JOIN sender s ON s.sender = p.sender
LEFT JOIN addressee a ON a.kind = p.kind AND a.addressee = p.addressee
GROUP BY 1, 2, 3, s.n, a.n
ORDER BY s.n DESC NULLS LAST, 1, a.n DESC NULLS LAST, 2, 3
"""


def _get_message_matrix(conn: Connection, params: dict[str, Any], width: timedelta) -> MessageMatrix:
    rows = conn.fetch_all(_MESSAGE_MATRIX_SQL, {**params, "grain": _granularity(width), "listed": MAX_PARTICIPANTS})
    senders = {sender: None for sender, *_ in rows}
    by_most = sorted(rows, key=lambda row: (row[5] is None, -(row[5] or 0), row[1], row[2]))
    addressees = {Recipient(kind.removeprefix("to_"), name): None for _, kind, name, *_ in by_most}
    rows_at = {sender: at for at, sender in enumerate(senders)}
    columns_at = {addressee: at for at, addressee in enumerate(addressees)}
    return MessageMatrix(
        tuple(senders),
        tuple(addressees),
        {
            (rows_at[sender], columns_at[Recipient(kind.removeprefix("to_"), name)]): n
            for sender, kind, name, n, _, _ in rows
        },
    )
