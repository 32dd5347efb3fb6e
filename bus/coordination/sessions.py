"""Sessions: several conversations of one participation, each with its own cursor, leases, tasks and waits.

A session begins with the first call that names its key, and ends when its client says so, after a silence, or with its
token. See docs/explanation/sessions.md.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TypeAlias

from bus.coordination import leases, presence, surfacing
from bus.ctx import Ctx
from bus.db import Connection
from bus.errors import InvalidArgument

# Until a gateway renews its report that a call waits or a stream is open.
WAKE_TTL_SECONDS = 45.0
# Until the hooks of a client ask for mail again.
HOOKS_TTL_SECONDS = 600.0
MAX_MAIL_POSTS = 5
MAX_MAIL_BODY_LENGTH = 200
MAX_HOLDERS = 20
_UNREAD_CAP = 100
BATCH_SIZE = 50
# A lease of a session that the gateway has not written within this time was taken after the end of the session.
_UNWRITTEN_SECONDS = 60

SessionId: TypeAlias = tuple[int, str | None]
"""A participation, and the key of its session or None for calls that name none."""


@dataclass(frozen=True, slots=True)
class MailPost:
    """A post that a session has not been shown, with the beginning of its body."""

    post_id: int
    sender: str
    to_lane: str | None
    subject: str | None
    ref: str | None
    body: str
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Holder:
    """A live lease of another participant, or of the labelled session of the same participation."""

    actor: str
    surface: str
    expires_at: datetime
    expires_in_seconds: int
    note: str | None
    mode: str
    session: str | None = None


@dataclass(frozen=True, slots=True)
class Look:
    """What a session should know now.

    Attributes:
        session: its label.
        unread: the unacked posts of its participation, counted up to 100; as whoami reports them.
        unshown: those that the session has not been shown, counted up to 100; None unless asked for.
        posts: the oldest of these.
        holders: leases of others that overlap a surface, without those that the session shares; None unless asked for.
    """

    session: str
    unread: int
    unshown: int | None = None
    posts: list[MailPost] | None = None
    holders: list[Holder] | None = None


@dataclass(frozen=True, slots=True)
class SessionEnd:
    """The end of a session: whether it was live, and the number of its released leases and returned tasks."""

    session: str
    ended: bool
    released: int
    requeued: int


def look(
    conn: Connection,
    ctx: Ctx,
    *,
    hooks: bool | None = None,
    mail: bool = False,
    announce: bool = True,
    surface: str | None = None,
) -> Look:
    """Record that the caller's session is alive, and return what it has not been shown. Call it inside a transaction.

    Args:
        hooks: whether its client shows mail beside tool calls; None leaves that unchanged.
        mail: whether to return posts that the session has not been shown.
        announce: whether to record the returned posts as shown to the session.
        surface: a file or glob whose holders to return.
    Raises:
        InvalidArgument: the caller names no session, or the surface is not valid.
    """
    key = require_session(ctx)
    label, actor, unread = conn.fetch_one(
        "SELECT bus_session_label(%(key)s), c.actor, bus_unread(c.project_id, %(me)s)"
        " FROM bus_authenticate(%(me)s, %(token)s, false) c",
        {"key": key, "me": ctx.participation_id, "token": ctx.token_id},
    )
    params = {
        "project": ctx.project_id,
        "me": ctx.participation_id,
        "key": key,
        "token": ctx.token_id,
        "ttl": HOOKS_TTL_SECONDS,
        "hooks": hooks,
    }
    conn.execute(
        "INSERT INTO agent_session AS s"
        " (project_id, participation_id, key, token_id, started_at, last_seen, hooks_until)"
        " VALUES (%(project)s, %(me)s, %(key)s, %(token)s, clock_timestamp(), clock_timestamp(),"
        "  CASE WHEN %(hooks)s::boolean THEN clock_timestamp() + make_interval(secs => %(ttl)s) END)"
        " ON CONFLICT ON CONSTRAINT agent_session_pkey DO UPDATE SET last_seen = excluded.last_seen, ended_at = NULL,"
        "  token_id = excluded.token_id,"
        "  started_at = CASE WHEN s.ended_at IS NULL THEN s.started_at ELSE excluded.started_at END,"
        "  hooks_until = CASE WHEN %(hooks)s::boolean IS NULL THEN s.hooks_until ELSE excluded.hooks_until END",
        params,
    )
    unshown, mail_posts = _find_mail(conn, ctx, announce=announce) if mail and unread else (0, [])
    return Look(
        session=label,
        unread=unread,
        unshown=unshown if mail else None,
        posts=mail_posts if mail else None,
        holders=None if surface is None else _find_holders(conn, ctx, surface, actor),
    )


def require_session(ctx: Ctx) -> str:
    """Return the key of the caller's session.

    Raises:
        InvalidArgument: the caller names none.
    """
    if ctx.session is None:
        raise InvalidArgument("Name the session in the header X-Bus-Session.")
    return ctx.session


def _find_mail(conn: Connection, ctx: Ctx, *, announce: bool) -> tuple[int, list[MailPost]]:
    params = {"project": ctx.project_id, "me": ctx.participation_id, "key": ctx.session, "cap": _UNREAD_CAP}
    # A post that another session was woken for is shown again if that session does not ack it.
    rows = conn.fetch_all(
        "SELECT d.post_id FROM delivery d WHERE d.project_id = %(project)s AND d.participation_id = %(me)s"
        " AND d.acked_at IS NULL"
        " AND NOT coalesce(d.offered_until > clock_timestamp() AND d.offered_session <> %(key)s, false)"
        " AND NOT EXISTS (SELECT FROM session_post h WHERE h.project_id = d.project_id"
        "  AND h.participation_id = d.participation_id AND h.key = %(key)s AND h.post_id = d.post_id)"
        " ORDER BY d.post_id LIMIT %(cap)s",
        params,
    )
    if not rows:
        return 0, []
    post_ids = [post_id for (post_id,) in rows[:MAX_MAIL_POSTS]]
    shown = conn.fetch_all_as(
        MailPost,
        "SELECT o.id AS post_id, o.actor AS sender, o.to_lane, o.subject, o.ref, left(o.body, %(length)s) AS body,"
        " o.created_at FROM post o WHERE o.project_id = %(project)s AND o.id = ANY (%(posts)s) ORDER BY o.id",
        {"project": ctx.project_id, "posts": post_ids, "length": MAX_MAIL_BODY_LENGTH},
    )
    if announce:
        record_shown(conn, [(ctx.project_id, ctx.participation_id, str(ctx.session), id_) for id_ in post_ids])
        surfacing.mark_surfaced(conn, {(ctx.project_id, ctx.participation_id, id_): 0.0 for id_ in post_ids})
    return len(rows), shown


def _find_holders(conn: Connection, ctx: Ctx, surface: str, own_name: str) -> list[Holder]:
    page = leases.list_leases(conn, ctx, surface=surface)
    is_sharing = any(lease.mine and lease.mode == "shared" for lease in page.leases)
    return [
        Holder(
            actor=lease.actor,
            surface=lease.surface,
            expires_at=lease.expires_at,
            expires_in_seconds=lease.expires_in_seconds,
            note=lease.note,
            mode=lease.mode,
            session=lease.session if lease.actor == own_name else None,
        )
        for lease in page.leases
        if not lease.mine and not (is_sharing and lease.mode == "shared")
    ][:MAX_HOLDERS]


def end(conn: Connection, ctx: Ctx) -> SessionEnd:
    """End the caller's session and its sub-agents: its leases are released and its tasks in progress return to open.

    A later call begins it again. Call it inside a transaction.

    Raises:
        InvalidArgument: the caller names no session.
    Locks: the cursor of ended sessions, the project clock, then the session, leases, tasks and posts.
    """
    key = require_session(ctx)
    (project_id,) = conn.fetch_one(
        "SELECT project_id FROM bus_authenticate(%s, %s, true)", (ctx.participation_id, ctx.token_id)
    )
    _fold_cursors(conn, project_id, [(ctx.participation_id, key)])
    conn.execute("SELECT bus_lock_open_clock(%s)", (project_id,))
    label, ended, released, requeued = conn.fetch_one(
        "SELECT bus_session_label(%(key)s), e.* FROM bus_end_session(%(project)s, %(me)s, %(key)s, 'ended') e",
        {"project": project_id, "me": ctx.participation_id, "key": key},
    )
    return SessionEnd(session=label, ended=ended, released=released, requeued=requeued)


# Sessions whose caller is silent or has lost its access, and holders that no gateway has written as a session.
_STALE_SQL = f"""
    SELECT s.participation_id, s.key,
           CASE WHEN s.last_seen <= clock_timestamp() - make_interval(secs => {{window}}) THEN 'silent'
                ELSE 'revoked' END AS reason
    FROM agent_session s
    WHERE s.project_id = {{project}} AND s.ended_at IS NULL
      AND (s.last_seen <= clock_timestamp() - make_interval(secs => {{window}})
           OR s.token_id IS NOT NULL AND NOT EXISTS (
                SELECT FROM token t JOIN participation p ON p.id = t.participation_id
                WHERE t.id = bus_lasting_token(s.token_id) AND p.removed_at IS NULL
                  AND bus_token_is_live(t.revoked_at, t.expires_at)))
    UNION
    SELECT l.participation_id, l.session_key, 'silent' FROM lease l
    WHERE l.project_id = {{project}} AND l.ended_at IS NULL AND l.session_key IS NOT NULL
      AND l.acquired_at <= clock_timestamp() - make_interval(secs => {_UNWRITTEN_SECONDS})
      AND NOT EXISTS (
        SELECT FROM agent_session s WHERE s.project_id = l.project_id AND s.participation_id = l.participation_id
          AND s.key = l.session_key AND s.ended_at IS NULL)
