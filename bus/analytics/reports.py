"""Project reports: how the agents of a project worked together, computed from its whole ledger."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from bus.analytics.delivery_times import DeliveryCounts, DeliveryStats
from bus.db import Connection
from bus.rules.client_names import UNKNOWN
from bus.rules.percentiles import compute_quantiles, rounded_seconds_sql
from bus.tenancy import projects

# Sequences listed in a report, those with the most claims first.
MAX_SEQUENCES = 50


@dataclass(frozen=True, slots=True)
class EventTypeShare:
    """Number of events of one type; `share` is the fraction of all events, 0 to 1."""

    type: str
    count: int
    share: float


@dataclass(frozen=True, slots=True)
class ProjectReport:
    """Report on a project, or on several combined. Shares are 0 to 1; None if there is nothing to divide.

    Attributes:
        projects: qualified names of the counted projects.
        agents: participants with at least one event; one that acts in several of the projects counts once.
        mix: the event types that occur, most frequent first.
        handoff_and_ack_share: fraction of all events that are posts or acks.
        handoffs: posts.
        acked: posts with an ack from another participant than the sender.
        surface_median_seconds, surface_p90_seconds: from a post until it was first shown to a recipient, per recipient.
        ack_median_seconds, ack_p90_seconds: from a post to its first ack by another participant.
        anchored: posts with a ref to an artifact.
        collisions: leases that overlapped a live lease of another participant, and so reported contention.
        claims: numbers taken.
        claimed: numbers taken by sequence, for the MAX_SEQUENCES with the most.
        delivery_times: deliveries by reachability and by client, without those to participants that joined the lane
            after the post.
    """

    projects: tuple[str, ...]
    agents: int
    events: int
    mix: tuple[EventTypeShare, ...]
    handoff_and_ack_share: float | None
    handoffs: int
    acked: int
    acked_share: float | None
    surface_median_seconds: float | None
    surface_p90_seconds: float | None
    ack_median_seconds: float | None
    ack_p90_seconds: float | None
    anchored: int
    anchored_share: float | None
    leases: int
    collisions: int
    claims: int
    claimed: dict[str, int]
    tasks_shipped: int
    first_event_at: datetime | None
    last_event_at: datetime | None
    delivery_times: DeliveryStats = field(default_factory=DeliveryStats)


# Events that one statement reads: 40 to 70 ms, far below the statement timeout however long the ledger is.
_WINDOW_SIZE = 50_000

_EVENTS_SQL = """
SELECT e.type, CASE WHEN e.type = 'claim' THEN e.payload ->> 'sequence' END, count(*),
       count(*) FILTER (WHERE e.type = 'lease' AND (e.payload ->> 'contended')::bigint > 0)
