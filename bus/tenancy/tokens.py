"""Tokens: the bearer secrets of participations. A token is shown once; only its SHA-256 is stored."""

from dataclasses import dataclass
from datetime import datetime, timedelta

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import ARRAY

from bus.ctx import Ctx
from bus.db import Connection, from_row
from bus.errors import NotFound
from bus.rules import validation
from bus.scopes import FULL_SCOPE, SCOPES, Scope
from bus.tenancy import (
    audit,
    authentication,
    participant_authority,
    participation_lanes,
    participation_queries,
    participations,
    project_locks,
    token_store,
)
from bus.tenancy.invite_authority import end_unauthorized_invites
from bus.tenancy.participation_queries import Participation
from bus.tenancy.participations import IssuedParticipation
from bus.tenancy.project_locks import LockedProject
from bus.tenancy.tables import client_grant, token
from bus.tenancy.token_store import GeneratedToken


@dataclass(frozen=True, slots=True)
class Token:
    """A token as its owner sees it.

    Attributes:
        state: live, expired or revoked.
        legacy: whether the original issued it, so that it has no prefix by which a secret scanner recognises it.
        scope: what it allows.
    """

    id: int
    hint: str
    label: str
    state: str
    created_at: datetime
    last_used_at: datetime | None
    expires_at: datetime | None
    revoked_at: datetime | None
    legacy: bool
    scope: Scope


@dataclass(frozen=True, slots=True)
class TokenStatus:
    """The validity of a token, and whose it is."""

    project: str
    label: str
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None


@dataclass(frozen=True, slots=True)
class RevokeResult:
    """The participant whose tokens were revoked, and how many it had."""

    project: str
    participant: str
    revoked: int


def add(
    conn: Connection,
    project_id: int,
    reference: str | int,
    *,
    label: str = "",
    ttl: timedelta | None = None,
    member_id: int | None = None,
    scope: Scope = FULL_SCOPE,
    actor: str,
) -> IssuedParticipation:
    """Issue one more token of a participation; the others stay valid.

    Args:
        reference: as for `participation_queries.get`.
        member_id: an owner with a role in the project, whose participant it is; None for the project's owner.
        label: the owner's description of the token, at most 64 characters; may be empty.
        scope: what the token allows.
    Locks: the project clock, then the owner.
    """
    if label:
        validation.name(label, "label")
    locked_project = project_locks.lock_project(conn, project_id, member_id=member_id)
    participation = participation_queries.get_token_holder(conn, project_id, reference, host_id=locked_project.host_id)
    return add_to_participation(conn, locked_project, participation, label=label, ttl=ttl, scope=scope, actor=actor)


def add_to_participation(
    conn: Connection,
    locked_project: LockedProject,
    participation: Participation,
    *,
    label: str = "",
    ttl: timedelta | None = None,
    scope: Scope = FULL_SCOPE,
    actor: str,
) -> IssuedParticipation:
    """As `add`, in a project that is locked."""
    generated = token_store.generate(conn, participation.id, label=label, ttl=ttl, scope=scope)
    participation_lanes.join_current_lane(conn, locked_project.project_id, participation.id)
    participations.record_act(
        conn,
        locked_project,
        participation.owner_id,
        actor,
        "token.add",
        participation.actor,
        token=generated.hint,
        label=label,
        **audit.scope_detail(scope),
    )
    return _build_issued(locked_project, participation, generated, scope)


def rotate(
    conn: Connection,
    project_id: int,
    reference: str | int,
    *,
    ttl: timedelta | None = None,
    member_id: int | None = None,
    scope: Scope | None = None,
    actor: str,
) -> IssuedParticipation:
    """Issue a new token of a participation; revoke the older ones and the open invites that were created with them.

    Args:
        reference: as for `participation_queries.get`.
        member_id: as for `add`.
        scope: what the token allows; None: as much as the tokens that it replaces.
    Raises:
        BusError: `unknown_recipient` when no participant of the project has that name.
    Locks: the project clock, then the owner, then the tokens.
    """
    locked_project = project_locks.lock_project(conn, project_id, member_id=member_id)
    return _rotate(conn, locked_project, reference, ttl=ttl, scope=scope, actor=actor)


def rotate_as_admin(conn: Connection, ctx: Ctx, name: str) -> IssuedParticipation:
    """As `rotate`, in the caller's project and as its project-admin."""
    actor = authentication.authorize_admin(conn, ctx)
    return _rotate(conn, project_locks.lock_project_owner(conn, ctx.project_id), name, actor=actor)


