"""Identities: who an owner is at a sign-in provider, keyed on the provider's issuer and its subject.

An e-mail address is no identity: addresses change hands. Whoever comes with an owner's address under another subject
gets nothing; a second provider is linked only by an owner who is signed in.
"""

import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta

import sqlalchemy as sa

from bus.auth.tables import identity, sign_up
from bus.db import Connection
from bus.errors import BusError, InvalidArgument, NotFound
from bus.rules import validation
from bus.rules.token_format import fingerprint
from bus.tenancy import audit, owners
from bus.tenancy.owners import Owner
from bus.tenancy.tables import owner

_TOKEN_BYTES = 32
SIGN_UP_TTL = timedelta(minutes=30)
_MAX_IDENTITIES = 20


@dataclass(frozen=True, slots=True)
class IdentityClaims:
    """What a provider says about who is there.

    Attributes:
        issuer, subject: the identity; `subject` never changes for one account at one issuer.
        email: None unless the issuer says that the address is verified.
        login: what the person is called there, to suggest a handle; may be empty.
        authenticated_at: when they showed the issuer who they are; None where it does not say.
    """

    issuer: str
    subject: str
    email: str | None
    login: str = ""
    authenticated_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Identity:
    """One of the ways in that an owner has."""

    id: int
    issuer: str
    subject: str
    email: str | None
    created_at: datetime
    last_used_at: datetime


def find_owner(conn: Connection, claims: IdentityClaims) -> Owner | None:
    """The owner who has this identity, or None; notes that it was used and under which address."""
    row = conn.execute(
        sa.update(identity)
        .where(
            identity.c.issuer == claims.issuer, identity.c.subject == claims.subject, identity.c.owner_id == owner.c.id
        )
        .values(last_used_at=sa.func.clock_timestamp(), email=claims.email)
        .returning(
            owner.c.id,
            owner.c.email,
            owner.c.handle,
            owner.c.operator,
            owner.c.created_at,
            owner.c.suspended_at,
        )
    ).one_or_none()
    return None if row is None else Owner(*row)


def begin_sign_up(conn: Connection, claims: IdentityClaims) -> str:
    """Keep a claim until its bearer has chosen a handle; returns the token that stands for it.

    Raises:
        BusError: `forbidden` when the provider vouches for no e-mail address; `conflict` when an owner has it already.
    """
    if claims.email is None:
        raise BusError(
            "forbidden",
            "Your provider does not say that your e-mail address is verified. Verify it there, then come back.",
        )
    address = validation.email(claims.email, "email")
    if conn.execute(sa.select(owner.c.id).where(sa.func.lower(owner.c.email) == address.lower())).one_or_none():
        raise _email_taken_error()
    token = secrets.token_urlsafe(_TOKEN_BYTES)
    clock = sa.func.clock_timestamp()
    conn.execute(
        sa.insert(sign_up).values(
            sha256=fingerprint(token),
            issuer=claims.issuer,
            subject=claims.subject,
            email=address,
            login=_valid_login(claims),
            expires_at=clock + SIGN_UP_TTL,
        )
    )
    return token


def find_sign_up(conn: Connection, token: str) -> IdentityClaims | None:
    """The claim that waits for a handle, or None when it never was, was used or is over."""
    row = conn.execute(
        sa.select(sign_up.c.issuer, sign_up.c.subject, sign_up.c.email, sign_up.c.login).where(
            sign_up.c.sha256 == fingerprint(token), sign_up.c.expires_at > sa.func.clock_timestamp()
        )
    ).one_or_none()
    return None if row is None else IdentityClaims(*row)


def finish_sign_up(conn: Connection, token: str, handle: str) -> Owner:
    """Create the owner whom a claim waits for, under the handle that was chosen.

    Raises:
        BusError: `not_found` when the claim is over; `conflict` when the handle, the address or the identity is taken;
            `invalid_argument` for a malformed or reserved handle. The claim stays usable: the caller's transaction
            is rolled back.
    """
    row = conn.execute(
        sa.delete(sign_up)
        .where(sign_up.c.sha256 == fingerprint(token), sign_up.c.expires_at > sa.func.clock_timestamp())
        .returning(sign_up.c.issuer, sign_up.c.subject, sign_up.c.email, sign_up.c.login)
    ).one_or_none()
    if row is None:
        raise BusError("not_found", "That took too long. Sign in again; nothing was created.")
    claim = IdentityClaims(*row)
    assert claim.email is not None
    chosen = handle.strip().lower()
    made = owners.add(conn, claim.email, handle=chosen, actor=chosen)
    _insert_identity(conn, made, claim)
    return made


