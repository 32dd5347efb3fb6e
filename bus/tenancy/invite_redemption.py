"""Redeeming an invite: how somebody gets in, once for each use, also when the answer is lost on the way."""

import dataclasses
import json
from dataclasses import dataclass
from datetime import datetime, timedelta

import sqlalchemy as sa

from bus import limits
from bus.db import Connection, one_time_store
from bus.errors import BusError, InvalidArgument
from bus.rules import token_format as form
from bus.rules import validation
from bus.tenancy import participations
from bus.tenancy.invites import INVITE_STATE
from bus.tenancy.participations import IssuedParticipation
from bus.tenancy.tables import invite, invite_redemption, owner, project

# How long a lost answer can be fetched again.
STORED_GRANT_TTL = timedelta(minutes=10)
_STORE_PURPOSE = "join"


@dataclass(frozen=True, slots=True)
class Acceptor:
    """An owner who accepts an invite signed in; `emails` are the addresses that were shown to be theirs."""

    handle: str
    verified_emails: frozenset[str]


@dataclass(frozen=True, slots=True)
class InviteOffer:
    """What an invite offers to whoever knows its code.

    Attributes:
        owner: the handle of who owns the project.
        participant_name: the name it is locked to, or None where the invited chooses.
        chosen: whether it gives one more token to a participant that is there already.
        email: whose it is alone, or None.
        uses_left: how many may still come by it.
    """

    project: str
    owner: str
    participant_name: str | None
    is_for_existing_participant: bool
    email: str | None
    kind: str
    lane: str | None
    is_admin: bool
    uses_left: int
    expires_at: datetime


def get_offer(conn: Connection, code: str) -> InviteOffer:
    """What an invite offers; uses nothing up.

    Raises:
        BusError: `invalid`, `expired` or `exhausted` as `redeem`; `forbidden` when the project takes nobody in.
    """
    row = conn.execute(
        sa.select(
            project.c.name,
            owner.c.handle,
            invite.c.participant_name,
            invite.c.participant_id.is_not(None),
            invite.c.email,
            invite.c.kind,
            invite.c.lane,
            invite.c.is_admin,
            invite.c.uses - invite.c.used,
            invite.c.expires_at,
            INVITE_STATE,
            sa.or_(project.c.archived_at.is_not(None), owner.c.suspended_at.is_not(None)).label("closed"),
        )
        .join(project, project.c.id == invite.c.project_id)
        .join(owner, owner.c.id == project.c.owner_id)
        .where(invite.c.sha256 == form.fingerprint(code), project.c.purging_at.is_(None))
    ).one_or_none()
    if row is None or row.state == "revoked":
        raise _invalid_invite_error()
    if row.state != "open":
        raise _closed_invite_error(row.state)
    if row.closed:
        raise BusError("forbidden", "This project takes nobody in at present; ask whoever sent you the invite.")
    return InviteOffer(*row[:-2])


