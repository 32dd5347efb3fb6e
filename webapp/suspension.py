"""Suspended owners in the web: pages stay readable, and what costs or grants is refused.

The rule is that of bus/tenancy/suspension.py. A view that changes something is refused unless it is marked, so that a
new page is on the safe side until its author decides.
"""

from collections.abc import Callable
from typing import Any, TypeVar

from flask import current_app, request
from werkzeug.exceptions import Forbidden

from webapp.auth import viewer
from webapp.blueprints import is_api_request

View = TypeVar("View", bound=Callable[..., Any])

_ALLOWED_ATTRIBUTE = "bus_allowed_while_suspended"
_MESSAGE = (
    "Your account is suspended, so nothing was changed. You can still look, export, add credits, revoke, delete and"
    " sign out."
)


def allowed_while_suspended(view: View) -> View:
    """Mark a view that neither costs nor grants anything: tops up, exports, takes rights away, deletes or signs out."""
    setattr(view, _ALLOWED_ATTRIBUTE, True)
    return view


def refuse_while_suspended() -> None:
    """Refuse a request that is not a read, unless its view is marked; runs before every view."""
    if request.method in ("GET", "HEAD", "OPTIONS") or request.endpoint is None or is_api_request():
        return
    if getattr(current_app.view_functions[request.endpoint], _ALLOWED_ATTRIBUTE, False):
        return
    owner = viewer()
    if owner is not None and owner.suspended_at is not None:
        raise Forbidden(_MESSAGE)
