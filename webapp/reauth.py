"""Reauthentication before operator actions: when it is required, and the form that is kept meanwhile.

An old session does not prove that its owner is still at the browser. Operator actions require a recent sign-in
(OPERATOR_MINUTES) in this browser as the same owner.
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
# After this an abandoned reauthentication no longer restricts who may sign in.
_REAUTH_TIMEOUT_SECONDS = 900
_SAVED_FORM_PURPOSE = "typed"
_SAVED_FORM_LIFETIME = timedelta(minutes=30)
_SAVED_FORM_PARAM = "typed"
_MAX_SAVED_FORM_BYTES = 8000


def has_recent_login() -> bool:
    """Whether the viewer authenticated recently enough for operator actions."""
    age = current_session().time_since_authentication
    return age is not None and age < options().reauth_max_age


def redirect_to_reauthentication(return_url: str) -> Response:
    """Redirect to the sign-in page, and from there to `return_url` with the form of this request filled in."""
    fields = [(name, value) for name, value in request.form.items(multi=True) if name != "csrf_token"]
    content = json.dumps([request.path, fields]).encode()
    if fields and len(content) <= _MAX_SAVED_FORM_BYTES:
        key = secrets.token_urlsafe(16)
        with transaction() as conn:
            one_time_store.store(conn, _SAVED_FORM_PURPOSE, _encryption_secret(key), content, ttl=_SAVED_FORM_LIFETIME)
        return_url += f"{'&' if '?' in return_url else '?'}{_SAVED_FORM_PARAM}={key}"
    return redirect(url_for("operator.reauthenticate", next=return_url), 303)


def find_saved_form(action: str) -> MultiDict[str, str] | None:
    """The fields that were submitted to `action` before the redirect to the sign-in page, or None."""
    key = request.args.get(_SAVED_FORM_PARAM, "")
    if not key or len(key) > 64:
        return None
    with connection() as conn:
        content = one_time_store.find(conn, _SAVED_FORM_PURPOSE, _encryption_secret(key))
    path, fields = (None, []) if content is None else json.loads(content)
    return MultiDict([(name, value) for name, value in fields]) if path == action else None


def begin_reauthentication() -> None:
    """Require that the next sign-in in this browser is by the owner who is signed in now."""
    session[_REAUTH_SESSION_KEY] = {"owner": current_owner().id, "at": time.time()}


def is_reauthenticating() -> bool:
    """Whether this browser is reauthenticating."""
    return _find_expected_owner_id() is not None


def require_same_owner(owner_id: int | None) -> None:
    """Reject a sign-in by another owner during reauthentication.

    Args:
        owner_id: the owner that the sign-in identified; None if it is unknown.
    Raises:
        BusError: `forbidden`; the caller must not sign anyone in.
    """
    expected = _find_expected_owner_id()
    if expected is not None and expected != owner_id:
        raise BusError(
            "forbidden",
            "That is not the account that is signed in here; nothing was changed. Sign out first to switch accounts.",
        )


def _find_expected_owner_id() -> int | None:
    state = session.get(_REAUTH_SESSION_KEY)
    owner = viewer()
    if not isinstance(state, dict) or owner is None or time.time() - state["at"] > _REAUTH_TIMEOUT_SECONDS:
        return None
    # Signing out or switching accounts ends the reauthentication.
    return owner.id if state["owner"] == owner.id else None


def _encryption_secret(key: str) -> bytes:
    # Not derived from the session, which is replaced by signing in.
    return f"{current_owner().id}\n{key}".encode("utf-8", "surrogatepass")
