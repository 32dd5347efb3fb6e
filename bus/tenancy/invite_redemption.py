"""Redemption of invites: each use adds one participant or token, also when the answer is lost on the way."""

import dataclasses
import json
from dataclasses import dataclass
from datetime import datetime, timedelta

import sqlalchemy as sa

from bus import limits
from bus.db import Connection, from_row, one_time_store
from bus.errors import BusError, InvalidArgument
from bus.rules import token_format, validation
from bus.tenancy import (
    memberships,
    owner_participation,
    participants,
    participation_queries,
    participations,
    project_locks,
    tokens,
)
from bus.tenancy.invite_authority import may_still_invite
from bus.tenancy.invite_queries import INVITE_STATE
from bus.tenancy.lookalikes import find_lookalike
from bus.tenancy.participations import IssuedParticipation
from bus.tenancy.project_locks import LockedProject
from bus.tenancy.tables import invite, invite_redemption, owner, project

# How long a client can repeat a redemption whose answer was lost.
STORED_GRANT_TTL = timedelta(minutes=10)
_STORE_PURPOSE = "join"


@dataclass(frozen=True, slots=True)
class Acceptor:
    """A signed-in owner who accepts an invite; `verified_emails` are the addresses that are proven to be theirs."""

    handle: str
    verified_emails: frozenset[str]


@dataclass(frozen=True, slots=True)
class InviteOffer:
    """What an invite grants.

    Attributes:
        owner: the handle of the project's owner.
        participant_name: the name that the invite is locked to, or None where the redeemer chooses.
        is_for_existing_participant: whether it adds a token to a participant that exists already.
        email: the only address that may accept it, or None.
        role: of the person who accepts it; None for a participant of the owner.
        created_by: who invites.
        uses_left: how many times it can still be redeemed.
    """

    project: str
    owner: str
    participant_name: str | None
    is_for_existing_participant: bool
    email: str | None
    kind: str
    lane: str | None
    is_admin: bool
    role: str | None
    created_by: str
    uses_left: int
    expires_at: datetime


def get_offer(conn: Connection, code: str) -> InviteOffer:
    """Return what an invite grants, without using it.

    Raises:
        BusError: `invalid`, `expired` or `exhausted` as for `redeem`; `forbidden` when the project is archived or its
            owner suspended.
    """
    row = conn.execute(
        sa.select(
            project.c.name.label("project"),
            owner.c.handle.label("owner"),
            invite.c.participant_name,
            invite.c.participant_id.is_not(None).label("is_for_existing_participant"),
            invite.c.email,
            invite.c.kind,
            invite.c.lane,
            invite.c.is_admin,
            invite.c.role,
            invite.c.created_by,
            (invite.c.uses - invite.c.used).label("uses_left"),
            invite.c.expires_at,
            INVITE_STATE,
            sa.or_(project.c.archived_at.is_not(None), owner.c.suspended_at.is_not(None)).label("is_closed"),
        )
        .join(project, project.c.id == invite.c.project_id)
        .join(owner, owner.c.id == project.c.owner_id)
        .where(_has_code(code), project.c.purging_at.is_(None))
    ).one_or_none()
    if row is None:
        raise _invalid_invite_error()
    if row.state != "open":
        raise _unusable_invite_error(row.state)
    if row.is_closed:
        raise BusError("forbidden", "No participant can join this project now; ask the sender of the invite.")
    return InviteOffer(**{field.name: row._mapping[field.name] for field in dataclasses.fields(InviteOffer)})


