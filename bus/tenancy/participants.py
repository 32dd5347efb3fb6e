"""Who the caller is, who else is here, and what a project-admin may do about it."""

from dataclasses import dataclass
from datetime import datetime

from bus.ctx import Ctx
from bus.db import Connection
from bus.errors import BusError
from bus.rules import validation
from bus.tenancy import participations
from bus.tenancy.caller_queries import page, read
from bus.tenancy.participations import Grant


@dataclass(frozen=True, slots=True)
class Me:
    """The caller, as its token says."""

    actor: str
    handle: str
    label: str
    project: str
    is_admin: bool
    lane: str | None
    unread: int


@dataclass(frozen=True, slots=True)
class Participant:
    """A participant of the project; `token_active` is false where nobody can act under the name."""

    name: str
    actor: str
    kind: str
    lane: str | None
    is_admin: bool
    token_active: bool
    last_seen: datetime | None


@dataclass(frozen=True, slots=True)
class Participants:
    """A page of participants, by name; `next_before` asks for the next page."""

    participants: list[Participant]
    next_before: str | None
    unread: int


@dataclass(frozen=True, slots=True)
class Revoked:
    """Whose tokens were revoked, and whether any was live."""

    project: str
    participant: str
    revoked: bool


def whoami(conn: Connection, ctx: Ctx) -> Me:
    """The caller's identity, project and lane."""
    row = conn.one(
        "SELECT c.actor, o.handle, pt.label, pj.name, c.is_admin, coalesce(pr.lane, c.lane),"
        " bus_unread(c.project_id, %(me)s) FROM bus_enter(%(me)s, %(token)s, false) c"
        " JOIN project pj ON pj.id = c.project_id JOIN owner o ON o.id = c.owner_id"
        " JOIN participant pt ON pt.id = c.participant_id"
        " LEFT JOIN presence pr ON pr.project_id = c.project_id AND pr.participation_id = %(me)s",
        {"me": ctx.participation_id, "token": ctx.token_id},
    )
    return Me(*row)


def list_(conn: Connection, ctx: Ctx, *, before: str | None = None, limit: int = 200) -> Participants:
    """Everyone who is in the project, by name; `before` is the `next_before` of the page before."""
    if before is not None:
        validation.name(before, "before")
    validation.integer(limit, "limit", 1, 200)
    unread, rows = read(
        conn,
        ctx,
        # The owner, who acts in the web and bears no label, goes by the handle and needs no token.
        "SELECT named.name, bus_actor(p.id), pt.kind, coalesce(pr.lane, p.lane), p.is_admin,"
        " pt.label = '' OR EXISTS (SELECT FROM token t WHERE t.participation_id = p.id AND t.revoked_at IS NULL"
        "         AND (t.expires_at IS NULL OR t.expires_at > clock_timestamp())), pr.last_seen"
        " FROM participation p JOIN participant pt ON pt.id = p.participant_id JOIN owner o ON o.id = pt.owner_id"
        " CROSS JOIN LATERAL (SELECT CASE WHEN pt.label = '' THEN o.handle ELSE pt.label END AS name) AS named"
        " LEFT JOIN presence pr ON pr.project_id = p.project_id AND pr.participation_id = p.id"
        " WHERE p.project_id = %(project)s AND p.removed_at IS NULL AND pt.removed_at IS NULL"
        " AND named.name > %(before)s ORDER BY named.name LIMIT %(limit)s",
        "r.name",
        before=before or "",
        limit=limit + 1,
    )
    rows, next_before = page(rows, limit)
    return Participants([Participant(*row) for row in rows], next_before, unread)


def provision(
    conn: Connection,
    ctx: Ctx,
    name: str,
    *,
    kind: str | None = None,
    lane: str | None = None,
    is_admin: bool = False,
) -> Grant:
    """As project-admin, let a participant into the caller's project and mint its token.

    Raises:
        BusError: `forbidden` unless the caller is project-admin; `conflict` when it is here already.
    Locks: the project clock, then the owner.
    """
    actor = enter_as_admin(conn, ctx)
    return participations.grant(conn, ctx.project_id, name, kind=kind, lane=lane, is_admin=is_admin, actor=actor)


def rotate(conn: Connection, ctx: Ctx, name: str) -> Grant:
    """As project-admin, mint a new token for a participant and then revoke its older ones."""
    actor = enter_as_admin(conn, ctx)
    return participations.rotate(conn, ctx.project_id, name, actor=actor)


def revoke(conn: Connection, ctx: Ctx, name: str) -> Revoked:
    """As project-admin, revoke every token of a participant."""
    actor = enter_as_admin(conn, ctx)
    found, count = participations.revoke(conn, ctx.project_id, name, actor=actor)
    (project,) = conn.one("SELECT name FROM project WHERE id = %s", (ctx.project_id,))
    return Revoked(project, found.label, count > 0)


def enter_as_admin(conn: Connection, ctx: Ctx) -> str:
    """Check the caller and lock the project clock, in the first statement of an administrative verb.

    Returns:
        The caller's qualified name.
    Raises:
        BusError: `forbidden` unless the caller is project-admin.
    """
    _, actor, is_admin = conn.one("SELECT * FROM bus_enter_locked(%s, %s)", (ctx.participation_id, ctx.token_id))
    if not is_admin:
        raise BusError("forbidden", "Only a project-admin may do that; ask the owner or an admin of the project.")
    return str(actor)


@dataclass(frozen=True, slots=True)
class Standing:
    """What the door needs to know before it answers a request that is not a tool call."""

    actor: str
    is_admin: bool
    unread: int


def standing(conn: Connection, ctx: Ctx) -> Standing:
    """Check the caller: raises what any call of a bad token raises."""
    return Standing(
        *conn.one(
            "SELECT c.actor, c.is_admin, bus_unread(c.project_id, %(me)s) FROM bus_enter(%(me)s, %(token)s, false) c",
            {"me": ctx.participation_id, "token": ctx.token_id},
        )
    )
