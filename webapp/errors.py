"""What people see when something is refused or fails, and what programs get instead."""

import logging

import psycopg
from flask import Flask, Response, g, jsonify, make_response, render_template, request
from flask_wtf.csrf import CSRFError
from werkzeug.exceptions import HTTPException, InternalServerError

from bus.errors import BusError, NotAuthenticated, OwnerSuspended, Unavailable
from webapp.auth import viewer
from webapp.blueprints import is_machine

_log = logging.getLogger("webapp.error")

STATUS = {
    "invalid_argument": 400,
    "key_reuse": 400,
    "forbidden": 403,
    "not_found": 404,
    "unknown_recipient": 404,
    "conflict": 409,
    "wrong_state": 409,
    "unavailable": 503,
}
_RETRY_SECONDS = "5"

# A title and a sentence that says what to do next.
_PAGES = {
    400: ("That did not arrive in one piece", "Go back, reload the page and try again."),
    401: ("Sign in first", "This page is for people who are signed in."),
    403: ("That is not allowed", "Nothing was changed."),
    404: ("There is nothing here", "It may have been removed, or it may never have been yours."),
    405: ("That is not how this works", "This address answers other requests than the one that was sent."),
    409: ("That does not fit any more", "Something changed meanwhile. Go back, reload the page and look again."),
    413: ("That is too much at once", "Send less."),
    421: ("This server does not go by that name", "Set ALLOWED_HOSTS or PUBLIC_URL to serve it."),
    429: ("Too many tries", "Wait a minute, then try again."),
    500: ("Something went wrong on our side", "It was written to the log. Try again; if it stays, tell who runs this."),
    502: (
        "The sign-in provider does not answer",
        "Nothing was changed. Try again in a minute, or sign in another way.",
    ),
    503: ("The database does not answer", "Nothing was lost. Try again in a few seconds."),
}
_CSRF = "The form was open for too long, or your browser keeps no cookies. Reload the page and send it again."


def init(app: Flask) -> None:
    """Make the app answer every failure in its own look."""
    app.register_error_handler(BusError, _bus_error)
    app.register_error_handler(OwnerSuspended, _suspended)
    app.register_error_handler(NotAuthenticated, _nobody)
    app.register_error_handler(psycopg.OperationalError, _away)
    app.register_error_handler(CSRFError, _csrf)
    app.register_error_handler(HTTPException, _http_error)
    app.register_error_handler(Exception, _defect)


def error_page(status: int, message: str | None = None, *, again: str | None = None) -> Response:
    """The page for a status.

    Args:
        message: replaces what it says by default.
        again: where to try again; the start when left out.
    """
    if "_login_user" not in g:
        # Who is looking was not asked yet. It decides only what the top of the page offers.
        g.bus_viewer_unknown = status >= 500 or not _can_tell()
    title, usual = _PAGES.get(status, ("That did not work", "Go back and try again."))
    if is_machine():
        response = jsonify(ok=False, error=title.lower(), message=message or usual)
    else:
        response = make_response(
            render_template(
                "errors/error.html",
                status=status,
                title=title,
                message=message or usual,
                again=again,
                # What whoever runs this looks for in the log; where nothing failed there is nothing to look for.
                request_id=g.get("bus_request_id") if status >= 500 else None,
            )
        )
    response.status_code = status
    if status == 503:
        response.headers["Retry-After"] = _RETRY_SECONDS
    return response


def _can_tell() -> bool:
    try:
        viewer()
    except (BusError, psycopg.Error):
        return False
    return True


def _bus_error(error: BusError) -> Response:
    status = STATUS[error.code]
    if is_machine():
        answer = jsonify(ok=False, error=error.data.get("reason", error.code), message=error.message)
        answer.status_code = status
        if status == 503:
            answer.headers["Retry-After"] = _RETRY_SECONDS
        return answer
    if isinstance(error, Unavailable):
        g.bus_viewer_unknown = True
        return error_page(503)
    return error_page(status, None if status == 404 else error.message)


def _away(error: psycopg.OperationalError) -> Response:
    _log.warning("the database does not answer: %s", error)
    return _bus_error(Unavailable(_PAGES[503][1]))


def _suspended(_error: OwnerSuspended) -> Response:
    return error_page(403, "The account that this belongs to is suspended.")


def _nobody(_error: NotAuthenticated) -> Response:
    # A grant that ended while its page was open.
    return error_page(404)


def _csrf(_error: CSRFError) -> Response:
    return error_page(400, _CSRF)


def _http_error(error: HTTPException) -> HTTPException | Response:
    if error.response is not None or (error.code or 500) < 400:
        # A redirect of the router, or an answer that somebody raised.
        return error
    if isinstance(error, InternalServerError):
        return error_page(500)
    said = error.description if error.description != type(error).description else None
    answer = error_page(error.code or 500, said)
    for name, value in error.get_headers(request.environ):
        if name.lower() in ("allow", "retry-after", "www-authenticate"):
            answer.headers[name] = value
    return answer


def _defect(error: Exception) -> Response:
    _log.exception("a page failed", exc_info=error, extra={"fields": {"route": str(request.url_rule)}})
    return error_page(500)