def link_identity(conn: Connection, target_owner: Owner, claims: IdentityClaims) -> bool:
    """Give an owner who is signed in one more way in; returns whether it is new.

    Raises:
        BusError: `conflict` when the identity is another owner's, or the owner has 20 already.
    """
    _lock_owner(conn, target_owner.id)
    row = conn.execute(
        sa.select(identity.c.owner_id).where(identity.c.issuer == claims.issuer, identity.c.subject == claims.subject)
    ).one_or_none()
    if row is not None:
        if row.owner_id != target_owner.id:
            raise BusError("conflict", "That sign-in belongs to another account, so it cannot be linked to yours.")
        return False
    if len(list_identities(conn, target_owner.id)) >= _MAX_IDENTITIES:
        raise BusError("conflict", f"You have {_MAX_IDENTITIES} linked sign-ins; unlink one first.")
    _insert_identity(conn, target_owner, claims)
    return True


def unlink_identity(conn: Connection, target_owner: Owner, identity_id: int) -> None:
    """Take one way in away from an owner, never the last.

    Raises:
        BusError: `not_found` when it is not the owner's; `conflict` when it is the last one.
    Locks: the owner, so that of two that are unlinked at once one stays.
    """
    _lock_owner(conn, target_owner.id)
    mine = {one.id: one for one in list_identities(conn, target_owner.id)}
    if identity_id not in mine:
        raise NotFound("linked sign-in")
    if len(mine) == 1:
        raise BusError("conflict", "That is your only way in. Link another first.")
    conn.execute(sa.delete(identity).where(identity.c.id == identity_id))
    audit.record(conn, target_owner.id, target_owner.handle, "identity.unlink", mine[identity_id].issuer)


def list_identities(conn: Connection, owner_id: int) -> list[Identity]:
    """The ways in that an owner has, the oldest first; there are 20 at most."""
    query = (
        sa.select(
            identity.c.id,
            identity.c.issuer,
            identity.c.subject,
            identity.c.email,
            identity.c.created_at,
            identity.c.last_used_at,
        )
        .where(identity.c.owner_id == owner_id)
        .order_by(identity.c.id)
        .limit(_MAX_IDENTITIES)
    )
    return [Identity(*row) for row in conn.execute(query)]


def set_email_from_identity(conn: Connection, target_owner: Owner, identity_id: int) -> str:
    """Make the verified address of one of an owner's identities the address of the account; returns it.

    Raises:
        BusError: `not_found`; `conflict` when another owner has that address.
    """
    address = next((one.email for one in list_identities(conn, target_owner.id) if one.id == identity_id), None)
    if address is None:
        raise BusError("not_found", "None of your linked sign-ins has that verified address.")
    checked = validation.email(address, "email")
    conn.execute(sa.update(owner).where(owner.c.id == target_owner.id).values(email=checked))
    audit.record(conn, target_owner.id, target_owner.handle, "owner.email", target_owner.handle)
    return checked


def _insert_identity(conn: Connection, target_owner: Owner, claims: IdentityClaims) -> None:
    conn.execute(
        sa.insert(identity).values(
            owner_id=target_owner.id, issuer=claims.issuer, subject=claims.subject, email=claims.email
        )
    )
    audit.record(conn, target_owner.id, target_owner.handle, "identity.link", claims.issuer)


def _lock_owner(conn: Connection, owner_id: int) -> None:
    conn.execute(sa.select(owner.c.id).where(owner.c.id == owner_id).with_for_update(key_share=True))


def _email_taken_error() -> BusError:
    return BusError(
        "conflict",
        "There is an account with your e-mail address already. Sign in to it the way you did before; "
        "then you can link this sign-in on your account page.",
    )


def _valid_login(claims: IdentityClaims) -> str:
    try:
        return validation.name(claims.login, "login", 64)
    except InvalidArgument:
        return ""