"""
_GONE_WINDOW_SQL = "(SELECT own.gone_window_seconds FROM project own WHERE own.id = %(project)s)"


def list_projects_with_stale_sessions(conn: Connection, after_project_id: int = 0) -> list[int]:
    """List the projects after `after_project_id`, by id, that have a session to end."""
    rows = conn.fetch_all(
        "SELECT pj.id FROM project pj WHERE pj.id > %s AND pj.archived_at IS NULL AND pj.purging_at IS NULL"
        f" AND EXISTS ({_STALE_SQL.format(project='pj.id', window='pj.gone_window_seconds')})"
        " ORDER BY pj.id LIMIT 200",
        (after_project_id,),
    )
    return [project_id for (project_id,) in rows]


def end_stale_sessions(conn: Connection, project_id: int) -> int:
    """End sessions that have been silent for the project's gone window, or whose token or participation has ended.

    Returns:
        The number of sessions that were found.
    Locks: as for `end`, in the order of the sessions.
    """
    rows = conn.fetch_all(
        f"SELECT * FROM ({_STALE_SQL.format(project='%(project)s', window=_GONE_WINDOW_SQL)}) AS stale"
        " ORDER BY participation_id, key LIMIT %(limit)s",
        {"project": project_id, "limit": BATCH_SIZE},
    )
    if not rows:
        return 0
    _fold_cursors(conn, project_id, [(participation_id, key) for participation_id, key, _ in rows])
    conn.execute("SELECT bus_lock_clock(%s)", (project_id,))
    row = conn.fetch_one_or_none("SELECT 1 FROM project_clock WHERE project_id = %s AND NOT closed", (project_id,))
    if row is None:
        return 0
    for participation_id, key, reason in rows:
        conn.execute(
            "SELECT bus_end_session(%(project)s, %(participation)s, %(key)s, %(reason)s,"
            f" CASE WHEN %(reason)s = 'silent' THEN clock_timestamp() - make_interval(secs => {_GONE_WINDOW_SQL}) END)",
            {"project": project_id, "participation": participation_id, "key": key, "reason": reason},
        )
    conn.notify_on_commit(project_id, "ledger", "leases", "tasks", "inbox", "presence")
    return len(rows)


def _fold_cursors(conn: Connection, project_id: int, sessions: Sequence[tuple[int, str]]) -> None:
    conn.execute(
        "SELECT bus_fold_session_cursors(%s, %s::bigint[], %s::text[])",
        (project_id, [participation_id for participation_id, _ in sessions], [key for _, key in sessions]),
    )


def record_seen(conn: Connection, seen: Mapping[tuple[int, str], tuple[float, int | None]]) -> None:
    """Record when sessions were last seen, in one batch. A sighting after its end begins a session again.

    Args:
        seen: seconds since the sighting, and the token, by participation id and session key.
    Locks: the sessions, by ascending project, participation and key.
    """
    ids = sorted(seen)
    conn.execute(
        "INSERT INTO agent_session AS s (project_id, participation_id, key, token_id, started_at, last_seen)"
        " SELECT p.project_id, p.id, u.key, u.token, u.at, u.at"
        " FROM (SELECT u.id, u.key, u.token, clock_timestamp() - make_interval(secs => u.age) AS at"
        "  FROM unnest(%s::bigint[], %s::text[], %s::bigint[], %s::float8[]) AS u (id, key, token, age)) AS u"
        " JOIN participation p ON p.id = u.id ORDER BY p.project_id, p.id, u.key"
        " ON CONFLICT ON CONSTRAINT agent_session_pkey DO UPDATE"
        " SET last_seen = greatest(s.last_seen, excluded.last_seen), token_id = excluded.token_id,"
        "  started_at = CASE WHEN excluded.last_seen > s.ended_at THEN excluded.last_seen ELSE s.started_at END,"
        "  ended_at = CASE WHEN excluded.last_seen > s.ended_at THEN NULL ELSE s.ended_at END",
        (
            [participation_id for participation_id, _ in ids],
            [key for _, key in ids],
            [seen[id_][1] for id_ in ids],
            [seen[id_][0] for id_ in ids],
        ),
    )


def record_shown(conn: Connection, shown: Sequence[tuple[int, int, str, int]]) -> None:
    """Record which posts sessions have been shown.

    Args:
        shown: project, participation, session key and post.
    Locks: the rows, in this order.
    """
    rows = sorted(set(shown))
    conn.execute(
        "INSERT INTO session_post (project_id, participation_id, key, post_id)"
        " SELECT u.* FROM unnest(%s::bigint[], %s::bigint[], %s::text[], %s::bigint[]) AS u (project, id, key, post)"
        " JOIN participation p ON p.id = u.id ORDER BY 1, 2, 3, 4 ON CONFLICT DO NOTHING",
        tuple(list(column) for column in zip(*rows, strict=True)),
    )


@dataclass(frozen=True, slots=True)
class WakeReport:
    """Whether a session, or the calls of a participation that name none, can be woken now.

    Attributes:
        waiting: whether a call waits for its posts.
        listening: whether a stream is open.
    """

    id: SessionId
    waiting: bool
    listening: bool


def report_wake(conn: Connection, reports: Sequence[WakeReport]) -> None:
    """Record how sessions can be woken, until WAKE_TTL_SECONDS have passed. Call it inside a transaction.

    Locks: the rows of presence, then those of sessions, in the order in which a flush of activity takes them.
    """
    awake = {report.id[0] for report in reports if report.waiting or report.listening}
    if awake:
        presence.record_seen(conn, dict.fromkeys(awake, 0.0))
    for statement, with_session in ((_REPORT_PARTICIPATIONS_SQL, False), (_REPORT_SESSIONS_SQL, True)):
        chosen = [report for report in reports if (report.id[1] is not None) == with_session]
        if chosen:
            conn.execute(
                statement,
                {
                    "ids": [report.id[0] for report in chosen],
                    "keys": [report.id[1] for report in chosen],
                    "waiting": [report.waiting for report in chosen],
                    "listening": [report.listening for report in chosen],
                    "ttl": WAKE_TTL_SECONDS,
                },
            )


_REPORTED_SQL = """
    FROM (SELECT u.id, u.key, clock_timestamp() AS at,
                 CASE WHEN u.waiting THEN clock_timestamp() + make_interval(secs => %(ttl)s) END AS waiting_until,
                 CASE WHEN u.listening THEN clock_timestamp() + make_interval(secs => %(ttl)s) END AS listening_until
          FROM unnest(%(ids)s::bigint[], %(keys)s::text[], %(waiting)s::boolean[], %(listening)s::boolean[])
               AS u (id, key, waiting, listening)) AS u
    JOIN participation p ON p.id = u.id WHERE p.removed_at IS NULL ORDER BY p.project_id, p.id, u.key
