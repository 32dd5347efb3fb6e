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
from webapp.context import options, reading, writing

_AGAIN = "again"
# Whoever was asked to sign in again and did something else may sign in as somebody else after this.
_PATIENCE_SECONDS = 900
_TYPED = "typed"
_TYPED_KEPT = timedelta(minutes=30)
_KEY = "typed"
_MOST_TYPED = 8000


def is_fresh() -> bool:
    """Whether whoever is signed in showed here, lately enough for a dangerous act, who they are."""
    ago = current_session().authenticated_ago
    return ago is not None and ago < options().reauth


def send_off(back: str) -> Response:
    """Go and sign in again, and come back to `back` with what was typed into the form of this request."""
    typed = [(name, value) for name, value in request.form.items(multi=True) if name != "csrf_token"]
    content = json.dumps([request.path, typed]).encode()
    if typed and len(content) <= _MOST_TYPED:
        key = secrets.token_urlsafe(16)
        with writing() as conn:
            one_time_store.put(conn, _TYPED, _secret(key), content, keep=_TYPED_KEPT)
        back += f"{'&' if '?' in back else '?'}{_KEY}={key}"
    return redirect(url_for("operator.again", next=back), 303)


def typed(action: str) -> MultiDict[str, str] | None:
    """What was typed into the form that goes to `action` before its sender was sent to sign in again, or None."""
    key = request.args.get(_KEY, "")
    if not key or len(key) > 64:
        return None
    with reading() as conn:
        kept = one_time_store.find(conn, _TYPED, _secret(key))
    where, fields = (None, []) if kept is None else json.loads(kept)
    return MultiDict([(name, value) for name, value in fields]) if where == action else None


def expect() -> None:
    """Whoever signs in next in this browser has to be who is signed in now."""
    session[_AGAIN] = {"owner": current_owner().id, "at": time.time()}


def is_expected() -> bool:
    """Whether this browser is in the middle of signing in again."""
    return _expected() is not None


def check(owner_id: int | None) -> None:
    """Refuse somebody else, where an owner was to sign in again.

    Args:
        owner_id: whom a sign-in turned out to be; None: nobody who is known here.
    Raises:
        BusError: `forbidden`; nobody was signed in.
    """
    expected = _expected()
    if expected is not None and expected != owner_id:
        raise BusError(
            "forbidden", "That is not who is signed in here, so nothing was changed. Sign out first to change accounts."
        )


def _expected() -> int | None:
    kept = session.get(_AGAIN)
    owner = viewer()
    if not isinstance(kept, dict) or owner is None or time.time() - kept["at"] > _PATIENCE_SECONDS:
        return None
    # Who signed out meanwhile, or is somebody else by now, is not in the middle of anything.
    return owner.id if kept["owner"] == owner.id else None


def _secret(key: str) -> bytes:
    # Not of the session, which is another one afterwards.
    return f"{current_owner().id}\n{key}".encode("utf-8", "surrogatepass")
