"""The consent of an owner that an OAuth client acts as one of its participants; it gives an authorization code.

The consent is a connection, which stands on a token of the participation whose text is known to no one.
"""

from dataclasses import dataclass
from datetime import timedelta

import sqlalchemy as sa

from bus import scopes
from bus.db import Connection
from bus.errors import BusError, NotFound
from bus.rules import token_format, validation
from bus.scopes import FULL_SCOPE, Scope
from bus.tenancy import audit, participation_queries, participations, project_locks, tokens
from bus.tenancy.participations import IssuedParticipation
from bus.tenancy.tables import client_grant

CODE_TTL = timedelta(minutes=2)


DEVICE_CODE_TTL = timedelta(minutes=10)
"""Since the owner has decided; the device polls at intervals."""


@dataclass(frozen=True, slots=True)
class ConsentRequest:
    """What a client asks for, as it was validated and shown to the owner.

    Attributes:
        redirect_uri, code_challenge: None for a machine without a browser.
        scope: what the owner granted of what it asked for.
        device_sha256: the SHA-256 of the device code, which is the authorization code then.
    """

    client_id: str
    client_name: str
    redirect_uri: str | None
    resource: str
    code_challenge: str | None
    scope: Scope = FULL_SCOPE
    device_sha256: bytes | None = None


def connect_participant(
    conn: Connection,
    owner_id: int,
    participation_id: int,
    request: ConsentRequest,
    *,
    ttl: timedelta | None,
    actor: str,
) -> str:
    """Let a client act as a participant of the owner that is in a project in which the owner acts.

    Args:
        ttl: how long at most; None: as long as the client uses it.
    Returns:
        The authorization code, valid for CODE_TTL. That of a device is its device code, and what is returned is of no
        use.
    Raises:
        BusError: `not_found` when the owner has no such participation; `forbidden` when the project is archived.
        OwnerSuspended: the owner is suspended.
    Locks: the project clock, then the owner.
    """
    row = conn.fetch_one_or_none(
        "SELECT p.project_id FROM participation p JOIN participant pt ON pt.id = p.participant_id"
        " WHERE p.id = %s AND pt.owner_id = %s AND p.removed_at IS NULL",
        (participation_id, owner_id),
    )
    if row is None:
        raise NotFound("participant in the project")
    locked_project = project_locks.lock_project(conn, row[0], member_id=owner_id)
    participation = participation_queries.get_token_holder(
        conn, locked_project.project_id, participation_id, host_id=owner_id
    )
    issued = tokens.add_to_participation(
        conn,
        locked_project,
        participation,
        label=request.client_name,
        ttl=_code_ttl(request),
        scope=request.scope,
        actor=actor,
    )
    return _record_consent(conn, owner_id, locked_project.project_id, issued, request, ttl, actor)


def connect_new_participant(
    conn: Connection,
    owner_id: int,
    project_id: int,
    name: str,
    lane: str | None,
    request: ConsentRequest,
    *,
    ttl: timedelta | None,
    actor: str,
) -> str:
    """As `connect_participant`, with a participant that joins the project, new or of other projects of the owner.

    Raises:
        BusError: `conflict` when a participant of that name is in the project already.
    """
    label = validation.label(name, "name")
    locked_project = project_locks.lock_project(conn, project_id, member_id=owner_id)
    if participation_queries.find(conn, project_id, f"{locked_project.host_handle}/{label}", "name") is not None:
        raise BusError(
            "conflict", f"name {label} is in this project already: choose that participant, or another name."
        )
    issued = participations.join_locked_project(
        conn, locked_project, label, lane=lane, ttl=_code_ttl(request), scope=request.scope, actor=actor
    )
    return _record_consent(conn, owner_id, project_id, issued, request, ttl, actor)


def _code_ttl(request: ConsentRequest) -> timedelta:
    return CODE_TTL if request.device_sha256 is None else DEVICE_CODE_TTL


def _record_consent(
    conn: Connection,
    owner_id: int,
    project_id: int,
    issued: IssuedParticipation,
    request: ConsentRequest,
    ttl: timedelta | None,
    actor: str,
) -> str:
    # The text of this token is dropped here.
    caller = tokens.find_caller(conn, token_format.fingerprint(issued.token))
    assert caller is not None
    assert caller.token_id is not None
    code = token_format.generate_authorization_code()
    conn.execute(
        sa.insert(client_grant).values(
            owner_id=owner_id,
            token_id=caller.token_id,
            client_id=request.client_id,
            client_name=request.client_name,
            redirect_uri=request.redirect_uri,
            resource=request.resource,
            ends_at=None if ttl is None else sa.func.clock_timestamp() + ttl,
            code_sha256=request.device_sha256 or token_format.fingerprint(code),
            code_challenge=request.code_challenge,
            scope=request.scope,
        )
    )
    audit.record(
        conn,
        owner_id,
        actor,
        "client.connect",
        issued.actor,
        project_id=project_id,
        client=request.client_id,
        name=request.client_name,
        **({"device": True} if request.redirect_uri is None else {"redirect_uri": request.redirect_uri}),
        scope=scopes.to_oauth(request.scope),
    )
    return code
