"""The live board of a project: who is here, who edits what, which handoffs wait, what is done next; all as of now.

Whoever watches asks for the `mark` again and again and reads the rest only when it has moved: the mark costs the same
however long the ledger is, and everything on the board is bounded.
Source: docs/decisions/0024-live-board.md
"""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta

from bus.db import Connection
from bus.rules.lease_contention import find_contention

MAX_PARTICIPANTS = 60
MAX_POSTS = 12
MAX_LEASES = 30
MAX_TASKS_PER_COLUMN = 8
MAX_LATEST_CLAIMS = 12
_COUNT_CAP = 1_000
# What moves without an event: somebody was seen, a lease or a deadline ran out.
_LAST_SEEN_GRANULARITY_SECONDS = 15
_MAX_VERSION_AGE_SECONDS = 30


@dataclass(frozen=True, slots=True)
class Participant:
    """A participant; `lane` is empty in none, and `active` is whether it was seen within the project's window."""

    participation_id: int
    actor: str
    lane: str
    status: str
    last_seen: datetime | None
    is_active: bool


@dataclass(frozen=True, slots=True)
class Post:
    """A post on its way.

    Attributes:
        to: its lane, or whom it is addressed to, or both.
        acked_at: when somebody other than its sender acked it first; `acked_by` says who.
        recipients, shown, acked: how many it is for, how many of them it was shown to or have acked, have acked it.
        overdue: whether its deadline has passed without an ack.
    """

    post_id: int
    actor: str
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
        """From the post to its ack."""
        return None if self.acked_at is None else self.acked_at - self.created_at


@dataclass(frozen=True, slots=True)
class Lease:
    """A live lease; `others` are the holders of leases on this board that contend with it."""

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
    """A task; `waits_for` is its newest open blocker in words, and `moved_at` its last change."""

    task_id: int
    title: str
    lane: str | None
    owner: str | None
    updated_at: datetime
    blocker_summary: str | None


@dataclass(frozen=True, slots=True)
class TaskColumn:
    """Tasks of one state, the newest first; `count` is how many there are, counted up to 1,000."""

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
    """What a project looks like at one moment, `at`; everything is cut at the limits of this module.

    Attributes:
        people: those who were seen last.
        mark: what `mark` gave before anything else was read: asked again it differs once something has changed.
        waiting: handoffs that nobody has acked, counted up to 1,000.
        people_count, leases_count: how many there are of them, counted up to 1,000.
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
    task_columns: list[TaskColumn]
    latest_claims: list[LatestClaim]

    @property
    def participants_by_lane(self) -> list[tuple[str, list[Participant]]]:
        """The people by lane: lanes in which somebody is come first, no lane last; in each those who are here first.

        Otherwise by name: by when they were seen, they would jump about under the eyes of who watches.
        """
        found: dict[str, list[Participant]] = {}
        for person in sorted(self.participants, key=lambda one: (not one.is_active, one.actor)):
            found.setdefault(person.lane, []).append(person)
        return sorted(found.items(), key=lambda lane: (not lane[0], not any(one.is_active for one in lane[1]), lane[0]))


# Of the project `pj`.
_VERSION_SQL = """
    SELECT c.project_id, c.last_seq, clock_timestamp() AS at, c.last_seq::text || '.' || coalesce((
        SELECT floor(extract(epoch FROM max(pr.last_seen)) / %(seen)s)::bigint FROM presence pr
        WHERE pr.project_id = c.project_id), 0)::text || '.'
        || floor(extract(epoch FROM clock_timestamp()) / %(turn)s)::bigint::text AS mark
    FROM project_clock c WHERE c.project_id = pj.id
