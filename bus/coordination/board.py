"""The live board of a project: participants, leases, recent posts and tasks at one moment.

Viewers poll `get_version` and fetch the board only when the version has changed. The version costs the same at any
length of the ledger, and everything on the board is bounded.
Source: docs/decisions/0024-live-board.md
"""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta

from bus.coordination import board_activity
from bus.coordination.board_activity import Activity
from bus.coordination.post_titles import TITLE_SQL
from bus.db import Connection, Row
from bus.db.capped_count import capped_count
from bus.rules.enums import TASK_STATUSES
from bus.rules.lease_contention import find_contention

MAX_PARTICIPANTS = 60
MAX_POSTS = 12
MAX_LEASES = 12
# Leases that are compared for contention; those that contend are shown first.
_MAX_COMPARED_LEASES = 200
# The newest posts among which those with an ack are looked for.
_MAX_SCANNED_POSTS = 200
MAX_TASKS_PER_COLUMN = 4
MAX_LATEST_CLAIMS = 8
_COUNT_CAP = 1_000
# Presence, leases and deadlines change the board without an event, so the version also contains time.
_LAST_SEEN_GRANULARITY_SECONDS = 15
_MAX_VERSION_AGE_SECONDS = 30


@dataclass(frozen=True, slots=True)
class Participant:
    """A participant.

    Attributes:
        lane: the current lane, empty if there is none.
        is_active: whether it was seen within the project's presence window.
        wake: how it can be woken now: `waiting`, `listening` or `hooks`; None if only at its next turn.
    """

    participation_id: int
    actor: str
    lane: str
    status: str
    last_seen: datetime | None
    is_active: bool
    wake: str | None


@dataclass(frozen=True, slots=True)
class Post:
    """A post and the progress of its delivery.

    Attributes:
        to_actor, to_lane: whom it is addressed to: a participant, a lane, or both; `addressed_to` is the text.
        title: the subject, else the beginning of the first line of the body.
        is_overdue: whether its deadline has passed without an ack.
        acked_at, acked_by: the first ack by a participant other than the sender.
        recipient_count, surfaced_count, acked_count: how many participants it is for, how many of them have been
            shown or have acked it, and how many have acked it.
    """

    post_id: int
    actor: str
    to_actor: str | None
    to_lane: str | None
    addressed_to: str
    title: str
    ref: str | None
    created_at: datetime
    ack_due_at: datetime | None
    is_overdue: bool
    acked_at: datetime | None
    acked_by: str | None
    recipient_count: int
    surfaced_count: int
    acked_count: int

    @property
    def time_to_ack(self) -> timedelta | None:
        """The time from the post to its first ack."""
        return None if self.acked_at is None else self.acked_at - self.created_at


@dataclass(frozen=True, slots=True)
class Lease:
    """A live lease; `contending_actors` hold leases that contend with it, among the newest ones."""

    fence: int
    surface: str
    mode: str
    participation_id: int
    actor: str
    note: str | None
    acquired_at: datetime
    expires_at: datetime
    contending_actors: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Task:
    """A task; `blocker_summary` describes its newest open blocker."""

    task_id: int
    title: str
    lane: str | None
    owner: str | None
    updated_at: datetime
    blocker_summary: str | None


@dataclass(frozen=True, slots=True)
class TaskColumn:
    """Tasks of one status, newest first; `count` is their total number, counted up to 1,000."""

    status: str
    tasks: list[Task]
    count: int


@dataclass(frozen=True, slots=True)
class LatestClaim:
    """A sequence and its last claim."""

    sequence: str
    formatted: str
    claimed_by: str
    claimed_at: datetime


@dataclass(frozen=True, slots=True)
class Board:
    """A project at the moment `as_of`. Every list is cut at the limits of this module.

    Attributes:
        version: the result of `get_version` before anything else was read; it differs once the board has changed.
        participants: those seen last.
        participant_count: the number of participants.
        unacked_count: posts without an ack, counted up to 1,000.
        lease_count: live leases, counted up to 1,000.
        contended_count: those of the newest ones that contend.
        activity: the last hour.
    """

    version: str
    as_of: datetime
    last_seq: int
    participants: list[Participant]
    participant_count: int
    posts: list[Post]
    unacked_count: int
    leases: list[Lease]
    lease_count: int
    contended_count: int
    activity: Activity
    task_columns: list[TaskColumn]
    latest_claims: list[LatestClaim]

    @property
    def active_count(self) -> int:
        """The participants that are active."""
        return sum(participant.is_active for participant in self.participants)


