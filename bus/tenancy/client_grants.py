"""Connected clients: OAuth clients that act as a participant with the consent of its owner.

A connection is one row: the consent, its authorization code, and the newest refresh token. It stands on a token of the
participation whose text is known to no one, so whatever revokes the tokens of a participant disconnects its clients.
Access tokens are further tokens with that one as their parent, which each call checks as it checks all others.
Source: docs/decisions/0049-authorization-server.md
"""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from bus import scopes
from bus.db import Connection
from bus.errors import NotFound
from bus.rules import token_format
from bus.scopes import Scope
from bus.tenancy import audit, project_locks, token_store
from bus.tenancy.invite_authority import end_unauthorized_invites

ACCESS_TOKEN_TTL = timedelta(hours=1)
UNUSED_TTL = timedelta(days=30)
"""A connection that is not used for so long ends: its refresh token expires."""
REPEAT_TTL = timedelta(seconds=60)
"""So long, a refresh token that was replaced gets its successor again."""
MAX_LISTED = 200


@dataclass(frozen=True, slots=True)
class ClientGrant:
    """A connection whose project this transaction has locked.

    Attributes:
        token_id: the token on which the connection stands.
        is_live: whether that token is neither revoked nor expired.
        replaced_sha256, replaced_salt: the refresh token before the newest, and what derives the newest from it; both
            None once REPEAT_TTL has passed.
    """

    id: int
    owner_id: int
    project_id: int
    participation_id: int
    actor: str
    token_id: int
    is_live: bool
    client_id: str
    client_name: str
    redirect_uri: str | None
    resource: str
    code_challenge: str | None
    code_used_at: datetime | None
    refresh_sha256: bytes | None
    replaced_sha256: bytes | None
    replaced_salt: bytes | None
    scope: Scope


@dataclass(frozen=True, slots=True)
class ClientTokens:
    """New tokens of a client, which are shown only once."""

    access_token: str = field(repr=False)
    refresh_token: str = field(repr=False)
    expires_in_seconds: int
    scope: Scope


@dataclass(frozen=True, slots=True)
class ConnectedClient:
    """A live connection as the owner sees it.

    Attributes:
        actor: the participant as which it acts.
        scope: what it may do.
        last_used_at: of its access tokens, at a resolution of one minute.
        expires_at: when it ends unless it is used again.
    """

    id: int
    client_id: str
    client_name: str
    project_id: int
    project: str
    participation_id: int
    actor: str
    scope: Scope
    created_at: datetime
    last_used_at: datetime | None
    expires_at: datetime


def lock_by_code(conn: Connection, code: str) -> ClientGrant | None:
    """Return the connection of an authorization code, or None if there is none or it cannot be exchanged.

    A code that was exchanged before may have been stolen, so what it gave is revoked; commit also then.

    Locks: the project clock, the owner, then the connection.
    """
    grant = _lock(conn, "g.code_sha256 = %s", token_format.fingerprint(code))
    if grant is not None and grant.code_used_at is not None:
        revoke(conn, grant, actor=grant.actor, reason="its authorization code was used twice")
        return None
    return grant if grant is not None and grant.is_live else None


def lock_by_refresh_token(conn: Connection, refresh_token: str) -> ClientGrant | None:
    """As `lock_by_code`, for a refresh token: one that was replaced before revokes the whole connection.

    Except, for REPEAT_TTL, the one before the newest: the answer was lost, or two processes of a client share it.
    """
    grant = lock_family(conn, refresh_token)
    if grant is None or not grant.is_live:
        return None
    if token_format.fingerprint(refresh_token) not in (grant.refresh_sha256, grant.replaced_sha256):
        revoke(conn, grant, actor=grant.actor, reason="its refresh token was used twice")
        return None
    return grant


def lock_family(conn: Connection, refresh_token: str) -> ClientGrant | None:
    """Return the connection to which a refresh token belongs or belonged; None if there is none."""
    family = token_format.refresh_token_family(refresh_token)
    return None if family is None else _lock(conn, "g.family_sha256 = %s", token_format.fingerprint(family))


