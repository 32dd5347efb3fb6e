"""Signing in once more before an act in other people's affairs: when it is needed, and what is kept meanwhile.

A session that was opened this morning says who is there; it does not say that they still sit there. Dangerous acts need
that somebody showed within the hour who they are, in this browser and as the same owner.
Source: docs/decisions/0021-operator-console.md
"""

import json
import secrets
import time
from datetime import timedelta

from flask import redirect, request, session, url_for
from werkzeug.datastructures import MultiDict
from werkzeug.wrappers import Response

from bus.db import one_time_store
from bus.errors import BusError
from webapp.auth import current_owner, current_session, viewer
from webapp.context import connection, options, transaction

_REAUTH_SESSION_KEY = "again"
# Whoever was asked to sign in again and did something else may sign in as somebody else after this.
_REAUTH_TIMEOUT_SECONDS = 900
_SAVED_FORM_PURPOSE = "typed"
_SAVED_FORM_LIFETIME = timedelta(minutes=30)
_SAVED_FORM_PARAM = "typed"
_MAX_SAVED_FORM_BYTES = 8000


def has_recent_login() -> bool:
    """Whether whoever is signed in showed here, lately enough for a dangerous act, who they are."""
    ago = current_session().time_since_authentication
    return ago is not None and ago < options().reauth_max_age


def redirect_to_reauthentication(return_url: str) -> Response:
    """Go and sign in again, and come back to `back` with what was typed into the form of this request."""
    typed = [(name, value) for name, value in request.form.items(multi=True) if name != "csrf_token"]
    content = json.dumps([request.path, typed]).encode()
    if typed and len(content) <= _MAX_SAVED_FORM_BYTES:
        key = secrets.token_urlsafe(16)
        with transaction() as conn:
            one_time_store.store(conn, _SAVED_FORM_PURPOSE, _encryption_secret(key), content, ttl=_SAVED_FORM_LIFETIME)
        return_url += f"{'&' if '?' in return_url else '?'}{_SAVED_FORM_PARAM}={key}"
    return redirect(url_for("operator.reauthenticate", next=return_url), 303)


def find_saved_form(action: str) -> MultiDict[str, str] | None:
    """What was typed into the form that goes to `action` before its sender was sent to sign in again, or None."""
    key = request.args.get(_SAVED_FORM_PARAM, "")
    if not key or len(key) > 64:
        return None
    with connection() as conn:
        kept = one_time_store.find(conn, _SAVED_FORM_PURPOSE, _encryption_secret(key))
    where, fields = (None, []) if kept is None else json.loads(kept)
    return MultiDict([(name, value) for name, value in fields]) if where == action else None


def begin_reauthentication() -> None:
    """Whoever signs in next in this browser has to be who is signed in now."""
    session[_REAUTH_SESSION_KEY] = {"owner": current_owner().id, "at": time.time()}


def is_reauthenticating() -> bool:
    """Whether this browser is in the middle of signing in again."""
    return _find_expected_owner_id() is not None


def require_same_owner(owner_id: int | None) -> None:
    """Refuse somebody else, where an owner was to sign in again.

    Args:
        owner_id: whom a sign-in turned out to be; None: nobody who is known here.
    Raises:
        BusError: `forbidden`; nobody was signed in.
    """
    expected = _find_expected_owner_id()
    if expected is not None and expected != owner_id:
        raise BusError(
            "forbidden", "That is not who is signed in here, so nothing was changed. Sign out first to change accounts."
        )


def _find_expected_owner_id() -> int | None:
    kept = session.get(_REAUTH_SESSION_KEY)
    owner = viewer()
    if not isinstance(kept, dict) or owner is None or time.time() - kept["at"] > _REAUTH_TIMEOUT_SECONDS:
        return None
    # Who signed out meanwhile, or is somebody else by now, is not in the middle of anything.
    return owner.id if kept["owner"] == owner.id else None


def _encryption_secret(key: str) -> bytes:
    # Not of the session, which is another one afterwards.
    return f"{current_owner().id}\n{key}".encode("utf-8", "surrogatepass")
