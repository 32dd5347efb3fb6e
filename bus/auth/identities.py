"""Identities: an owner's accounts at sign-in providers, keyed by issuer and subject.

An e-mail address is not an identity, since addresses change hands: an owner's address under another subject does not
sign in. Only a signed-in owner links a second provider.
"""

import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta

import sqlalchemy as sa

from bus.auth.tables import identity, sign_up
from bus.db import Connection, from_row
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
    """A provider's statement about the person who signs in.

    Attributes:
        issuer, subject: the identity; `subject` never changes for one account at one issuer.
        email: None unless the issuer states that the address is verified.
        login: user name at the provider, from which a handle is suggested; may be empty.
        authenticated_at: time of the authentication at the issuer; None if it is unknown.
        proves_authentication: whether the issuer states that the person authenticated, and when. The parameters that
            ask it to pass through the browser, so an answer that does not state it may come from an old session there.
    """

    issuer: str
    subject: str
    email: str | None
    login: str = ""
    authenticated_at: datetime | None = None
    proves_authentication: bool = True


@dataclass(frozen=True, slots=True)
class Identity:
    """A linked sign-in of an owner."""

    id: int
    issuer: str
    subject: str
    email: str | None
    created_at: datetime
    last_used_at: datetime


def find_owner(conn: Connection, claims: IdentityClaims) -> Owner | None:
    """Return the owner of this identity, or None. Records the use and the current e-mail address."""
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
    return None if row is None else from_row(Owner, row)


def begin_sign_up(conn: Connection, claims: IdentityClaims) -> str:
    """Store the claims of a new person until they have chosen a handle; returns the token of the pending sign-up.

    Raises:
        BusError: `forbidden` if the provider verified no e-mail address; `conflict` if an owner has it already.
    """
    if claims.email is None:
        raise BusError(
            "forbidden",
            "Your provider has not verified your e-mail address. Verify it there, then sign in again.",
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
    """Return the claims of a pending sign-up, or None if it never existed, was completed or has expired."""
    row = conn.execute(
        sa.select(sign_up.c.issuer, sign_up.c.subject, sign_up.c.email, sign_up.c.login).where(
            sign_up.c.sha256 == fingerprint(token), sign_up.c.expires_at > sa.func.clock_timestamp()
        )
    ).one_or_none()
    return None if row is None else from_row(IdentityClaims, row)


def finish_sign_up(conn: Connection, token: str, handle: str) -> Owner:
    """Create the owner of a pending sign-up under the chosen handle.

    Raises:
        BusError: `not_found` if the sign-up has expired; `conflict` if the handle, the address or the identity is
            taken; `invalid_argument` for a malformed or reserved handle. The caller's transaction is rolled back, so
            the sign-up stays usable.
    """
    row = conn.execute(
        sa.delete(sign_up)
        .where(sign_up.c.sha256 == fingerprint(token), sign_up.c.expires_at > sa.func.clock_timestamp())
        .returning(sign_up.c.issuer, sign_up.c.subject, sign_up.c.email, sign_up.c.login)
    ).one_or_none()
    if row is None:
        raise BusError("not_found", "The sign-up has expired, and no account was created. Sign in again.")
    claims = from_row(IdentityClaims, row)
    assert claims.email is not None
    chosen_handle = handle.strip().lower()
    created = owners.add(conn, claims.email, handle=chosen_handle, actor=chosen_handle)
    _insert_identity(conn, created, claims)
    return created


def link_identity(conn: Connection, target_owner: Owner, claims: IdentityClaims) -> bool:
    """Link an identity to a signed-in owner; returns whether it is new.

    Raises:
        BusError: `conflict` if the identity belongs to another owner, or the owner has 20 already.
    Locks: the owner.
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
    """Unlink an identity from an owner, who keeps at least one.

    Raises:
        BusError: `not_found` if the owner does not have it; `conflict` if it is the only one.
    Locks: the owner, so that of two identities unlinked concurrently one stays.
    """
    _lock_owner(conn, target_owner.id)
    identities_by_id = {linked.id: linked for linked in list_identities(conn, target_owner.id)}
    if identity_id not in identities_by_id:
        raise NotFound("linked sign-in")
    if len(identities_by_id) == 1:
        raise BusError("conflict", "That is your only sign-in. Link another first.")
    conn.execute(sa.delete(identity).where(identity.c.id == identity_id))
    audit.record(conn, target_owner.id, target_owner.handle, "identity.unlink", identities_by_id[identity_id].issuer)


def list_identities(conn: Connection, owner_id: int) -> list[Identity]:
    """Return the identities of an owner, oldest first; at most 20."""
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
    return [from_row(Identity, row) for row in conn.execute(query)]


def set_email_from_identity(conn: Connection, target_owner: Owner, identity_id: int) -> str:
    """Set an owner's e-mail address to the verified address of one of their identities; returns the address.

    Raises:
        BusError: `not_found` if the identity has no verified address; `conflict` if another owner has it.
    """
    identities = list_identities(conn, target_owner.id)
    address = next((linked.email for linked in identities if linked.id == identity_id), None)
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
        "There is already an account with your e-mail address. Sign in to it as before; "
        "then link this sign-in on your account page.",
    )


def _valid_login(claims: IdentityClaims) -> str:
    try:
        return validation.name(claims.login, "login", 64)
    except InvalidArgument:
        return ""
