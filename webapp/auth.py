"""Authentication: Flask-Login over the sessions in PostgreSQL, and the two cookies of a browser.

The session cookie holds the random token of a session and is worthless when the session has ended. The other cookie is
Flask's signed one, which visitors have before signing in: it holds the CSRF secret, flash messages and the state of a
sign-in, and grants no access.
"""

import hashlib
import hmac
import logging
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
from bus.db import Connection, shared_secret_keys
from bus.errors import BusError, InvalidArgument, Unavailable
from bus.rules import validation
from bus.tenancy.owners import Owner
from webapp.context import database, options
from webapp.oauth_client import attempts_in

SSO_ISSUER = "sso-header"
_log = logging.getLogger("webapp.auth")
_PROXY_SECRET_HEADER = "X-LLM-Bus-Proxy-Secret"  # noqa: S105 - the header's name


@dataclass(frozen=True)
class SignedInUser(UserMixin):  # type: ignore[misc]
    """A signed-in owner, as Flask-Login represents users."""

    session: Session

    def get_id(self) -> str:
        """The id of the session, which Flask-Login requires."""
        return str(self.session.id)


def init_app(app: Flask, *, secure: bool) -> None:
    """Register sessions and cookies.

    Args:
        app: the application.
        secure: whether the service is reached over TLS only; cookies are then bound to TLS and to this host.
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
    secret_key = app.extensions["bus.options"].secret_key
    app.secret_key = None if secret_key is None else secret_key.get_secret_value()
    app.session_interface = _SharedKeySessionInterface()
    manager = LoginManager()
    manager.session_protection = None
    manager.init_app(app, add_context_processor=False)
    manager.request_loader(_load_user)
    app.after_request(_set_session_cookie)


def require_signing_key() -> None:
    """Refuse requests while the key that signs the visitor's cookie cannot be read.

    Raises:
        Unavailable: the database does not answer.
    """
    if isinstance(session._get_current_object(), NullSession):  # type: ignore[attr-defined]
        raise Unavailable("The database does not answer. Try again in a few seconds.")


def proxy_identity() -> IdentityClaims | None:
    """The identity asserted by the authenticating proxy, if one is configured and sent its secret; else None."""
    header, secret = options().sso_header, options().sso_proxy_secret
    if header is None or secret is None:
        return None
    if not _is_proxy_secret_right(secret.get_secret_value()):
        return None
    try:
        # Two headers of that name arrive as one joined by a comma, which is not an email address.
        email = validation.email(request.headers.get(header, "").strip(), header)
    except InvalidArgument:
        return None
    return IdentityClaims(SSO_ISSUER, email.lower(), email)


def is_proxy_rejected() -> bool:
    """Whether the request names a person in the header of the proxy, but without the right secret; this is logged."""
    header, secret = options().sso_header, options().sso_proxy_secret
    if header is None or secret is None or not request.headers.get(header):
        return False
    if _is_proxy_secret_right(secret.get_secret_value()):
        return False
    sent = "no" if _PROXY_SECRET_HEADER not in request.headers else "a wrong"
    _log.warning(
        "%s from %s came with %s %s, so it was ignored; compare SSO_PROXY_SECRET with the proxy's configuration",
        header,
        request.remote_addr,
        sent,
        _PROXY_SECRET_HEADER,
    )
    return True


def _is_proxy_secret_right(secret: str) -> bool:
    shown = request.headers.get(_PROXY_SECRET_HEADER, "")
    return hmac.compare_digest(shown.encode("utf-8", "replace"), secret.encode())


def proxy_session_method(subject: str) -> str:
    """The method of a session that was opened by the assertion of a proxy."""
    return f"{sessions.PROXY_METHOD} {subject}"


def viewer() -> Owner | None:
    """The signed-in owner, or None; also None on an error page while the database does not answer."""
    if g.get("bus_viewer_unknown"):
        return None
    return current_user.session.owner if current_user.is_authenticated else None


def current_owner() -> Owner:
    """The signed-in owner, on a page that requires one."""
    return current_session().owner


def current_session() -> Session:
    """The session of this browser.

    Raises:
        Unauthorized: there is none.
    """
    if not current_user.is_authenticated:
        raise Unauthorized
    current: Session = current_user.session
    return current


def sign_in(
    conn: Connection,
    owner_id: int,
    method: str,
    authenticated_at: datetime | None = None,
    *,
    proves_authentication: bool = True,
) -> None:
    """Open a session for this browser, end its previous one, and clear the visitor's cookie.

    Runs in the caller's transaction; call it last, since the cookie is sent with the response.

    Args:
        conn: the connection.
        owner_id: the owner to sign in.
        method: how the owner authenticated.
        authenticated_at: when the owner authenticated, if the provider reported an earlier time.
        proves_authentication: whether it is certain that the owner authenticated then.
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
        # A proxy asserts the identity, but not when the user authenticated.
        authenticated=proves_authentication and not method.startswith(sessions.PROXY_METHOD),
        authenticated_at=authenticated_at,
    )
    clear_visit()


def clear_visit() -> None:
    """Empty the visitor's cookie, except for the sign-ins with a provider, which other tabs may have started."""
    attempts = attempts_in(session)
    session.clear()
    session.update(attempts)


def rotate_session(conn: Connection) -> None:
    """Replace the token of this browser's session; call it after a change of sign-in methods or rights."""
    g.bus_new_token = sessions.rotate_token(conn, current_session().id)


def sign_out() -> None:
    """Delete the session cookie; the caller ends the session in the database."""
    g.bus_new_token = ""
    session.clear()


def _load_user(incoming_request: Request) -> SignedInUser | None:
    token = incoming_request.cookies.get(current_app.config["BUS_COOKIE_NAME"])
    # Session tokens have 43 characters; much longer values are not hashed.
    if not token or len(token) > 64:
        return None
    with database().connection() as conn:
        session_record = sessions.find_session(conn, token, idle_timeout=options().session_idle_timeout)
    if session_record is None or not _is_proxy_session_valid(session_record):
        return None
    return SignedInUser(session_record)


def _is_proxy_session_valid(session_record: Session) -> bool:
    """Whether a session opened by a proxy's assertion matches the proxy's assertion of this request."""
    if not session_record.method.startswith(sessions.PROXY_METHOD):
        return True
    claims = proxy_identity()
    return claims is not None and session_record.method == proxy_session_method(claims.subject)


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
    """Flask's signed cookie, with SHA-256 and a key that is read from the database at the first request.

    The process can start while the database is down, and serve what needs no signature.
    """

    salt = "llm-bus visit"
    digest_method = staticmethod(hashlib.sha256)

    def open_session(self, app: Flask, request: Request) -> SecureCookieSession | None:
        """Load the visitor's cookie; None if there is no key to verify it with."""
        if not app.secret_key:
            try:
                with app.extensions["bus.db"].transaction() as conn:
                    app.secret_key = shared_secret_keys.get_or_create_key(conn, "web").hex()
            except (BusError, psycopg.Error):
                # Flask then uses a session that cannot be written; see `require_signing_key`.
                return None
        return super().open_session(app, request)
