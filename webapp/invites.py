"""Invites as their recipients open them: the offer behind a code, and the limit on guessing codes."""

from flask import make_response, render_template
from werkzeug.exceptions import HTTPException

from bus.errors import BusError
from bus.rules.token_format import fingerprint, is_legacy_invite_code, is_well_formed_invite_code
from bus.tenancy import invite_redemption
from bus.tenancy.invite_redemption import InviteOffer
from webapp.context import connection, options
from webapp.ratelimit import client_address, enforce_rate_limit

HTTP_GONE = 410
"""The status where the engine reports `wrong_state`: the invite existed and is no longer valid."""

_MISTYPED_MESSAGE = "That code is not complete or has a typing error; open the link of the invite again."


def get_offer(code: str) -> InviteOffer:
    """Return what an invite offers.

    Raises:
        HTTPException: with the page that says why the invite cannot be used.
    """
    enforce_rate_limit("join", client_address(), options().join_per_minute)
    try:
        # Codes that were imported have another form.
        if not (is_well_formed_invite_code(code) or is_legacy_invite_code(code)):
            raise BusError("not_found", _MISTYPED_MESSAGE, reason="invalid")
        with connection() as conn:
            return invite_redemption.get_offer(conn, code)
    except BusError as error:
        if error.code == "unavailable":
            raise
        is_mistyped = error.code == "not_found" and not is_well_formed_invite_code(code)
        message = _MISTYPED_MESSAGE if is_mistyped else error.message
        status = {"wrong_state": HTTP_GONE, "forbidden": 403}.get(error.code, 404)
        page = make_response(render_template("join/unavailable.html", message=message), status)
        raise HTTPException(response=page) from None


def limit_code_attempts(code: str) -> None:
    """Count an attempt to use a code, across all client addresses."""
    per_minute = options().join_per_minute
    if per_minute:
        enforce_rate_limit("join-code", fingerprint(code).hex(), max(1, per_minute // 3))