"""

_PARTICIPANTS_SQL = """
    SELECT p.id, bus_participation_name(p.id), coalesce(pr.lane, p.lane, ''), coalesce(pr.status, ''), pr.last_seen,
           coalesce(pr.last_seen > clock_timestamp() - make_interval(secs => pj.presence_window_seconds), false),
           count(*) OVER ()
    FROM project pj
    JOIN participation p ON p.project_id = pj.id AND p.removed_at IS NULL
    JOIN participant pt ON pt.id = p.participant_id AND pt.removed_at IS NULL AND pt.label <> ''
    LEFT JOIN presence pr ON pr.project_id = p.project_id AND pr.participation_id = p.id
    WHERE pj.id = %(project)s
    ORDER BY pr.last_seen DESC NULLS LAST, p.id LIMIT %(limit)s
"""

_POSTS_SQL = """
    SELECT o.id, o.actor, concat_ws(' and ', o.to_actor, 'lane ' || o.to_lane),
           coalesce(o.subject, o.ref, left(o.body, 80)), o.ref, o.created_at, o.ack_due_at,
           coalesce(o.ack_due_at < clock_timestamp() AND o.acked_at IS NULL, false), o.acked_at,
           (SELECT bus_participation_name(d.participation_id) FROM delivery d
            WHERE d.project_id = o.project_id AND d.post_id = o.id AND d.acked_at = o.acked_at LIMIT 1),
           o.recipients, far.shown, far.acked
    FROM (SELECT * FROM post o WHERE o.project_id = %(project)s ORDER BY o.id DESC LIMIT %(limit)s) AS o
    CROSS JOIN LATERAL (
        SELECT count(*) FILTER (WHERE d.surfaced_at IS NOT NULL OR d.acked_at IS NOT NULL) AS shown,
               count(*) FILTER (WHERE d.acked_at IS NOT NULL) AS acked
        FROM delivery d WHERE d.project_id = o.project_id AND d.post_id = o.id AND d.addressed) AS far
    ORDER BY o.id DESC
"""

_UNACKED_COUNT_SQL = """
    SELECT count(*) FROM (
        SELECT FROM post o WHERE o.project_id = %(project)s AND o.acked_at IS NULL LIMIT %(limit)s) AS unacked
"""

# One more than is shown of each is not asked for: the count says how many there are.
_LEASES_SQL = """
    SELECT l.fence, l.surface, l.mode, l.participation_id, l.actor, l.note, l.acquired_at, l.expires_at,
           count(*) OVER ()
    FROM (SELECT * FROM lease l WHERE l.project_id = %(project)s AND l.ended_at IS NULL
            AND l.expires_at > clock_timestamp() ORDER BY l.id DESC LIMIT %(counted)s) AS l
    ORDER BY l.fence DESC LIMIT %(limit)s
"""

_TASK_COLUMNS_SQL = """
    t.id, t.title, t.lane, t.owner, t.updated_at,
    (SELECT coalesce(b.reason, 'task ' || b.on_task_id) FROM task_blocker b
     WHERE b.project_id = t.project_id AND b.task_id = t.id AND b.resolved_at IS NULL ORDER BY b.id DESC LIMIT 1)
"""
_TASKS_SQL = f"""
    SELECT kind.status, {_TASK_COLUMNS_SQL}
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
_TASK_COUNTS_SQL = """
    SELECT kind.status, (SELECT count(*) FROM (
        SELECT FROM task t WHERE t.project_id = %(project)s AND t.status = kind.status LIMIT %(limit)s) AS counted)
    FROM unnest(%(statuses)s::text[]) AS kind (status)
"""

_LATEST_CLAIMS_SQL = """
    SELECT s.name, s.claimed_as, s.claimed_by, s.claimed_at FROM sequence s
    WHERE s.project_id = %(project)s AND s.claimed_at IS NOT NULL ORDER BY s.claimed_at DESC, s.name LIMIT %(limit)s
"""
_COLUMN_STATUSES = ("open", "assigned", "in_progress", "blocked", "done")


