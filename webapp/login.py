"""The way in: what becomes of somebody for whom a provider vouched, and what is kept in the browser until then."""

from flask import redirect, session, url_for
from werkzeug.exceptions import Forbidden
from werkzeug.wrappers import Response

from bus.auth import identities
from bus.auth.identities import IdentityClaims
from bus.db import Connection
from bus.tenancy.owners import Owner
from webapp import auth, reauth
from webapp.context import options, transaction
from webapp.ratelimit import enforce_rate_limit

_NEXT_KEY, _SIGN_UP_KEY = "next", "sign_up"
_SIGN_UP_CLOSED_MESSAGE = "New accounts are not open to this address here. Ask whoever runs this bus."


def remember_redirect_target(target: str) -> None:
    """Keep where somebody was going until they are signed in."""
    if safe_redirect_target(target):
        session[_NEXT_KEY] = target


def pending_redirect_target() -> str:
    """Where somebody who signs in was going. Ask before signing in, which forgets it."""
    return safe_redirect_target(session.get(_NEXT_KEY, "")) or url_for("dashboard.index")


def safe_redirect_target(target: str) -> str | None:
    """The address, if it is one of ours: a path, which no browser takes for another host."""
    good = target.startswith("/") and not target.startswith("//") and target.isprintable() and "\\" not in target
    return target if good else None


def sign_in_identity(claims: IdentityClaims, method: str) -> Response:
    """Sign in whoever has this identity; whoever is new is asked for a handle, if new accounts are open.

    An owner who has the same address by another identity gets no access by this one.
    """
    after = pending_redirect_target()
    with transaction() as conn:
        owner = identities.find_owner(conn, claims)
        reauth.require_same_owner(owner.id if owner is not None else None)
        if owner is not None:
            enforce_rate_limit("account", str(owner.id), options().sign_in_per_minute)
            auth.sign_in(conn, owner.id, method, claims.authenticated_at)
            return redirect(after, 303)
        if claims.email is not None and not options().allows_sign_up(claims.email):
            raise Forbidden(_SIGN_UP_CLOSED_MESSAGE)
        token = identities.begin_sign_up(conn, claims)
    session.clear()
    session[_SIGN_UP_KEY] = {"token": token, "method": method}
    remember_redirect_target(after)
    return redirect(url_for("sign_up.index"), 303)


def find_pending_sign_up() -> tuple[str, str] | None:
    """The token of the sign-up that this browser is in the middle of and the method that it came by, or None."""
    kept = session.get(_SIGN_UP_KEY)
    return (kept["token"], kept["method"]) if kept else None


def finish_sign_up(conn: Connection, token: str, handle: str, method: str) -> None:
    """Create the owner and sign them in; both or neither."""
    owner = identities.finish_sign_up(conn, token, handle)
    auth.sign_in(conn, owner.id, method)


def link_identity(owner: Owner, claims: IdentityClaims) -> bool:
    """Add an identity to the owner who is signed in; the session is renewed, since there is a new way into it."""
    with transaction() as conn:
        new = identities.link_identity(conn, owner, claims)
        auth.rotate_session(conn)
    return new