FROM event e WHERE e.project_id = %(project)s AND e.seq > %(after)s AND e.seq <= %(until)s GROUP BY 1, 2
"""

# Rounding leaves few enough values to merge over all windows.
_ROUNDED_SECONDS_SQL = f"{rounded_seconds_sql('elapsed.seconds')}::float8"

# `acked_at` is the first ack by another participant than the sender (bus_ack_posts in bus/coordination/sql/posts.sql).
_POSTS_SQL = f"""
SELECT {_ROUNDED_SECONDS_SQL}, count(*), count(o.ref)
FROM post o
CROSS JOIN LATERAL (SELECT extract(epoch FROM o.acked_at - o.created_at)::float8 AS seconds) AS elapsed
WHERE o.project_id = %(project)s AND o.id > %(after)s AND o.id <= %(until)s GROUP BY 1
"""

_ROUNDED_ACK_SECONDS_SQL = f"{rounded_seconds_sql('elapsed.ack_seconds')}::float8"

# An ack also means that the recipient has seen the post, so its time counts if it comes first.
_DELIVERIES_SQL = f"""
SELECT t.wake, t.client, t.seen, t.acked, grouping(t.seen) = 0, count(*) FROM (
SELECT d.wake, coalesce(d.client, '{UNKNOWN}') AS client, {_ROUNDED_SECONDS_SQL} AS seen,
       {_ROUNDED_ACK_SECONDS_SQL} AS acked
FROM delivery d JOIN post o ON o.project_id = d.project_id AND o.id = d.post_id
CROSS JOIN LATERAL (
    SELECT CASE WHEN d.surfaced_at IS NOT NULL OR d.acked_at IS NOT NULL THEN
                greatest(extract(epoch FROM least(d.surfaced_at, d.acked_at) - o.created_at)::float8, 0) END AS seconds,
           extract(epoch FROM d.acked_at - o.created_at)::float8 AS ack_seconds
) AS elapsed
WHERE d.project_id = %(project)s AND d.post_id > %(after)s AND d.post_id <= %(until)s AND d.addressed) AS t
GROUP BY GROUPING SETS ((t.wake, t.client, t.seen), (t.wake, t.client, t.acked))
"""


def build_report(conn: Connection, project_id: int) -> ProjectReport:
    """Build the report of one project, which may be empty.

    Reads the whole ledger (2 s for a million events, measured), in bounded statements; not for the calls of agents.
    Events written meanwhile do not count.

    Raises:
        NotFound: there is no such project.
    """
    return build_combined_report(conn, [project_id])


def build_combined_report(conn: Connection, project_ids: Sequence[int]) -> ProjectReport:
    """Build one report on several projects, as if they were one.

    Computed from their ledgers, not from their reports: neither medians nor numbers of agents can be combined.

    Raises:
        NotFound: one of the projects does not exist.
    """
    reported_projects = [projects.get(conn, project_id) for project_id in project_ids]
    counts = _ReportCounts()
    for project in reported_projects:
        counts.add_project(conn, project.id)
    types = counts.events_by_type
    events = types.total()
    handoffs, acked = types["post"], counts.ack_times.total()
    surface_median, surface_p90 = compute_quantiles(counts.surface_times, (0.5, 0.9))
    ack_median, ack_p90 = compute_quantiles(counts.ack_times, (0.5, 0.9))
    return ProjectReport(
        projects=tuple(f"{project.owner}/{project.name}" for project in reported_projects),
        agents=len(counts.agent_ids),
        events=events,
        mix=tuple(
            EventTypeShare(type=event_type, count=count, share=count / events)
            for event_type, count in _by_descending_count(types)
        ),
        handoff_and_ack_share=_share(types["post"] + types["ack"], events),
        handoffs=handoffs,
        acked=acked,
        acked_share=_share(acked, handoffs),
        surface_median_seconds=surface_median,
        surface_p90_seconds=surface_p90,
        ack_median_seconds=ack_median,
        ack_p90_seconds=ack_p90,
        delivery_times=counts.deliveries.build(),
        anchored=counts.posts_with_ref,
        anchored_share=_share(counts.posts_with_ref, handoffs),
        leases=types["lease"],
        collisions=counts.collisions,
        claims=types["claim"],
        claimed=dict(_by_descending_count(counts.claims_by_sequence)[:MAX_SEQUENCES]),
        tasks_shipped=types["task_ship"],
        first_event_at=min(counts.boundary_times, default=None),
        last_event_at=max(counts.boundary_times, default=None),
    )


class _ReportCounts:
    """Running counts over windows and projects."""

    def __init__(self) -> None:
        self.agent_ids: set[int] = set()
        self.events_by_type: Counter[str] = Counter()
        self.claims_by_sequence: Counter[str] = Counter()
        self.ack_times: Counter[float] = Counter()
        self.surface_times: Counter[float] = Counter()
        self.deliveries = DeliveryCounts()
        self.collisions = 0
        self.posts_with_ref = 0
        self.boundary_times: list[datetime] = []

    def add_project(self, conn: Connection, project_id: int) -> None:
        """Count a project up to the current end of its ledger; later changes there are acks only."""
        (last,) = conn.fetch_one("SELECT last_seq FROM project_clock WHERE project_id = %s", (project_id,))
        for after in range(0, last, _WINDOW_SIZE):
            window = {"project": project_id, "after": after, "until": min(after + _WINDOW_SIZE, last)}
            for event_type, sequence, count, contended in conn.fetch_all(_EVENTS_SQL, window):
                self.events_by_type[event_type] += count
                self.collisions += contended
                if sequence is not None:
                    self.claims_by_sequence[sequence] += count
            for seconds, count, with_ref in conn.fetch_all(_POSTS_SQL, window):
                self.posts_with_ref += with_ref
                if seconds is not None:
                    self.ack_times[seconds] += count
            for row in conn.fetch_all(_DELIVERIES_SQL, window):
                self._add_deliveries(*row)
        self.boundary_times += [
            at
            for (at,) in conn.fetch_all(
                "SELECT at FROM event WHERE project_id = %s AND seq IN (1, %s)", (project_id, last)
            )
        ]
        self.agent_ids |= {
            participant_id
            for (participant_id,) in conn.fetch_all(
                "SELECT p.participant_id FROM participation p WHERE p.project_id = %(project)s AND EXISTS ("
                " SELECT FROM event e WHERE e.project_id = p.project_id AND e.participation_id = p.id)",
                {"project": project_id},
            )
        }

    def _add_deliveries(
        self, wake: str | None, client: str, seen: float | None, acked: float | None, is_by_seen: bool, count: int
    ) -> None:
        """Add a row of the deliveries, which are grouped by the time until they were seen, and by that to the ack."""
        if is_by_seen and seen is not None:
            self.surface_times[seen] += count
        if wake is None:
            return
        if is_by_seen:
            self.deliveries.add_delivered(wake, client, count)
        seconds = seen if is_by_seen else acked
        if seconds is not None:
            self.deliveries.add_times("seen" if is_by_seen else "acked", wake, client, [(seconds, count)])


def _by_descending_count(counts: Counter[str]) -> list[tuple[str, int]]:
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None