# A subquery over the project `pj`.
_VERSION_SQL = """
    SELECT c.project_id, c.last_seq, clock_timestamp() AS as_of, c.last_seq::text || '.' || coalesce((
        SELECT floor(extract(epoch FROM max(pr.last_seen)) / %(last_seen_granularity)s)::bigint FROM presence pr
        WHERE pr.project_id = c.project_id), 0)::text || '.'
        || floor(extract(epoch FROM clock_timestamp()) / %(max_age)s)::bigint::text AS version
    FROM project_clock c WHERE c.project_id = pj.id
"""
_VERSION_PARAMS = {"last_seen_granularity": _LAST_SEEN_GRANULARITY_SECONDS, "max_age": _MAX_VERSION_AGE_SECONDS}

_PARTICIPANTS_SQL = """
    SELECT p.id, bus_participation_name(p.id), coalesce(pr.lane, p.lane, ''), coalesce(pr.status, ''), pr.last_seen,
           coalesce(pr.last_seen > clock_timestamp() - make_interval(secs => pj.presence_window_seconds), false),
           bus_wake(greatest(pr.waiting_until, s.waiting_until), greatest(pr.listening_until, s.listening_until),
                    s.hooks_until),
           count(*) OVER ()
    FROM project pj
    JOIN participation p ON p.project_id = pj.id AND p.removed_at IS NULL
    JOIN participant pt ON pt.id = p.participant_id AND pt.removed_at IS NULL AND pt.label <> ''
    LEFT JOIN presence pr ON pr.project_id = p.project_id AND pr.participation_id = p.id
    CROSS JOIN LATERAL (
        SELECT max(a.waiting_until) AS waiting_until, max(a.listening_until) AS listening_until,
               max(a.hooks_until) AS hooks_until
        FROM agent_session a
        WHERE a.project_id = p.project_id AND a.participation_id = p.id AND a.ended_at IS NULL) AS s
    WHERE pj.id = %(project)s
    ORDER BY pr.last_seen DESC NULLS LAST, p.id LIMIT %(limit)s
"""

# By index: overdue posts by deadline, posts without an ack from the oldest on, and of the newest posts those with one.
_POSTS_SQL = f"""
    SELECT o.id AS post_id, o.actor, o.to_actor, o.to_lane,
           concat_ws(' and ', o.to_actor, 'lane ' || o.to_lane) AS addressed_to,
           {TITLE_SQL} AS title, o.ref, o.created_at, o.ack_due_at, o.is_overdue, o.acked_at,
           (SELECT bus_participation_name(d.participation_id) FROM delivery d
            WHERE d.project_id = o.project_id AND d.post_id = o.id AND d.acked_at = o.acked_at LIMIT 1) AS acked_by,
           o.recipients AS recipient_count, progress.surfaced_count, progress.acked_count
    FROM (SELECT o.*, coalesce(o.ack_due_at < clock_timestamp() AND o.acked_at IS NULL, false) AS is_overdue
          FROM (
            (SELECT id FROM post WHERE project_id = %(project)s AND ack_due_at IS NOT NULL AND acked_at IS NULL
                AND ack_due_at < clock_timestamp() ORDER BY ack_due_at LIMIT %(limit)s)
            UNION (SELECT id FROM post WHERE project_id = %(project)s AND acked_at IS NULL ORDER BY id LIMIT %(limit)s)
            UNION (SELECT id FROM (SELECT id, acked_at FROM post WHERE project_id = %(project)s
                    ORDER BY id DESC LIMIT {_MAX_SCANNED_POSTS}) AS newest
                   WHERE acked_at IS NOT NULL ORDER BY id DESC LIMIT %(limit)s)
          ) AS listed JOIN post o ON o.project_id = %(project)s AND o.id = listed.id
          ORDER BY o.acked_at IS NOT NULL, is_overdue DESC, CASE WHEN o.acked_at IS NULL THEN o.id ELSE -o.id END
          LIMIT %(limit)s) AS o
    CROSS JOIN LATERAL (
        SELECT count(*) FILTER (WHERE d.surfaced_at IS NOT NULL OR d.acked_at IS NOT NULL) AS surfaced_count,
               count(*) FILTER (WHERE d.acked_at IS NOT NULL) AS acked_count
        FROM delivery d WHERE d.project_id = o.project_id AND d.post_id = o.id AND d.addressed) AS progress
    ORDER BY o.acked_at IS NOT NULL, o.is_overdue DESC, CASE WHEN o.acked_at IS NULL THEN o.id ELSE -o.id END
"""