def _rotate(
    conn: Connection,
    locked_project: LockedProject,
    reference: str | int,
    *,
    ttl: timedelta | None = None,
    scope: Scope | None = None,
    actor: str,
) -> IssuedParticipation:
    participation = participation_queries.get_token_holder(
        conn, locked_project.project_id, reference, host_id=locked_project.host_id
    )
    scope = scope or _find_scope_to_keep(conn, participation.id)
    generated = token_store.generate(conn, participation.id, ttl=ttl, scope=scope)
    revoked = token_store.revoke_all(conn, [participation.id], except_token_id=generated.id)
    participation_lanes.join_current_lane(conn, locked_project.project_id, participation.id)
    participations.record_act(
        conn,
        locked_project,
        participation.owner_id,
        actor,
        "token.rotate",
        participation.actor,
        token=generated.hint,
        revoked=revoked,
        **audit.scope_detail(scope),
    )
    end_unauthorized_invites(conn, locked_project.owner_id, locked_project.project_id, participation.id, actor=actor)
    return _build_issued(locked_project, participation, generated, scope)


def _find_scope_to_keep(conn: Connection, participation_id: int) -> Scope:
    """Return the widest scope of the live tokens of a participation; of its newest token, if none is live."""
    is_live = sa.func.bus_token_is_live(token.c.revoked_at, token.c.expires_at)
    rank = sa.func.array_position(sa.literal(list(SCOPES), ARRAY(sa.Text)), token.c.scope)
    query = (
        sa.select(token.c.scope)
        .where(token.c.participation_id == participation_id, is_pasted())
        .order_by(is_live.desc(), sa.case((is_live, rank), else_=0).desc(), token.c.id.desc())
        .limit(1)
    )
    scope: Scope | None = conn.execute(query).scalar_one_or_none()
    return scope or FULL_SCOPE


def _build_issued(
    project: LockedProject, participation: Participation, generated: GeneratedToken, scope: Scope
) -> IssuedParticipation:
    return IssuedParticipation(
        participation_id=participation.id,
        project=project.project_name,
        # For its owner, who gets the token.
        participant=participation.actor.rpartition("/")[2],
        actor=participation.actor,
        kind=participation.kind,
        lane=participation.granted_lane,
        is_admin=participation.is_admin,
        token=generated.text,
        scope=scope,
    )


def revoke_all(
    conn: Connection, project_id: int, reference: str | int, *, acting_owner_id: int | None = None, actor: str
) -> tuple[Participation, int]:
    """Revoke all tokens of a participation, and the open invites that were created with them; it stays in the project.

    Args:
        acting_owner_id: as for `participant_authority.require_authority`.
    Returns:
        The participation, and how many tokens were revoked.
    Locks: the project clock, then the owner, then the tokens.
    """
    locked_project = project_locks.lock_project(conn, project_id, grants=False)
    return _revoke_all(conn, locked_project, reference, acting_owner_id, actor=actor)


def revoke_as_admin(conn: Connection, ctx: Ctx, name: str) -> RevokeResult:
    """As `revoke_all`, in the caller's project and as its project-admin."""
    actor = authentication.authorize_admin(conn, ctx)
    locked_project = project_locks.lock_project_owner(conn, ctx.project_id, grants=False)
    participation, revoked = _revoke_all(conn, locked_project, name, None, actor=actor)
    return RevokeResult(project=locked_project.project_name, participant=participation.label, revoked=revoked)


def _revoke_all(
    conn: Connection, locked_project: LockedProject, reference: str | int, acting_owner_id: int | None, *, actor: str
) -> tuple[Participation, int]:
    participation = participation_queries.get_token_holder(conn, locked_project.project_id, reference)
    participant_authority.require_authority(
        conn, locked_project.project_id, participation.owner_id, participation.actor, acting_owner_id
    )
    revoked = token_store.revoke_all(conn, [participation.id])
    if revoked:
        participations.record_act(
            conn,
            locked_project,
            participation.owner_id,
            actor,
            "token.revoke",
            participation.actor,
            revoked=revoked,
        )
        end_unauthorized_invites(
            conn, locked_project.owner_id, locked_project.project_id, participation.id, actor=actor
        )
    return participation, revoked


