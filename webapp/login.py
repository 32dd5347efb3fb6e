"""The way in: what becomes of somebody for whom a provider vouched, and what is kept in the browser until then."""

from flask import redirect, session, url_for
from werkzeug.exceptions import Forbidden
from werkzeug.wrappers import Response

from bus.auth import identities
from bus.auth.identities import Claim
from bus.db import Connection
from bus.tenancy.owners import Owner
from webapp import auth, reauth
from webapp.context import options, writing
from webapp.ratelimit import admit

_NEXT, _SIGN_UP = "next", "sign_up"
_CLOSED = "New accounts are not open to this address here. Ask whoever runs this bus."


def remember_way_back(address: str) -> None:
    """Keep where somebody was going until they are signed in."""
    if inside(address):
        session[_NEXT] = address


def way_back() -> str:
    """Where somebody who signs in was going. Ask before signing in, which forgets it."""
    return inside(session.get(_NEXT, "")) or url_for("dashboard.index")


def inside(address: str) -> str | None:
    """The address, if it is one of ours: a path, which no browser takes for another host."""
    good = address.startswith("/") and not address.startswith("//") and address.isprintable() and "\\" not in address
    return address if good else None


def enter(claim: Claim, method: str) -> Response:
    """Sign in whoever has this identity; whoever is new is asked for a handle, if new accounts are open.

    An owner who has the same address by another identity gets no access by this one.
    """
    after = way_back()
    with writing() as conn:
        owner = identities.find_owner(conn, claim)
        reauth.check(owner.id if owner is not None else None)
        if owner is not None:
            admit("account", str(owner.id), options().sign_in_per_minute)
            auth.sign_in(conn, owner.id, method, claim.authenticated_at)
            return redirect(after, 303)
        if claim.email is not None and not options().may_sign_up(claim.email):
            raise Forbidden(_CLOSED)
        token = identities.begin_sign_up(conn, claim)
    session.clear()
    session[_SIGN_UP] = {"token": token, "method": method}
    remember_way_back(after)
    return redirect(url_for("welcome.index"), 303)


def sign_up_under_way() -> tuple[str, str] | None:
    """The token of the sign-up that this browser is in the middle of and the method that it came by, or None."""
    kept = session.get(_SIGN_UP)
    return (kept["token"], kept["method"]) if kept else None


def finish_sign_up(conn: Connection, token: str, handle: str, method: str) -> None:
    """Create the owner and sign them in; both or neither."""
    owner = identities.finish_sign_up(conn, token, handle)
    auth.sign_in(conn, owner.id, method)


def link(owner: Owner, claim: Claim) -> bool:
    """Add an identity to the owner who is signed in; the session is renewed, since there is a new way into it."""
    with writing() as conn:
        new = identities.link(conn, owner, claim)
        auth.renew(conn)
    return new