def redeem(
    conn: Connection,
    code: str,
    *,
    name: str | None = None,
    nonce: str | None = None,
    acceptor: Acceptor | None = None,
) -> IssuedParticipation:
    """Use an invite once: a fresh participant of the project's owner joins the project, or the one that was chosen
    for the invite gets one more token.

    Args:
        name: the name the invited chooses; needed unless the invite is locked to one.
        nonce: 16 to 128 characters that only the redeemer knows. For ten minutes the same code, name and nonce give
            the same answer again and use nothing up. The answer is kept encrypted under a key that is derived from
            code and nonce, of which the database holds neither.
        acceptor: who accepts it signed in; None where the code alone is presented.
    Raises:
        BusError: with `reason` in its data: `invalid` (not_found), `expired`, `exhausted` (both wrong_state),
            `name_required` (invalid_argument), `name_taken`, `nonce_reused` (both conflict), `sign_in_required`,
            `wrong_email` (both forbidden). A refused redemption uses nothing up.
    Locks: the project clock, the invite, then the owner. The use is counted by an UPDATE whose WHERE states
        what must hold, so that of many at once only as many as there are uses succeed. Kept answers are read
        under the clock too, so the same nonce twice at once is one redemption.
    Source: docs/decisions/0018-redemption.md
    """
    known = conn.execute(
        sa.select(
            invite.c.id,
            invite.c.project_id,
            invite.c.participant_name,
            invite.c.participant_id,
            invite.c.email,
        ).where(invite.c.sha256 == form.fingerprint(code), invite.c.revoked_at.is_(None))
    ).one_or_none()
    if known is None:
        raise _invalid_invite_error()
    _check_email(known.email, acceptor)
    wanted = known.participant_name or name
    if wanted is None or not wanted.strip():
        raise InvalidArgument("name is required: choose what you will be called here.", reason="name_required")
    label = validation.label(wanted, "name")
    secret = _storage_secret(code, nonce) if nonce is not None else None
    conn.execute("SELECT bus_lock_clock(%s)", (known.project_id,))
    if secret is not None and (kept := _find_stored_grant(conn, known.id, secret)) is not None:
        if known.participant_name is None and validation.label_key(label) != validation.label_key(kept.participant):
            raise BusError(
                "conflict", "That nonce was used with another name; choose a new one.", reason="nonce_reused"
            )
        return kept
    if conn.fetch_one_or_none(
        "SELECT 1 FROM project p JOIN owner o ON o.id = p.owner_id WHERE p.id = %s AND o.suspended_at IS NOT NULL",
        (known.project_id,),
    ):
        raise BusError("forbidden", "The owner of this project is suspended; ask whoever sent you the invite.")
    used = conn.execute(
        sa.update(invite)
        .where(
            invite.c.id == known.id,
            invite.c.revoked_at.is_(None),
            invite.c.used < invite.c.uses,
            invite.c.expires_at > sa.func.clock_timestamp(),
        )
        .values(used=invite.c.used + 1)
        .returning(invite.c.kind, invite.c.lane, invite.c.is_admin, invite.c.hint)
    ).one_or_none()
    if used is None:
        state = conn.execute(sa.select(INVITE_STATE).where(invite.c.id == known.id)).scalar_one_or_none()
        raise _closed_invite_error(state)
    actor = f"invite {used.hint}" if acceptor is None else acceptor.handle
    if known.participant_id is not None:
        granted = participations.join_or_add_token(
            conn, known.project_id, known.participant_id, lane=used.lane, is_admin=used.is_admin, actor=actor
        )
    else:
        granted = participations.grant_participation(
            conn,
            known.project_id,
            label,
            kind=used.kind,
            lane=used.lane,
            is_admin=used.is_admin,
            actor=actor,
            require_new=True,
        )
    conn.execute(
        sa.insert(invite_redemption).values(
            invite_id=known.id,
            participation_id=granted.participation_id,
            actor=granted.actor,
            accepted_by=None if acceptor is None else acceptor.handle,
        )
    )
    if secret is not None:
        one_time_store.store(
            conn, _STORE_PURPOSE, secret, json.dumps(dataclasses.asdict(granted)).encode(), ttl=STORED_GRANT_TTL
        )
    return granted


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
    """What a kept answer lies under. The code is in it too, so that a poor nonce is no worse than the code."""
    if not (16 <= len(nonce) <= limits.MAX_NONCE_LENGTH and nonce.isascii() and nonce.isprintable()):
        raise InvalidArgument(
            f"nonce must be 16 to {limits.MAX_NONCE_LENGTH} printable ASCII characters, chosen at random."
        )
    return f"{code}\n{nonce}".encode()


def _find_stored_grant(conn: Connection, invite_id: int, secret: bytes) -> IssuedParticipation | None:
    """The answer that this redeemer was given already, unless the invite was revoked meanwhile."""
    answer = one_time_store.find(conn, _STORE_PURPOSE, secret)
    if answer is None:
        return None
    if conn.fetch_one_or_none("SELECT 1 FROM invite WHERE id = %s AND revoked_at IS NULL", (invite_id,)) is None:
        raise _invalid_invite_error()
    return IssuedParticipation(**json.loads(answer))


def _invalid_invite_error() -> BusError:
    return BusError("not_found", "That invite is not valid; ask whoever sent it for another.", reason="invalid")


def _closed_invite_error(state: str | None) -> BusError:
    if state == "exhausted":
        return BusError(
            "wrong_state",
            "That invite was used already; ask whoever sent it for another.",
            reason="exhausted",
        )
    if state == "expired":
        return BusError(
            "wrong_state",
            "That invite has expired; ask whoever sent it for another.",
            reason="expired",
        )
    return _invalid_invite_error()
