"""Who the caller is, who else is here, and what a project-admin may do about it."""

from dataclasses import dataclass
from datetime import datetime

from bus.ctx import Ctx
from bus.db import Connection
from bus.errors import BusError
from bus.rules import validation
from bus.tenancy import participations
from bus.tenancy.caller_queries import fetch_as_caller, paginate
from bus.tenancy.participations import IssuedParticipation


@dataclass(frozen=True, slots=True)
class CallerIdentity:
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
class ParticipantPage:
    """A page of participants, by name; `next_before` asks for the next page."""

    participants: list[Participant]
    next_before: str | None
    unread: int


@dataclass(frozen=True, slots=True)
class RevokeResult:
    """Whose tokens were revoked, and whether any was live."""

    project: str
    participant: str
    revoked: bool


def whoami(conn: Connection, ctx: Ctx) -> CallerIdentity:
    """The caller's identity, project and lane."""
    row = conn.fetch_one(
        "SELECT c.actor, o.handle, pt.label, pj.name, c.is_admin, coalesce(pr.lane, c.lane),"
        " bus_unread(c.project_id, %(me)s) FROM bus_authenticate(%(me)s, %(token)s, false) c"
        " JOIN project pj ON pj.id = c.project_id JOIN owner o ON o.id = c.owner_id"
        " JOIN participant pt ON pt.id = c.participant_id"
        " LEFT JOIN presence pr ON pr.project_id = c.project_id AND pr.participation_id = %(me)s",
        {"me": ctx.participation_id, "token": ctx.token_id},
    )
    return CallerIdentity(*row)


def list_participants(conn: Connection, ctx: Ctx, *, before: str | None = None, limit: int = 200) -> ParticipantPage:
    """Everyone who is in the project, by name; `before` is the `next_before` of the page before."""
    if before is not None:
        validation.name(before, "before")
    validation.integer(limit, "limit", 1, 200)
    unread, rows = fetch_as_caller(
        conn,
        ctx,
        # The owner, who acts in the web and bears no label, goes by the handle and needs no token.
        "SELECT named.name, bus_participation_name(p.id), pt.kind, coalesce(pr.lane, p.lane), p.is_admin,"
        " pt.label = '' OR EXISTS (SELECT FROM token t WHERE t.participation_id = p.id AND bus_token_is_live(t.revoked_at, t.expires_at)), pr.last_seen"
        " FROM participation p JOIN participant pt ON pt.id = p.participant_id JOIN owner o ON o.id = pt.owner_id"
        " CROSS JOIN LATERAL (SELECT bus_short_name(o.handle, pt.label) AS name) AS named"
        " LEFT JOIN presence pr ON pr.project_id = p.project_id AND pr.participation_id = p.id"
        " WHERE p.project_id = %(project)s AND p.removed_at IS NULL AND pt.removed_at IS NULL"
        " AND named.name > %(before)s ORDER BY named.name LIMIT %(limit)s",
        "r.name",
        before=before or "",
        limit=limit + 1,
    )
    rows, next_before = paginate(rows, limit)
    return ParticipantPage([Participant(*row) for row in rows], next_before, unread)


def provision(
    conn: Connection,
    ctx: Ctx,
    name: str,
    *,
    kind: str | None = None,
    lane: str | None = None,
    is_admin: bool = False,
) -> IssuedParticipation:
    """As project-admin, let a participant into the caller's project and mint its token.

    Raises:
        BusError: `forbidden` unless the caller is project-admin; `conflict` when it is here already.
    Locks: the project clock, then the owner.
    """
    actor = authorize_admin(conn, ctx)
    return participations.grant_participation(
        conn, ctx.project_id, name, kind=kind, lane=lane, is_admin=is_admin, actor=actor
    )


def rotate(conn: Connection, ctx: Ctx, name: str) -> IssuedParticipation:
    """As project-admin, mint a new token for a participant and then revoke its older ones."""
    actor = authorize_admin(conn, ctx)
    return participations.rotate_tokens(conn, ctx.project_id, name, actor=actor)


def revoke(conn: Connection, ctx: Ctx, name: str) -> RevokeResult:
    """As project-admin, revoke every token of a participant."""
    actor = authorize_admin(conn, ctx)
    found, count = participations.revoke_tokens(conn, ctx.project_id, name, actor=actor)
    (project,) = conn.fetch_one("SELECT name FROM project WHERE id = %s", (ctx.project_id,))
    return RevokeResult(project, found.label, count > 0)


def authorize_admin(conn: Connection, ctx: Ctx) -> str:
    """Check the caller and lock the project clock, in the first statement of an administrative verb.

    Returns:
        The caller's qualified name.
    Raises:
        BusError: `forbidden` unless the caller is project-admin.
    """
    _, actor, is_admin = conn.fetch_one(
        "SELECT * FROM bus_authenticate_and_lock(%s, %s)", (ctx.participation_id, ctx.token_id)
    )
    if not is_admin:
        raise BusError("forbidden", "Only a project-admin may do that; ask the owner or an admin of the project.")
    return str(actor)


@dataclass(frozen=True, slots=True)
class CallerStatus:
    """What the door needs to know before it answers a request that is not a tool call."""

    actor: str
    is_admin: bool
    unread: int


def get_caller_status(conn: Connection, ctx: Ctx) -> CallerStatus:
    """Check the caller: raises what any call of a bad token raises."""
    return CallerStatus(
        *conn.fetch_one(
            "SELECT c.actor, c.is_admin, bus_unread(c.project_id, %(me)s) FROM bus_authenticate(%(me)s, %(token)s, false) c",
            {"me": ctx.participation_id, "token": ctx.token_id},
        )
    )
