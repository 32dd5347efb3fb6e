"""Who is looking: Flask-Login over the sessions that PostgreSQL keeps, and the two cookies of a browser.

One cookie holds the random token of a session and is worthless once the session has ended. The other is Flask's own
signed cookie, for what a visitor has before anybody signed in: the secret of the CSRF tokens, messages, and a sign-in
under way. Nothing in it lets anybody in.
"""

import hashlib
import hmac
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import psycopg
from flask import Flask, Request, Response, current_app, g, request, session
from flask.sessions import NullSession, SecureCookieSession, SecureCookieSessionInterface
from flask_login import LoginManager, UserMixin, current_user
from werkzeug.exceptions import Unauthorized

from bus.auth import sessions
from bus.auth.identities import IdentityClaims
from bus.auth.sessions import Session
from bus.db import Connection, shared_keys
from bus.errors import BusError, InvalidArgument, Unavailable
from bus.rules import validation
from bus.tenancy.owners import Owner
from webapp.context import database, options

SSO_ISSUER = "sso-header"
_PROXY_SECRET_HEADER = "X-LLM-Bus-Proxy-Secret"  # noqa: S105 - the header's name


@dataclass(frozen=True)
class SignedInUser(UserMixin):  # type: ignore[misc]
    """An owner in a browser, as Flask-Login knows it."""

    session: Session

    def get_id(self) -> str:
        return str(self.session.id)


def init_app(app: Flask, *, secure: bool) -> None:
    """Make the app know its visitors.

    Args:
        secure: whether the service is reached over TLS only; cookies are bound to it and to this very host then.
    """
    prefix = "__Host-" if secure else ""
    app.config.update(
        SESSION_COOKIE_NAME=f"{prefix}llm-bus-visit",
        SESSION_COOKIE_SECURE=secure,
        SESSION_COOKIE_HTTPONLY=True,
        SESSION_COOKIE_SAMESITE="Lax",
        SESSION_COOKIE_PATH="/",
        BUS_COOKIE_NAME=f"{prefix}llm-bus",
    )
    app.secret_key = app.extensions["bus.options"].secret_key
    app.session_interface = _SharedKeySessionInterface()
    manager = LoginManager()
    manager.session_protection = None
    manager.init_app(app, add_context_processor=False)
    manager.request_loader(_load_user)
    app.after_request(_set_session_cookie)


def require_signing_key() -> None:
    """Refuse a request that could need the visitor's cookie while the key that signs it cannot be read."""
    if isinstance(session._get_current_object(), NullSession):  # type: ignore[attr-defined]
        raise Unavailable("The database does not answer. Try again in a few seconds.")


def proxy_identity() -> IdentityClaims | None:
    """Who is there by the word of the proxy in front, if one is trusted and proved that it is the one; else None."""
    header, secret = options().sso_header, options().sso_proxy_secret
    if header is None or secret is None:
        return None
    shown = request.headers.get(_PROXY_SECRET_HEADER, "")
    if not hmac.compare_digest(shown.encode("utf-8", "replace"), secret.encode()):
        return None
    try:
        # Two headers of that name arrive as one with a comma, which is no address.
        email = validation.email(request.headers.get(header, "").strip(), header)
    except InvalidArgument:
        return None
    return IdentityClaims(SSO_ISSUER, email.lower(), email)


def proxy_session_method(subject: str) -> str:
    """How a session is said to have been opened when a proxy vouched for this person."""
    return f"{sessions.PROXY_METHOD} {subject}"


def viewer() -> Owner | None:
    """The owner who is signed in, or None. On an error page after the database went away: None."""
    if g.get("bus_viewer_unknown"):
        return None
    return current_user.session.owner if current_user.is_authenticated else None


def current_owner() -> Owner:
    """The owner who is signed in; on a page that requires it there always is one."""
    return current_session().owner


def current_session() -> Session:
    """The session of this browser."""
    if not current_user.is_authenticated:
        raise Unauthorized
    found: Session = current_user.session
    return found


def sign_in(conn: Connection, owner_id: int, method: str, authenticated_at: datetime | None = None) -> None:
    """Open a session for this browser, end the one it had, and forget what the visitor's cookie held.

    In the caller's transaction: the cookie is sent only with the answer, so call this last.

    Args:
        authenticated_at: when somebody showed who they are, if a provider said that it was not now.
    """
    if current_user.is_authenticated:
        sessions.end_session(conn, current_owner().id, current_session().id)
    g.bus_new_token = sessions.open_session(
        conn,
        owner_id,
        method=method,
        ttl=options().session_max_age,
        ip_address=request.remote_addr or "",
        user_agent=request.headers.get("User-Agent", ""),
        # A proxy says who is there, and not when they showed it.
        authenticated=not method.startswith(sessions.PROXY_METHOD),
        authenticated_at=authenticated_at,
    )
    session.clear()


def rotate_session(conn: Connection) -> None:
    """Give this browser's session a new token, since what the owner may do has changed."""
    g.bus_new_token = sessions.rotate_token(conn, current_session().id)


def sign_out() -> None:
    """Forget the session in this browser; the caller has ended it in the database."""
    g.bus_new_token = ""
    session.clear()


def _load_user(incoming_request: Request) -> SignedInUser | None:
    token = incoming_request.cookies.get(current_app.config["BUS_COOKIE_NAME"])
    # A token of ours is 43 characters; longer texts are not even hashed.
    if not token or len(token) > 64:
        return None
    with database().connection() as conn:
        found = sessions.find_session(conn, token, idle_timeout=options().session_idle_timeout)
    if found is None or not _is_proxy_session_valid(found):
        return None
    return SignedInUser(found)


def _is_proxy_session_valid(session_record: Session) -> bool:
    """Whether a session that a proxy's word opened is still that person's by the proxy's word of now."""
    if not session_record.method.startswith(sessions.PROXY_METHOD):
        return True
    claim = proxy_identity()
    return claim is not None and session_record.method == proxy_session_method(claim.subject)


def _set_session_cookie(response: Response) -> Response:
    token: str | None = g.get("bus_new_token")
    if token is None or response.status_code >= 500:
        return response
    attributes: dict[str, Any] = {
        "path": "/",
        "secure": current_app.config["SESSION_COOKIE_SECURE"],
        "httponly": True,
        "samesite": "Lax",
    }
    name = current_app.config["BUS_COOKIE_NAME"]
    if token:
        response.set_cookie(name, token, max_age=options().session_max_age, **attributes)
    else:
        response.delete_cookie(name, **attributes)
    return response


class _SharedKeySessionInterface(SecureCookieSessionInterface):
    """Flask's signed cookie, with SHA-256, under a key that is asked for when the first request needs it.

    At start the database may be away; a process that cannot sign yet still answers what needs no signature.
    """

    salt = "llm-bus visit"
    digest_method = staticmethod(hashlib.sha256)

    def open_session(self, app: Flask, request: Request) -> SecureCookieSession | None:
        if not app.secret_key:
            try:
                with app.extensions["bus.db"].transaction() as conn:
                    app.secret_key = shared_keys.get_or_create_key(conn, "web").hex()
            except (BusError, psycopg.Error):
                # Without a key Flask gives the request a session that cannot be written; see `require_key`.
                return None
        return super().open_session(app, request)