_UNACKED_COUNT_SQL = "SELECT " + capped_count(
    "FROM post o WHERE o.project_id = %(project)s AND o.acked_at IS NULL", _COUNT_CAP
)

# The count shows whether there are more, so no extra row is read.
_LEASES_SQL = f"""
    SELECT l.fence, l.surface, l.mode, l.participation_id, l.actor, l.note, l.acquired_at, l.expires_at,
           count(*) OVER ()
    FROM (SELECT * FROM lease l WHERE l.project_id = %(project)s AND l.ended_at IS NULL
            AND l.expires_at > clock_timestamp() ORDER BY l.id DESC LIMIT {_COUNT_CAP}) AS l
    ORDER BY l.fence DESC LIMIT %(limit)s
"""

_TASK_COLUMNS_SQL = """
    t.id AS task_id, t.title, t.lane, t.owner, t.updated_at,
    (SELECT coalesce(b.reason, 'task ' || b.on_task_id) FROM task_blocker b
     WHERE b.project_id = t.project_id AND b.task_id = t.id AND b.resolved_at IS NULL ORDER BY b.id DESC LIMIT 1)
    AS blocker_summary
"""
_OPEN_TASKS_SQL = f"""
    SELECT {_TASK_COLUMNS_SQL}, kind.status
    FROM unnest(%(statuses)s::text[]) AS kind (status)
    CROSS JOIN LATERAL (
        SELECT * FROM task t WHERE t.project_id = %(project)s AND t.status = kind.status
        ORDER BY t.id DESC LIMIT %(limit)s) AS t
    ORDER BY t.id DESC
"""
_SHIPPED_TASKS_SQL = f"""
    SELECT {_TASK_COLUMNS_SQL}
    FROM (SELECT (e.payload ->> 'task_id')::bigint AS id, e.seq FROM event e
          WHERE e.project_id = %(project)s AND e.type = 'task_ship' ORDER BY e.seq DESC LIMIT %(limit)s) AS shipped
    JOIN task t ON t.project_id = %(project)s AND t.id = shipped.id
    ORDER BY shipped.seq DESC
"""
_TASK_COUNTS_SQL = (
    "SELECT kind.status, "
    + capped_count("FROM task t WHERE t.project_id = %(project)s AND t.status = kind.status", _COUNT_CAP)
    + " FROM unnest(%(statuses)s::text[]) AS kind (status)"
)

_LATEST_CLAIMS_SQL = """
    SELECT s.name AS sequence, s.claimed_as AS formatted, s.claimed_by, s.claimed_at FROM sequence s
    WHERE s.project_id = %(project)s AND s.claimed_at IS NOT NULL ORDER BY s.claimed_at DESC, s.name LIMIT %(limit)s
"""


def get_version(conn: Connection, project_id: int) -> str:
    """Return the version of a board.

    It changes with every event, within 15 s of a sighting of a participant, and every 30 s in any case, since leases
    and deadlines expire by themselves.
    """
    version, _, _ = _fetch_version(conn, project_id)
    return version


def list_versions(conn: Connection, project_ids: Collection[int]) -> dict[int, str]:
    """Return the versions of several boards by project, without projects that are deleted or being purged."""
    rows = conn.fetch_all(
        f"SELECT v.project_id, v.version FROM project pj CROSS JOIN LATERAL ({_VERSION_SQL}) AS v"
        " WHERE pj.id = ANY (%(projects)s) AND pj.purging_at IS NULL",
        {"projects": sorted(project_ids), **_VERSION_PARAMS},
    )
    return dict(rows)


