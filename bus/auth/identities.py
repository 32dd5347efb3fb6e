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
from bus.errors import BusError, InvalidArgument
from bus.rules import validation
from bus.rules.token_format import fingerprint
from bus.tenancy import audit, owners
from bus.tenancy.owners import Owner
from bus.tenancy.tables import owner

_BYTES = 32
SIGN_UP_LASTS = timedelta(minutes=30)
_MOST = 20


@dataclass(frozen=True, slots=True)
class Claim:
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


def find_owner(conn: Connection, claim: Claim) -> Owner | None:
    """The owner who has this identity, or None; notes that it was used and under which address."""
    row = conn.run(
        sa.update(identity)
        .where(
            identity.c.issuer == claim.issuer, identity.c.subject == claim.subject, identity.c.owner_id == owner.c.id
        )
        .values(last_used_at=sa.func.clock_timestamp(), email=claim.email)
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


def begin_sign_up(conn: Connection, claim: Claim) -> str:
    """Keep a claim until its bearer has chosen a handle; returns the token that stands for it.

    Raises:
        BusError: `forbidden` when the provider vouches for no e-mail address; `conflict` when an owner has it already.
    """
    if claim.email is None:
        raise BusError(
            "forbidden",
            "Your provider does not say that your e-mail address is verified. Verify it there, then come back.",
        )
    address = validation.email(claim.email, "email")
    if conn.run(sa.select(owner.c.id).where(sa.func.lower(owner.c.email) == address.lower())).one_or_none():
        raise _taken()
    token = secrets.token_urlsafe(_BYTES)
    clock = sa.func.clock_timestamp()
    conn.run(
        sa.insert(sign_up).values(
            sha256=fingerprint(token),
            issuer=claim.issuer,
            subject=claim.subject,
            email=address,
            login=_login(claim),
            expires_at=clock + SIGN_UP_LASTS,
        )
    )
    return token


def find_sign_up(conn: Connection, token: str) -> Claim | None:
    """The claim that waits for a handle, or None when it never was, was used or is over."""
    row = conn.run(
        sa.select(sign_up.c.issuer, sign_up.c.subject, sign_up.c.email, sign_up.c.login).where(
            sign_up.c.sha256 == fingerprint(token), sign_up.c.expires_at > sa.func.clock_timestamp()
        )
    ).one_or_none()
    return None if row is None else Claim(*row)


def finish_sign_up(conn: Connection, token: str, handle: str) -> Owner:
    """Create the owner whom a claim waits for, under the handle that was chosen.

    Raises:
        BusError: `not_found` when the claim is over; `conflict` when the handle, the address or the identity is taken;
            `invalid_argument` for a malformed or reserved handle. The claim stays usable: the caller's transaction
            is rolled back.
    """
    row = conn.run(
        sa.delete(sign_up)
        .where(sign_up.c.sha256 == fingerprint(token), sign_up.c.expires_at > sa.func.clock_timestamp())
        .returning(sign_up.c.issuer, sign_up.c.subject, sign_up.c.email, sign_up.c.login)
    ).one_or_none()
    if row is None:
        raise BusError("not_found", "That took too long. Sign in again; nothing was created.")
    claim = Claim(*row)
    assert claim.email is not None
    chosen = handle.strip().lower()
    made = owners.add(conn, claim.email, handle=chosen, actor=chosen)
    _insert(conn, made, claim)
    return made


def link(conn: Connection, into: Owner, claim: Claim) -> bool:
    """Give an owner who is signed in one more way in; returns whether it is new.

    Raises:
        BusError: `conflict` when the identity is another owner's, or the owner has 20 already.
    """
    _lock(conn, into.id)
    row = conn.run(
        sa.select(identity.c.owner_id).where(identity.c.issuer == claim.issuer, identity.c.subject == claim.subject)
    ).one_or_none()
    if row is not None:
        if row.owner_id != into.id:
            raise BusError("conflict", "That sign-in belongs to another account, so it cannot be linked to yours.")
        return False
    if len(list_(conn, into.id)) >= _MOST:
        raise BusError("conflict", f"You have {_MOST} linked sign-ins; unlink one first.")
    _insert(conn, into, claim)
    return True


def unlink(conn: Connection, of: Owner, identity_id: int) -> None:
    """Take one way in away from an owner, never the last.

    Raises:
        BusError: `not_found` when it is not the owner's; `conflict` when it is the last one.
    Locks: the owner, so that of two that are unlinked at once one stays.
    """
    _lock(conn, of.id)
    mine = {one.id: one for one in list_(conn, of.id)}
    if identity_id not in mine:
        raise BusError("not_found", "There is no such linked sign-in.")
    if len(mine) == 1:
        raise BusError("conflict", "That is your only way in. Link another first.")
    conn.run(sa.delete(identity).where(identity.c.id == identity_id))
    audit.record(conn, of.id, of.handle, "identity.unlink", mine[identity_id].issuer)


def list_(conn: Connection, owner_id: int) -> list[Identity]:
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
        .limit(_MOST)
    )
    return [Identity(*row) for row in conn.run(query)]


def set_email(conn: Connection, of: Owner, identity_id: int) -> str:
    """Make the verified address of one of an owner's identities the address of the account; returns it.

    Raises:
        BusError: `not_found`; `conflict` when another owner has that address.
    """
    address = next((one.email for one in list_(conn, of.id) if one.id == identity_id), None)
    if address is None:
        raise BusError("not_found", "None of your linked sign-ins has that verified address.")
    checked = validation.email(address, "email")
    conn.run(sa.update(owner).where(owner.c.id == of.id).values(email=checked))
    audit.record(conn, of.id, of.handle, "owner.email", of.handle)
    return checked


def _insert(conn: Connection, into: Owner, claim: Claim) -> None:
    conn.run(
        sa.insert(identity).values(owner_id=into.id, issuer=claim.issuer, subject=claim.subject, email=claim.email)
    )
    audit.record(conn, into.id, into.handle, "identity.link", claim.issuer)


def _lock(conn: Connection, owner_id: int) -> None:
    conn.run(sa.select(owner.c.id).where(owner.c.id == owner_id).with_for_update(key_share=True))


def _taken() -> BusError:
    return BusError(
        "conflict",
        "There is an account with your e-mail address already. Sign in to it the way you did before; "
        "then you can link this sign-in on your account page.",
    )


def _login(claim: Claim) -> str:
    try:
        return validation.name(claim.login, "login", 64)
    except InvalidArgument:
        return ""