"""
_REPORT_PARTICIPATIONS_SQL = f"""
    INSERT INTO presence AS pr (project_id, participation_id, last_seen, waiting_until, listening_until)
    SELECT p.project_id, p.id, u.at, u.waiting_until, u.listening_until {_REPORTED_SQL}
    ON CONFLICT ON CONSTRAINT presence_pkey DO UPDATE
    SET waiting_until = excluded.waiting_until, listening_until = excluded.listening_until
"""
# A session that waits again at once has waited since its first wait.
_REPORT_SESSIONS_SQL = f"""
    INSERT INTO agent_session AS s (project_id, participation_id, key, started_at, last_seen, waiting_since,
                                    waiting_until, listening_until)
    SELECT p.project_id, p.id, u.key, u.at, u.at, CASE WHEN u.waiting_until IS NOT NULL THEN u.at END, u.waiting_until,
           u.listening_until {_REPORTED_SQL}
    ON CONFLICT ON CONSTRAINT agent_session_pkey DO UPDATE
    SET waiting_since = CASE WHEN excluded.waiting_until IS NOT NULL AND s.waiting_until > excluded.last_seen
                             THEN s.waiting_since ELSE excluded.waiting_since END,
        waiting_until = excluded.waiting_until, listening_until = excluded.listening_until,
        last_seen = CASE WHEN excluded.waiting_until IS NULL AND excluded.listening_until IS NULL
                         THEN s.last_seen ELSE excluded.last_seen END,
        ended_at = CASE WHEN excluded.waiting_until IS NULL AND excluded.listening_until IS NULL
                        THEN s.ended_at END
"""