def redeem(
    conn: Connection,
    code: str,
    *,
    name: str | None = None,
    nonce: str | None = None,
    acceptor: Acceptor | None = None,
) -> IssuedParticipation:
    """Use an invite once: add a new participant to the project, or a token to the participant of the invite.

    Args:
        name: the name of the new participant; required unless the invite is locked to one.
        nonce: 16 to 128 characters that only the redeemer knows. For ten minutes the same code, name and nonce
            return the same answer again and use nothing. The answer is stored encrypted under a key that is derived
            from code and nonce; the database holds neither.
        acceptor: the signed-in owner who accepts it; None where only the code is presented.
    Raises:
        BusError: with `reason` in its data: `invalid` (not_found), `expired`, `exhausted` (both wrong_state),
            `name_required` (invalid_argument), `name_taken`, `nonce_reused` (both conflict), `sign_in_required`,
            `wrong_email` (both forbidden). A refused redemption uses nothing.
    Locks: the project clock, the invite, then the owner. An UPDATE whose WHERE states the precondition counts the
        use, so that concurrent redemptions never exceed the uses. Stored answers are read under the clock too, so
        that two requests with the same nonce are one redemption.
    Source: docs/decisions/0018-invite-redemption.md
    """
    redeemed_invite = conn.execute(
        sa.select(
            invite.c.id,
            invite.c.project_id,
            invite.c.participant_name,
            invite.c.participant_id,
            invite.c.email,
            invite.c.role,
        ).where(_has_code(code), invite.c.revoked_at.is_(None))
    ).one_or_none()
    if redeemed_invite is None:
        raise _invalid_invite_error()
    if redeemed_invite.role is not None:
        raise BusError(
            "forbidden",
            "This invite is for a person; open it in a browser, sign in and accept it there.",
            reason="sign_in_required",
        )
    _check_email(redeemed_invite.email, acceptor)
    requested_name = redeemed_invite.participant_name or name
    if requested_name is None or not requested_name.strip():
        raise InvalidArgument(
            "name is required: choose the participant's name in this project.", reason="name_required"
        )
    label = validation.label(requested_name, "name")
    secret = _storage_secret(code, nonce) if nonce is not None else None
    conn.execute("SELECT bus_lock_clock(%s)", (redeemed_invite.project_id,))
    if secret is not None and (stored := _find_stored_grant(conn, redeemed_invite.id, secret)) is not None:
        is_other_name = validation.label_key(label) != validation.label_key(stored.participant)
        if redeemed_invite.participant_name is None and is_other_name:
            raise BusError(
                "conflict", "That nonce was used with another name; choose a new one.", reason="nonce_reused"
            )
        return stored
    _refuse_suspended(conn, redeemed_invite.project_id)
    terms = _count_use(conn, redeemed_invite.id)
    locked_project = project_locks.lock_project_owner(conn, redeemed_invite.project_id)
    actor = f"invite {terms.hint}" if acceptor is None else acceptor.handle
    if redeemed_invite.participant_id is not None:
        issued = _join_or_add_token(
            conn,
            locked_project,
            redeemed_invite.participant_id,
            lane=terms.lane,
            is_admin=terms.is_admin,
            actor=actor,
        )
    else:
        if redeemed_invite.participant_name is None:
            _refuse_confusable_name(conn, redeemed_invite.project_id, label)
        issued = participations.join_locked_project(
            conn,
            locked_project,
            label,
            kind=terms.kind,
            lane=terms.lane,
            is_admin=terms.is_admin,
            actor=actor,
            require_new=True,
        )
    conn.execute(
        sa.insert(invite_redemption).values(
            invite_id=redeemed_invite.id,
            participation_id=issued.participation_id,
            actor=issued.actor,
            accepted_by=None if acceptor is None else acceptor.handle,
        )
    )
    if secret is not None:
        one_time_store.store(
            conn, _STORE_PURPOSE, secret, json.dumps(dataclasses.asdict(issued)).encode(), ttl=STORED_GRANT_TTL
        )
    return issued


def accept_as_person(conn: Connection, code: str, owner_id: int, acceptor: Acceptor) -> int:
    """Become a member of a project by an invite for a person; return the project.

    An owner who has a role already keeps it and uses nothing, so that a repeated submission is one redemption.

    Raises:
        BusError: as `redeem`; `not_found` for an invite that is not for a person; `conflict` when the handle is
            the name of a participant.
        OwnerSuspended: the acceptor is suspended.
    Locks: the project clock, the invite, then the owners.
    """
    row = conn.execute(
        sa.select(invite.c.id, invite.c.project_id, invite.c.email, invite.c.role).where(
            _has_code(code),
            invite.c.revoked_at.is_(None),
            invite.c.role.is_not(None),
        )
    ).one_or_none()
    if row is None:
        raise _invalid_invite_error()
    _check_email(row.email, acceptor)
    conn.execute("SELECT bus_lock_clock(%s)", (row.project_id,))
    if memberships.find_role(conn, owner_id, row.project_id) is not None:
        return int(row.project_id)
    _refuse_suspended(conn, row.project_id)
    _count_use(conn, row.id)
    memberships.add(conn, row.project_id, owner_id, row.role, actor=acceptor.handle)
    member = owner_participation.find_owner_context(conn, owner_id, row.project_id)
    assert member is not None
    conn.execute(
        sa.insert(invite_redemption).values(
            invite_id=row.id,
            participation_id=member.participation_id,
            actor=acceptor.handle,
            accepted_by=acceptor.handle,
        )
    )
    return int(row.project_id)


def _has_code(code: str) -> sa.ColumnElement[bool]:
    """Whether an invite has this code: the one that the page showed, or the one that was mailed last."""
    sha256 = token_format.fingerprint(code)
    return sa.or_(invite.c.sha256 == sha256, invite.c.mailed_sha256 == sha256)