def lock_by_access_token(conn: Connection, access_token: str, resource: str) -> tuple[ClientGrant, int] | None:
    """Return the connection of an access token and the id of that token; None if there is none."""
    sha256 = token_format.access_token_fingerprint(access_token, resource)
    row = conn.fetch_one_or_none("SELECT id, parent_id FROM token WHERE sha256 = %s", (sha256,))
    grant = None if row is None else _lock(conn, "g.token_id = %s", row[1])
    return None if row is None or grant is None else (grant, int(row[0]))


def _lock(conn: Connection, condition: str, *values: Any) -> ClientGrant | None:
    """Lock the project and then the connection; access tokens are added and revoked under the lock of the project."""
    row = conn.fetch_one_or_none(
        "SELECT p.project_id FROM client_grant g JOIN token t ON t.id = g.token_id"
        f" JOIN participation p ON p.id = t.participation_id WHERE {condition}",
        values,
    )
    if row is None:
        return None
    try:
        project_locks.lock_project(conn, row[0], grants=False)
    except NotFound:
        # The project is being deleted.
        return None
    return conn.fetch_one_or_none_as(
        ClientGrant,
        "SELECT g.id, g.owner_id, p.project_id, p.id AS participation_id, bus_participation_name(p.id) AS actor,"
        " g.token_id, bus_token_is_live(t.revoked_at, t.expires_at) AS is_live, g.client_id, g.client_name,"
        " g.redirect_uri, g.resource, g.code_challenge, g.code_used_at, g.refresh_sha256, g.scope,"
        " CASE WHEN g.replaced_at > clock_timestamp() - %s THEN g.replaced_sha256 END AS replaced_sha256,"
        " CASE WHEN g.replaced_at > clock_timestamp() - %s THEN g.replaced_salt END AS replaced_salt"
        " FROM client_grant g JOIN token t ON t.id = g.token_id JOIN participation p ON p.id = t.participation_id"
        f" WHERE {condition} FOR UPDATE OF g",
        (REPEAT_TTL, REPEAT_TTL, *values),
    )


def issue_tokens(
    conn: Connection, grant: ClientGrant, refresh_token: str | None = None, *, scope: Scope | None = None
) -> ClientTokens:
    """Issue an access token and the next refresh token of a connection; the code is used up.

    Older access tokens stay valid until they expire, since calls with them may be on their way.

    Args:
        refresh_token: the one with which the connection was locked; None at the exchange of the code.
        scope: of the access token; None: that of the connection, which is also the limit.
    """
    scope = grant.scope if scope is None else scopes.narrower(scope, grant.scope)
    access_token = token_format.generate_access_token()
    # `least` ignores null.
    (seconds,) = conn.fetch_one(
        "INSERT INTO token (participation_id, parent_id, sha256, hint, scope, expires_at)"
        " SELECT %(participation)s, g.token_id, %(sha256)s, %(hint)s, %(scope)s,"
        " least(clock_timestamp() + %(ttl)s, g.ends_at)"
        " FROM client_grant g WHERE g.id = %(grant)s"
        " RETURNING extract(epoch FROM expires_at - clock_timestamp())",
        {
            "participation": grant.participation_id,
            "sha256": token_format.access_token_fingerprint(access_token, grant.resource),
            "hint": token_format.display_hint(access_token),
            "scope": scope,
            "ttl": ACCESS_TOKEN_TTL,
            "grant": grant.id,
        },
    )
    conn.execute(
        "UPDATE token t SET expires_at = least(clock_timestamp() + %s, g.ends_at), last_used_at ="
        " greatest(t.last_used_at, (SELECT max(child.last_used_at) FROM token child WHERE child.parent_id = t.id))"
        " FROM client_grant g WHERE g.id = %s AND t.id = g.token_id",
        (UNUSED_TTL, grant.id),
    )
    return ClientTokens(access_token, _next_refresh_token(conn, grant, refresh_token), max(1, round(seconds)), scope)


