"""Project metrics: how the agents of a project work together over a period, from the rollups, never from the ledger.

A period consists of whole hours or whole days, UTC, the current one included. The rollups (bus/analytics/rollups.py)
bound the rows that are read; MAX_SURFACES and MAX_PARTICIPANTS bound the result.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa

from bus.analytics import rollups
from bus.analytics.delivery_times import DeliveryCounts, DeliveryStats
from bus.analytics.rollups import RollupProgress
from bus.db import Connection
from bus.rules.percentiles import compute_quantiles

# Listed surfaces, and listed senders and recipients, highest counts first; the others are combined.
MAX_SURFACES, MAX_PARTICIPANTS = 8, 12
_HOUR, _DAY = timedelta(hours=1), timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Period:
    """A period that ends now, divided into bins.

    Attributes:
        name: as in URLs.
        fine_bin_width, fine_bin_count: bins of the events by type.
        coarse_bin_width, coarse_bin_count: bins of the posts; also the granularity of all totals. Fine and coarse bins
            cover the same time.
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
    """Events by type, most frequent type first.

    Attributes:
        event_count: all events of the period.
        bin_starts: start of each bin.
        bin_counts_by_type: for each event type, one count per bin.
    """

    event_count: int
    counts_by_type: dict[str, int]
    bin_starts: tuple[datetime, ...]
    bin_counts_by_type: dict[str, tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class PostStats:
    """Posts written in a time range, with their acks until now.

    Attributes:
        posts, with_ref: all posts, and those with a ref to an artifact.
        acked: posts with an ack from another participant than the sender.
        median_ack_seconds, p90_ack_seconds: from an acked post to its first such ack; None if there are none.
    """

    posts: int
    with_ref: int
    acked: int
    median_ack_seconds: float | None
    p90_ack_seconds: float | None


@dataclass(frozen=True, slots=True)
class SurfaceStats:
    """A path or glob: how often it was leased, and how often that overlapped a live lease of another participant."""

    surface: str
    leases: int
    contended: int


@dataclass(frozen=True, slots=True)
class LeaseStats:
    """Leases by surface.

    Attributes:
        leases, contended: totals of all surfaces.
        top_surfaces: the MAX_SURFACES most leased.
        other_surfaces: all others combined; the surface is empty.
    """

    leases: int
    contended: int
    top_surfaces: tuple[SurfaceStats, ...]
    other_surfaces: SurfaceStats


@dataclass(frozen=True, slots=True)
class Recipient:
    """Recipient of posts: a lane or a participant; an empty name stands for all others combined."""

    kind: str
    name: str


@dataclass(frozen=True, slots=True)
class MessageMatrix:
    """Posts from participants (rows) to lanes and participants (columns), highest totals first.

    A post to a lane and to a participant counts in both columns.

    Attributes:
        senders: at most MAX_PARTICIPANTS, and the empty name for all others, if any.
        recipients: at most MAX_PARTICIPANTS, and an empty name for all others, if any.
        counts: posts by (index of the sender, index of the recipient); zeros are left out.
    """

    senders: tuple[str, ...]
    recipients: tuple[Recipient, ...]
    counts: dict[tuple[int, int], int]


@dataclass(frozen=True, slots=True)
class ProjectMetrics:
    """All metrics of a project over a period.

    Attributes:
        start, end: bounds of the period; `end` is the end of the current hour or day, in the future.
        post_stats: of the whole period.
        delivery_stats: of the posts written in the period, with what was seen and acked until now.
        bin_starts, post_stats_by_bin: start of each coarse bin, and its posts.
        rollup_progress: how far the ledger is counted.
    """

    period: Period
    start: datetime
    end: datetime
    event_activity: EventActivity
    post_stats: PostStats
    delivery_stats: DeliveryStats
    bin_starts: tuple[datetime, ...]
    post_stats_by_bin: tuple[PostStats, ...]
    lease_stats: LeaseStats
    message_matrix: MessageMatrix
    rollup_progress: RollupProgress


def begin_snapshot(conn: Connection) -> None:
    """Make the transaction read one snapshot, so that the metrics are consistent; call it first in a transaction."""
    conn.execute(sa.text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY"))


def get_project_metrics(conn: Connection, project_id: int, period: Period) -> ProjectMetrics:
    """Return the metrics of a project; call it in its own transaction, after `begin_snapshot`."""
    (now,) = conn.fetch_one("SELECT clock_timestamp()")
    coarse_bins = _bin_starts(now, period.coarse_bin_width, period.coarse_bin_count)
    # The fine bins start with the first coarse bin; the last ones may lie in the future.
    fine_bins = tuple(coarse_bins[0] + index * period.fine_bin_width for index in range(period.fine_bin_count))
    params = {"project": project_id, "start": coarse_bins[0]}
    event_activity = _get_event_activity(conn, params, period.fine_bin_width, fine_bins)
    post_stats, post_stats_by_bin = _get_post_stats(conn, params, period.coarse_bin_width, coarse_bins, event_activity)
    return ProjectMetrics(
        period=period,
        start=coarse_bins[0],
        end=coarse_bins[-1] + period.coarse_bin_width,
        event_activity=event_activity,
        post_stats=post_stats,
        delivery_stats=_get_delivery_stats(conn, params, period.coarse_bin_width),
        bin_starts=coarse_bins,
        post_stats_by_bin=post_stats_by_bin,
        lease_stats=_get_lease_stats(conn, params, period.coarse_bin_width),
        message_matrix=_get_message_matrix(conn, params, period.coarse_bin_width),
        rollup_progress=rollups.get_progress(conn, project_id),
    )


def _bin_starts(now: datetime, width: timedelta, count: int) -> tuple[datetime, ...]:
    last = now.replace(minute=0, second=0, microsecond=0)
    if width == _DAY:
        last = last.replace(hour=0)
    return tuple(last - (count - 1 - index) * width for index in range(count))


def _granularity(width: timedelta) -> str:
    return "day" if width == _DAY else "hour"


_COUNTS_BY_BIN_SQL = """
SELECT t.start, t.key, t.n FROM tally t
WHERE t.project_id = %(project)s AND t.grain = %(granularity)s AND t.figure = %(metric)s AND t.start >= %(start)s
"""


def _get_event_activity(
    conn: Connection, params: dict[str, Any], width: timedelta, bins: Sequence[datetime]
) -> EventActivity:
    bin_index = {start: index for index, start in enumerate(bins)}
    counts: dict[str, list[int]] = {}
    for start, event_type, n in conn.fetch_all(
        _COUNTS_BY_BIN_SQL, {**params, "granularity": _granularity(width), "metric": "events"}
    ):
        # After the database's clock was set back, there may be hours in the future.
        if start in bin_index:
            counts.setdefault(event_type, [0] * len(bins))[bin_index[start]] = n
    totals = {event_type: sum(bin_counts) for event_type, bin_counts in counts.items()}
    ordered_types = sorted(totals, key=lambda event_type: (-totals[event_type], event_type))
    return EventActivity(
        event_count=sum(totals.values()),
        counts_by_type={event_type: totals[event_type] for event_type in ordered_types},
        bin_starts=tuple(bins),
        bin_counts_by_type={event_type: tuple(counts[event_type]) for event_type in ordered_types},
    )


# A day may have thousands of distinct durations: one JSON object is read several times as fast as as many rows.
_ACK_TIMES_SQL = """
SELECT t.start, json_object_agg(t.key, t.n) FROM tally t
WHERE t.project_id = %(project)s AND t.grain = %(granularity)s AND t.figure = 'waits' AND t.start >= %(start)s
GROUP BY t.start
"""


def _get_post_stats(
    conn: Connection, params: dict[str, Any], width: timedelta, bins: Sequence[datetime], activity: EventActivity
) -> tuple[PostStats, tuple[PostStats, ...]]:
    """Return the statistics of the period and of each bin. Posts come from `activity`, whose bins may be finer."""
    bin_index = {start: index for index, start in enumerate(bins)}
    posts, with_ref = [0] * len(bins), [0] * len(bins)
    # Number of posts by seconds until the first ack, per bin and for the period.
    ack_times: list[dict[float, int]] = [{} for _ in bins]
    period_ack_times: dict[float, int] = {}
    for start, n in zip(activity.bin_starts, activity.bin_counts_by_type.get("post", ()), strict=False):
        posts[(start - bins[0]) // width] += n
    granularity = _granularity(width)
    for start, _, n in conn.fetch_all(_COUNTS_BY_BIN_SQL, {**params, "granularity": granularity, "metric": "anchored"}):
        if start in bin_index:
            with_ref[bin_index[start]] = n
    for start, counts in conn.fetch_all(_ACK_TIMES_SQL, {**params, "granularity": granularity}):
        if start in bin_index:
            bin_ack_times = {float(seconds): n for seconds, n in counts.items()}
            ack_times[bin_index[start]] = bin_ack_times
            for seconds, n in bin_ack_times.items():
                period_ack_times[seconds] = period_ack_times.get(seconds, 0) + n
    return (
        _build_post_stats(sum(posts), sum(with_ref), period_ack_times),
        tuple(_build_post_stats(*bin_counts) for bin_counts in zip(posts, with_ref, ack_times, strict=True)),
    )


def _build_post_stats(posts: int, with_ref: int, ack_times: dict[float, int]) -> PostStats:
    median, p90 = compute_quantiles(ack_times, (0.5, 0.9))
    return PostStats(
        posts=posts,
        with_ref=with_ref,
        acked=sum(ack_times.values()),
        median_ack_seconds=median,
        p90_ack_seconds=p90,
    )


_DELIVERY_STATS_SQL = """
SELECT c.figure, c.other, json_object_agg(c.key, c.n) FROM (
    SELECT t.figure, t.other, t.key, sum(t.n)::bigint AS n FROM tally t
    WHERE t.project_id = %(project)s AND t.grain = %(granularity)s AND t.figure IN ('delivered', 'seen', 'acked')
      AND t.start >= %(start)s GROUP BY 1, 2, 3) AS c
GROUP BY 1, 2
"""


def _get_delivery_stats(conn: Connection, params: dict[str, Any], width: timedelta) -> DeliveryStats:
    counts = DeliveryCounts()
    for metric, group, counts_by_key in conn.fetch_all(
        _DELIVERY_STATS_SQL, {**params, "granularity": _granularity(width)}
    ):
        wake, _, client = group.partition(" ")
        if metric == "delivered":
            counts.add_delivered(wake, client, sum(counts_by_key.values()))
        else:
            counts.add_times(metric, wake, client, ((float(key), n) for key, n in counts_by_key.items()))
    return counts.build()


_LEASE_STATS_SQL = """
WITH counts AS (
    SELECT t.key, sum(t.n) FILTER (WHERE t.figure = 'leases') AS leases,
           sum(t.n) FILTER (WHERE t.figure = 'contended') AS contended
    FROM tally t WHERE t.project_id = %(project)s AND t.grain = %(granularity)s AND t.figure IN ('leases', 'contended')
      AND t.start >= %(start)s GROUP BY t.key
)
SELECT c.key, coalesce(c.leases, 0)::bigint, coalesce(c.contended, 0)::bigint,
       coalesce(sum(c.leases) OVER (), 0)::bigint, coalesce(sum(c.contended) OVER (), 0)::bigint
FROM counts c ORDER BY c.key = '', coalesce(c.leases, 0) DESC, c.key LIMIT %(listed)s
"""


def _get_lease_stats(conn: Connection, params: dict[str, Any], width: timedelta) -> LeaseStats:
    rows = conn.fetch_all(_LEASE_STATS_SQL, {**params, "granularity": _granularity(width), "listed": MAX_SURFACES})
    total_leases, total_contended = rows[0][3:] if rows else (0, 0)
    top_surfaces = tuple(
        SurfaceStats(surface=surface, leases=leases, contended=contended)
        for surface, leases, contended, _, _ in rows
        if surface
    )
    return LeaseStats(
        leases=total_leases,
        contended=total_contended,
        top_surfaces=top_surfaces,
        other_surfaces=SurfaceStats(
            surface="",
            leases=total_leases - sum(stats.leases for stats in top_surfaces),
            contended=total_contended - sum(stats.contended for stats in top_surfaces),
        ),
    )


# Groups all senders and recipients outside the top N under '' in SQL, since there may be many pairs.
_MESSAGE_MATRIX_SQL = """
WITH pair AS MATERIALIZED (
    SELECT t.key AS sender, t.figure AS kind, t.other AS recipient, sum(t.n) AS n
    FROM tally t WHERE t.project_id = %(project)s AND t.grain = %(granularity)s AND t.figure IN ('to_lane', 'to_actor')
      AND t.start >= %(start)s GROUP BY 1, 2, 3
), sender AS (
    SELECT p.sender, sum(p.n) AS n FROM pair p WHERE p.sender <> '' GROUP BY 1 ORDER BY 2 DESC, 1 LIMIT %(listed)s
), recipient AS (
    SELECT p.kind, p.recipient, sum(p.n) AS n FROM pair p WHERE p.recipient <> ''
    GROUP BY 1, 2 ORDER BY 3 DESC, 1, 2 LIMIT %(listed)s
)
SELECT coalesce(s.sender, ''), coalesce(r.kind, ''), coalesce(r.recipient, ''), sum(p.n)::bigint, s.n, r.n
FROM pair p LEFT JOIN sender s ON s.sender = p.sender
LEFT JOIN recipient r ON r.kind = p.kind AND r.recipient = p.recipient
GROUP BY 1, 2, 3, s.n, r.n
ORDER BY s.n DESC NULLS LAST, 1, r.n DESC NULLS LAST, 2, 3
"""


def _get_message_matrix(conn: Connection, params: dict[str, Any], width: timedelta) -> MessageMatrix:
    rows = conn.fetch_all(
        _MESSAGE_MATRIX_SQL, {**params, "granularity": _granularity(width), "listed": MAX_PARTICIPANTS}
    )
    # The rows are ordered by sender. Dictionaries serve as ordered sets here.
    senders = {sender: None for sender, *_ in rows}
    by_recipient_total = sorted(rows, key=lambda row: (row[5] is None, -(row[5] or 0), row[1], row[2]))
    recipients = {_recipient(metric, name): None for _, metric, name, *_ in by_recipient_total}
    sender_index = {sender: index for index, sender in enumerate(senders)}
    recipient_index = {recipient: index for index, recipient in enumerate(recipients)}
    return MessageMatrix(
        senders=tuple(senders),
        recipients=tuple(recipients),
        counts={
            (sender_index[sender], recipient_index[_recipient(metric, name)]): n
            for sender, metric, name, n, _, _ in rows
        },
    )


def _recipient(metric: str, name: str) -> Recipient:
    """Build a recipient from a rollup's metric, `to_lane` or `to_actor`; both are empty for all others."""
    return Recipient(kind=metric.removeprefix("to_"), name=name)