def _refuse_suspended(conn: Connection, project_id: int) -> None:
    """Refuse a redemption while the project's owner is suspended. The caller has locked the project clock."""
    if conn.fetch_one_or_none(
        "SELECT 1 FROM project p JOIN owner o ON o.id = p.owner_id WHERE p.id = %s AND o.suspended_at IS NOT NULL",
        (project_id,),
    ):
        raise BusError("forbidden", "The owner of this project is suspended; ask the sender of the invite.")


@dataclass(frozen=True, slots=True)
class _Terms:
    kind: str
    lane: str | None
    is_admin: bool
    hint: str


def _count_use(conn: Connection, invite_id: int) -> _Terms:
    """Count one use of an invite, if it is open and its creator may still invite, and return its terms.

    Locks: the invite.
    """
    row = conn.execute(
        sa.update(invite)
        .where(
            invite.c.id == invite_id,
            invite.c.revoked_at.is_(None),
            invite.c.used < invite.c.uses,
            invite.c.expires_at > sa.func.clock_timestamp(),
            may_still_invite(),
        )
        .values(used=invite.c.used + 1)
        .returning(invite.c.kind, invite.c.lane, invite.c.is_admin, invite.c.hint)
    ).one_or_none()
    if row is None:
        state = conn.execute(sa.select(INVITE_STATE).where(invite.c.id == invite_id)).scalar_one_or_none()
        raise _unusable_invite_error(state)
    return from_row(_Terms, row)


def _refuse_confusable_name(conn: Connection, project_id: int, label: str) -> None:
    """Refuse a name that an invited person chose and that looks like one of the project.

    Raises:
        BusError: `conflict`; a name that is the same is refused where it is assigned.
    """
    name = find_lookalike(conn, (project_id,), label)
    if name is not None:
        raise BusError("conflict", f"The name {label} looks like {name}; choose another.", reason="name_taken")


def _join_or_add_token(
    conn: Connection,
    locked_project: LockedProject,
    participant_id: int,
    *,
    lane: str | None,
    is_admin: bool,
    actor: str,
) -> IssuedParticipation:
    """Issue one more token of a participant of the project's owner; add it to the project where it is not in.

    Args:
        lane, is_admin: for a participant that is added; one that is in the project keeps its own.
    """
    participant = participants.find_active(conn, locked_project.owner_id, participant_id)
    if participant is None:
        raise BusError("not_found", "That participant was removed; ask the sender of the invite.", reason="invalid")
    participation = participation_queries.find_of_participant(conn, locked_project.project_id, participant_id)
    if participation is not None:
        return tokens.add_to_participation(conn, locked_project, participation, actor=actor)
    return participations.add_participant(conn, locked_project, participant, lane=lane, is_admin=is_admin, actor=actor)


def _check_email(email: str | None, acceptor: Acceptor | None) -> None:
    if email is None:
        return
    if acceptor is None:
        raise BusError(
            "forbidden",
            "This invite is for one person; open it in a browser, sign in and accept it there.",
            reason="sign_in_required",
        )
    if email.lower() not in {address.lower() for address in acceptor.verified_emails}:
        raise BusError(
            "forbidden",
            "This invite is for another e-mail address; sign in with that one, or ask for an invite of your own.",
            reason="wrong_email",
        )


def _storage_secret(code: str, nonce: str) -> bytes:
    """Return the secret of a stored answer. It includes the code, so that a weak nonce is no worse than the code."""
    if not (16 <= len(nonce) <= limits.MAX_NONCE_LENGTH and nonce.isascii() and nonce.isprintable()):
        raise InvalidArgument(
            f"nonce must be 16 to {limits.MAX_NONCE_LENGTH} printable ASCII characters, chosen at random."
        )
    return f"{code}\n{nonce}".encode()


def _find_stored_grant(conn: Connection, invite_id: int, secret: bytes) -> IssuedParticipation | None:
    """Return the stored answer of an earlier redemption with this secret.

    Raises:
        BusError: `not_found` when the invite was revoked since, or its creator may no longer invite.
    """
    answer = one_time_store.find(conn, _STORE_PURPOSE, secret)
    if answer is None:
        return None
    if not conn.fetch_one_or_none(
        "SELECT 1 FROM invite WHERE id = %s AND revoked_at IS NULL"
        " AND bus_may_still_invite(created_by_participation_id, created_by_token_id)",
        (invite_id,),
    ):
        raise _invalid_invite_error()
    return IssuedParticipation(**json.loads(answer))


def _invalid_invite_error() -> BusError:
    return BusError("not_found", "That invite is not valid; ask its sender for another.", reason="invalid")


def _unusable_invite_error(state: str | None) -> BusError:
    if state == "exhausted":
        return BusError("wrong_state", "That invite was used already; ask its sender for another.", reason="exhausted")
    if state == "expired":
        return BusError("wrong_state", "That invite has expired; ask its sender for another.", reason="expired")
    return _invalid_invite_error()