def _next_refresh_token(conn: Connection, grant: ClientGrant, refresh_token: str | None) -> str:
    """Replace the refresh token of a connection, or return what has replaced it already."""
    if refresh_token is None:
        first = token_format.generate_refresh_token()
        family = token_format.refresh_token_family(first)
        assert family is not None
        conn.execute(
            "UPDATE client_grant SET code_used_at = clock_timestamp(), family_sha256 = %s, refresh_sha256 = %s"
            " WHERE id = %s",
            (token_format.fingerprint(family), token_format.fingerprint(first), grant.id),
        )
        return first
    sha256 = token_format.fingerprint(refresh_token)
    if sha256 == grant.replaced_sha256:
        assert grant.replaced_salt is not None
        return token_format.derive_refresh_token(refresh_token, grant.replaced_salt)
    salt = token_format.generate_salt()
    successor = token_format.derive_refresh_token(refresh_token, salt)
    conn.execute(
        "UPDATE client_grant SET refresh_sha256 = %s, replaced_sha256 = %s, replaced_salt = %s,"
        " replaced_at = clock_timestamp() WHERE id = %s",
        (token_format.fingerprint(successor), sha256, salt, grant.id),
    )
    return successor


def revoke(conn: Connection, grant: ClientGrant, *, actor: str, reason: str = "") -> bool:
    """End a connection with all of its tokens; return whether it was live.

    The participant and its other tokens stay.

    Args:
        grant: as it was locked.
        reason: for the audit log.
    """
    if not token_store.revoke(conn, grant.token_id):
        return False
    audit.record(
        conn,
        grant.owner_id,
        actor,
        "client.disconnect",
        grant.actor,
        project_id=grant.project_id,
        client=grant.client_id,
        name=grant.client_name,
        **({"reason": reason} if reason else {}),
    )
    end_unauthorized_invites(conn, grant.owner_id, grant.project_id, grant.participation_id, actor=actor)
    return True


def revoke_access_token(conn: Connection, token_id: int) -> None:
    """Revoke one access token of a connection that is locked; the connection stays."""
    token_store.revoke(conn, token_id)


def disconnect(conn: Connection, owner_id: int, grant_id: int, *, actor: str) -> bool:
    """As `revoke`, for a connection of an owner.

    Raises:
        BusError: `not_found` when the owner has no such connection.
    Locks: the project clock, the owner, then the connection and its tokens.
    """
    grant = _lock(conn, "g.id = %s AND g.owner_id = %s", grant_id, owner_id)
    if grant is None:
        raise NotFound("connected client")
    return revoke(conn, grant, actor=actor)


def list_connected(conn: Connection, owner_id: int, *, participation_id: int | None = None) -> list[ConnectedClient]:
    """List the live connections of an owner, newest first, at most MAX_LISTED.

    Args:
        participation_id: only those that act as this participant.
    """
    return conn.fetch_all_as(
        ConnectedClient,
        "SELECT g.id, g.client_id, g.client_name, g.scope, pj.id AS project_id,"
        " bus_project_name_for(g.owner_id, pj.owner_id, pj.name) AS project,"
        " p.id AS participation_id,"
        " bus_participation_name(p.id) AS actor, g.created_at, greatest(t.last_used_at,"
        "  (SELECT max(child.last_used_at) FROM token child WHERE child.parent_id = t.id)) AS last_used_at,"
        " t.expires_at"
        " FROM client_grant g JOIN token t ON t.id = g.token_id JOIN participation p ON p.id = t.participation_id"
        " JOIN project pj ON pj.id = p.project_id"
        " WHERE g.owner_id = %(owner)s AND g.code_used_at IS NOT NULL"
        " AND (%(participation)s::bigint IS NULL OR p.id = %(participation)s)"
        " AND pj.purging_at IS NULL AND bus_token_is_live(t.revoked_at, t.expires_at)"
        " ORDER BY g.id DESC LIMIT %(limit)s",
        {"owner": owner_id, "participation": participation_id, "limit": MAX_LISTED},
    )