def revoke(conn: Connection, project_id: int, token_id: int, *, acting_owner_id: int | None = None, actor: str) -> bool:
    """Revoke one token of a project, and the open invites that were created with it; return whether anything changed.

    Args:
        acting_owner_id: as for `participant_authority.require_authority`.
    Raises:
        BusError: `not_found` when the project has no such token.
    Locks: the project clock, then the owner, then the token.
    """
    locked_project = project_locks.lock_project(conn, project_id, grants=False)
    row = conn.fetch_one_or_none(
        "SELECT t.hint, bus_participation_name(p.id), p.id, pt.owner_id"
        " FROM token t JOIN participation p ON p.id = t.participation_id"
        " JOIN participant pt ON pt.id = p.participant_id WHERE t.id = %s AND p.project_id = %s",
        (token_id, project_id),
    )
    if row is None:
        raise NotFound("token")
    hint, name, participation_id, participant_owner_id = row
    participant_authority.require_authority(conn, project_id, participant_owner_id, name, acting_owner_id)
    if not token_store.revoke(conn, token_id):
        return False
    participations.record_act(conn, locked_project, participant_owner_id, actor, "token.revoke", name, token=hint)
    end_unauthorized_invites(conn, locked_project.owner_id, project_id, participation_id, actor=actor)
    return True


def list_tokens(conn: Connection, participation_id: int, *, before: int | None = None, limit: int = 50) -> list[Token]:
    """List the tokens of a participation, newest first, at most `limit`, with ids below `before`.

    Those of connected clients are not among them: bus/tenancy/client_grants.py lists these.
    """
    state = sa.case(
        (token.c.revoked_at.is_not(None), "revoked"),
        (token.c.expires_at <= sa.func.clock_timestamp(), "expired"),
        else_="live",
    ).label("state")
    columns = (token.c.created_at, token.c.last_used_at, token.c.expires_at, token.c.revoked_at, token.c.legacy)
    query = (
        sa.select(token.c.id, token.c.hint, token.c.label, token.c.scope, state, *columns)
        .where(token.c.participation_id == participation_id, is_pasted())
        .order_by(token.c.id.desc())
        .limit(limit)
    )
    if before is not None:
        query = query.where(token.c.id < before)
    return [from_row(Token, row) for row in conn.execute(query)]


def is_pasted() -> sa.ColumnElement[bool]:
    """Whether a token is one that people and agents handle, and not one of a connected client."""
    of_client = sa.exists().where(client_grant.c.token_id == token.c.id)
    return sa.and_(token.c.parent_id.is_(None), sa.not_(of_client))


@dataclass(frozen=True, slots=True)
class TokenUse:
    """Whether a token has been used: the participant, the last use, and the client that the participant calls with."""

    label: str
    last_used_at: datetime | None
    client: str | None


def find_use(conn: Connection, project_id: int, participation_id: int, token_id: int) -> TokenUse | None:
    """Return the use of a token of a participation, or None if the project has no such token."""
    return conn.fetch_one_or_none_as(
        TokenUse,
        "SELECT pt.label, t.last_used_at, pr.client FROM token t JOIN participation p ON p.id = t.participation_id"
        " JOIN participant pt ON pt.id = p.participant_id"
        " LEFT JOIN presence pr ON pr.project_id = p.project_id AND pr.participation_id = p.id"
        " WHERE p.project_id = %s AND p.id = %s AND t.id = %s",
        (project_id, participation_id, token_id),
    )


def find_caller(conn: Connection, sha256: bytes) -> Ctx | None:
    """Return the immutable facts that a token resolves to, or None where no such token was ever issued.

    This does not check that the token is still valid: the statement of each call does.
    """
    return conn.fetch_one_or_none_as(
        Ctx,
        "SELECT p.project_id, p.id AS participation_id, p.participant_id, pj.owner_id, t.id AS token_id,"
        " t.scope, t.parent_id IS NOT NULL AS can_step_up FROM token t"
        " JOIN participation p ON p.id = t.participation_id JOIN project pj ON pj.id = p.project_id"
        " WHERE t.sha256 = %s",
        (sha256,),
    )


def find_status(conn: Connection, sha256: bytes) -> TokenStatus | None:
    """Return the status of a token, or None where no such token was ever issued."""
    return conn.fetch_one_or_none_as(
        TokenStatus,
        "SELECT pj.name AS project, pt.label, t.created_at, t.expires_at, t.revoked_at FROM token t"
        " JOIN participation p ON p.id = t.participation_id JOIN project pj ON pj.id = p.project_id"
        " JOIN participant pt ON pt.id = p.participant_id WHERE t.sha256 = %s",
        (sha256,),
    )


def record_use(conn: Connection, token_ids: list[int]) -> None:
    """Set when tokens were last used, at a resolution of one minute: more recently used ones are left unchanged.

    Locks: the tokens, by ascending id.
    """
    conn.execute(
        "WITH used AS (SELECT t.id FROM token t WHERE t.id = ANY (%s)"
        " AND (t.last_used_at IS NULL OR t.last_used_at < clock_timestamp() - interval '1 minute')"
        " ORDER BY t.id FOR NO KEY UPDATE)"
        " UPDATE token t SET last_used_at = clock_timestamp() FROM used WHERE t.id = used.id",
        (token_ids,),
    )
