"""Sign-in after a provider has authenticated the user, and the state that the browser keeps until then."""

from collections.abc import Iterator
from contextlib import contextmanager

from flask import flash, redirect, session, url_for
from werkzeug.exceptions import Forbidden, HTTPException
from werkzeug.wrappers import Response

from bus.auth import identities
from bus.auth.identities import IdentityClaims
from bus.db import Connection
from bus.tenancy.owners import Owner
from webapp import auth, reauth
from webapp.context import options, transaction
from webapp.ratelimit import enforce_rate_limit

_NEXT_KEY, _SIGN_UP_KEY, _CHOOSE_ACCOUNT_KEY = "next", "sign_up", "choose_account"
_SIGN_UP_CLOSED_MESSAGE = "Sign-up is not open to this email address. Ask the operator of this server."
_UNPROVEN_MESSAGE = (
    "That provider does not state when you signed in there, so it cannot confirm that it is you. Use a one-time link."
)


def remember_redirect_target(target: str) -> None:
    """Keep the address to redirect to after signing in."""
    if safe_redirect_target(target):
        session[_NEXT_KEY] = target


def pending_redirect_target() -> str:
    """The address to redirect to after signing in; read it first, because signing in clears it."""
    return safe_redirect_target(session.get(_NEXT_KEY, "")) or url_for("inbox.index")


def safe_redirect_target(target: str) -> str | None:
    """Return the target if it is a path that no browser interprets as another host, else None."""
    is_safe = target.startswith("/") and not target.startswith("//") and target.isprintable() and "\\" not in target
    return target if is_safe else None


def sign_in_identity(claims: IdentityClaims, method: str) -> Response:
    """Sign in the owner of an identity, or begin a sign-up if it is new and sign-up is open to it.

    An owner with the same email address but another identity is not signed in.
    """
    after = pending_redirect_target()
    with transaction() as conn:
        owner = identities.find_owner(conn, claims)
        reauth.require_same_owner(owner.id if owner is not None else None)
        if owner is not None:
            enforce_rate_limit("account", str(owner.id), options().sign_in_per_minute)
            if reauth.is_reauthenticating() and not claims.proves_authentication:
                # The present session stays as it is.
                flash(_UNPROVEN_MESSAGE, "error")
                return redirect(url_for("operator.reauthenticate", next=after), 303)
            auth.sign_in(
                conn,
                owner.id,
                method,
                claims.authenticated_at,
                proves_authentication=claims.proves_authentication,
            )
            return redirect(after, 303)
        if claims.email is not None and not options().allows_sign_up(claims.email):
            raise Forbidden(_SIGN_UP_CLOSED_MESSAGE)
        token = identities.begin_sign_up(conn, claims)
    auth.clear_visit()
    session[_SIGN_UP_KEY] = {"token": token, "method": method}
    remember_redirect_target(after)
    return redirect(url_for("sign_up.index"), 303)


@contextmanager
def choose_account_after_refusal() -> Iterator[None]:
    """If the account that the provider named is refused, let the user choose another one there the next time.

    Otherwise the provider would name the same account again without asking.
    """
    try:
        yield
    except HTTPException:
        session[_CHOOSE_ACCOUNT_KEY] = True
        raise


def must_choose_account() -> bool:
    """Whether the last account was refused; the next sign-in forgets it."""
    return bool(session.pop(_CHOOSE_ACCOUNT_KEY, False))


def find_pending_sign_up() -> tuple[str, str] | None:
    """The token and the sign-in method of this browser's unfinished sign-up, or None."""
    pending = session.get(_SIGN_UP_KEY)
    return (pending["token"], pending["method"]) if pending else None


def finish_sign_up(conn: Connection, token: str, handle: str, method: str) -> None:
    """Create the owner and sign them in, in one transaction."""
    owner = identities.finish_sign_up(conn, token, handle)
    auth.sign_in(conn, owner.id, method)


def link_identity(owner: Owner, claims: IdentityClaims) -> bool:
    """Link an identity to the signed-in owner and rotate the session token.

    Returns:
        Whether the identity was not linked before.
    """
    with transaction() as conn:
        is_new = identities.link_identity(conn, owner, claims)
        auth.rotate_session(conn)
    return is_new