def get_board(conn: Connection, project_id: int) -> Board:
    """Return the board of a project.

    The version is read first: a change during the read leads to another read, and none is missed.
    """
    version, last_seq, as_of = _fetch_version(conn, project_id)
    project = {"project": project_id}
    participant_rows = conn.fetch_all(_PARTICIPANTS_SQL, {**project, "limit": MAX_PARTICIPANTS})
    lease_rows = conn.fetch_all(_LEASES_SQL, {**project, "limit": _MAX_COMPARED_LEASES})
    leases = _build_leases(lease_rows)
    (unacked_count,) = conn.fetch_one(_UNACKED_COUNT_SQL, project)
    return Board(
        version=version,
        as_of=as_of,
        last_seq=last_seq,
        participants=[_build_participant(row) for row in participant_rows],
        participant_count=participant_rows[0][-1] if participant_rows else 0,
        posts=conn.fetch_all_as(Post, _POSTS_SQL, {**project, "limit": MAX_POSTS}),
        unacked_count=unacked_count,
        leases=leases[:MAX_LEASES],
        lease_count=lease_rows[0][-1] if lease_rows else 0,
        contended_count=sum(bool(lease.contending_actors) for lease in leases),
        activity=board_activity.get_activity(conn, project_id, unacked_count),
        task_columns=_fetch_task_columns(conn, project_id),
        latest_claims=conn.fetch_all_as(LatestClaim, _LATEST_CLAIMS_SQL, {**project, "limit": MAX_LATEST_CLAIMS}),
    )


def _fetch_version(conn: Connection, project_id: int) -> tuple[str, int, datetime]:
    version, last_seq, as_of = conn.fetch_one(
        f"SELECT v.version, v.last_seq, v.as_of FROM project pj CROSS JOIN LATERAL ({_VERSION_SQL}) AS v"
        " WHERE pj.id = %(project)s",
        {"project": project_id, **_VERSION_PARAMS},
    )
    return version, last_seq, as_of


def _fetch_task_columns(conn: Connection, project_id: int) -> list[TaskColumn]:
    params = {"project": project_id, "limit": MAX_TASKS_PER_COLUMN}
    tasks_by_status: dict[str, list[Task]] = {status: [] for status in TASK_STATUSES}
    statuses = [status for status in TASK_STATUSES if status != "done"]
    for *columns, status in conn.fetch_all(_OPEN_TASKS_SQL, {**params, "statuses": statuses}):
        tasks_by_status[status].append(_build_task(*columns))
    tasks_by_status["done"] = conn.fetch_all_as(Task, _SHIPPED_TASKS_SQL, params)
    counts: dict[str, int] = dict(
        conn.fetch_all(_TASK_COUNTS_SQL, {"project": project_id, "statuses": list(TASK_STATUSES)})
    )
    return [TaskColumn(status=status, tasks=tasks_by_status[status], count=counts[status]) for status in TASK_STATUSES]


def _build_participant(row: Row) -> Participant:
    participation_id, actor, lane, status, last_seen, is_active, wake, _ = row
    return Participant(
        participation_id=participation_id,
        actor=actor,
        lane=lane,
        status=status,
        last_seen=last_seen,
        is_active=is_active,
        wake=wake,
    )


def _build_task(
    task_id: int,
    title: str,
    lane: str | None,
    owner: str | None,
    updated_at: datetime,
    blocker_summary: str | None,
) -> Task:
    return Task(
        task_id=task_id,
        title=title,
        lane=lane,
        owner=owner,
        updated_at=updated_at,
        blocker_summary=blocker_summary,
    )


def _build_leases(rows: list[Row]) -> list[Lease]:
    leases: list[tuple[int, str, str, int]] = [row[:4] for row in rows]
    contention = find_contention(leases)
    actor_by_fence = {fence: actor for fence, _, _, _, actor, *_ in rows}
    built = [
        Lease(
            fence=fence,
            surface=surface,
            mode=mode,
            participation_id=participation_id,
            actor=actor,
            note=note,
            acquired_at=acquired_at,
            expires_at=expires_at,
            contending_actors=tuple(dict.fromkeys(actor_by_fence[other] for other in contention.get(fence, ()))),
        )
        for fence, surface, mode, participation_id, actor, note, acquired_at, expires_at, _ in rows
    ]
    built.sort(key=lambda lease: (not lease.contending_actors, lease.expires_at, lease.fence))
    return built