def get_version(conn: Connection, project_id: int) -> str:
    """What stands for the board as it is now: it differs as soon as an event was written, within 15 s of somebody
    being seen, and every 30 s in any case, since leases and deadlines run out by themselves."""
    return str(_fetch_version(conn, project_id)[0])


def list_versions(conn: Connection, project_ids: Collection[int]) -> dict[int, str]:
    """The marks of several projects, by project; those that are gone, or on their way, are left out."""
    rows = conn.fetch_all(
        f"SELECT m.project_id, m.mark FROM project pj CROSS JOIN LATERAL ({_VERSION_SQL}) AS m"
        " WHERE pj.id = ANY (%(projects)s) AND pj.purging_at IS NULL",
        {"projects": sorted(project_ids), "seen": _LAST_SEEN_GRANULARITY_SECONDS, "turn": _MAX_VERSION_AGE_SECONDS},
    )
    return dict(rows)


def get_board(conn: Connection, project_id: int) -> Board:
    """The board of a project. Its mark is read first, so whatever is read beyond it is shown again, and nothing is
    missed."""
    found, seq, at = _fetch_version(conn, project_id)
    project = {"project": project_id}
    people = conn.fetch_all(_PARTICIPANTS_SQL, {**project, "limit": MAX_PARTICIPANTS})
    leases = conn.fetch_all(_LEASES_SQL, {**project, "limit": MAX_LEASES, "counted": _COUNT_CAP})
    statuses = list(_COLUMN_STATUSES[:-1])
    tasks: dict[str, list[Task]] = {status: [] for status in _COLUMN_STATUSES}
    for status, *row in conn.fetch_all(_TASKS_SQL, {**project, "statuses": statuses, "limit": MAX_TASKS_PER_COLUMN}):
        tasks[status].append(Task(*row))
    tasks["done"] = [
        Task(*row) for row in conn.fetch_all(_SHIPPED_TASKS_SQL, {**project, "limit": MAX_TASKS_PER_COLUMN})
    ]
    counts: dict[str, int] = dict(
        conn.fetch_all(_TASK_COUNTS_SQL, {**project, "statuses": list(_COLUMN_STATUSES), "limit": _COUNT_CAP})
    )
    return Board(
        version=found,
        as_of=at,
        last_seq=seq,
        participants=[Participant(*row) for *row, _ in people],
        participant_count=people[0][-1] if people else 0,
        posts=[Post(*row) for row in conn.fetch_all(_POSTS_SQL, {**project, "limit": MAX_POSTS})],
        unacked_count=conn.fetch_one(_UNACKED_COUNT_SQL, {**project, "limit": _COUNT_CAP})[0],
        leases=_build_leases([row[:-1] for row in leases]),
        lease_count=leases[0][-1] if leases else 0,
        task_columns=[TaskColumn(status, tasks[status], counts[status]) for status in _COLUMN_STATUSES],
        latest_claims=[
            LatestClaim(*row) for row in conn.fetch_all(_LATEST_CLAIMS_SQL, {**project, "limit": MAX_LATEST_CLAIMS})
        ],
    )


def _fetch_version(conn: Connection, project_id: int) -> tuple[str, int, datetime]:
    found, seq, at = conn.fetch_one(
        f"SELECT m.mark, m.last_seq, m.at FROM project pj CROSS JOIN LATERAL ({_VERSION_SQL}) AS m WHERE pj.id = %(project)s",
        {"project": project_id, "seen": _LAST_SEEN_GRANULARITY_SECONDS, "turn": _MAX_VERSION_AGE_SECONDS},
    )
    return found, seq, at


def _build_leases(rows: list[tuple[int, str, str, int, str, str | None, datetime, datetime]]) -> list[Lease]:
    actors = {row[0]: row[4] for row in rows}
    clashes = find_contention([row[:4] for row in rows])
    return [
        Lease(*row, contending_actors=tuple(dict.fromkeys(actors[other] for other in clashes.get(row[0], ()))))
        for row in rows
    ]
