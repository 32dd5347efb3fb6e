"""What people see when something is refused or fails, and what programs get instead."""

import logging

import psycopg
from flask import Flask, Response, g, jsonify, make_response, render_template, request
from flask_wtf.csrf import CSRFError
from werkzeug.exceptions import HTTPException, InternalServerError

from bus.errors import BusError, NotAuthenticated, OwnerSuspended, Unavailable
from webapp.auth import viewer
from webapp.blueprints import is_api_request

_log = logging.getLogger("webapp.error")

HTTP_STATUS_BY_CODE = {
    "invalid_argument": 400,
    "key_reuse": 400,
    "forbidden": 403,
    "not_found": 404,
    "unknown_recipient": 404,
    "conflict": 409,
    "wrong_state": 409,
    "unavailable": 503,
}
_RETRY_AFTER_SECONDS = "5"

# A title and a sentence that says what to do next.
_ERROR_TEXTS = {
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
_CSRF_MESSAGE = "The form was open for too long, or your browser keeps no cookies. Reload the page and send it again."


def init_app(app: Flask) -> None:
    """Make the app answer every failure in its own look."""
    app.register_error_handler(BusError, _handle_bus_error)
    app.register_error_handler(OwnerSuspended, _handle_owner_suspended)
    app.register_error_handler(NotAuthenticated, _handle_not_authenticated)
    app.register_error_handler(psycopg.OperationalError, _handle_database_error)
    app.register_error_handler(CSRFError, _handle_csrf_error)
    app.register_error_handler(HTTPException, _handle_http_error)
    app.register_error_handler(Exception, _handle_unexpected_error)


def render_error_page(status: int, message: str | None = None, *, retry_url: str | None = None) -> Response:
    """The page for a status.

    Args:
        message: replaces what it says by default.
        again: where to try again; the start when left out.
    """
    if "_login_user" not in g:
        # Who is looking was not asked yet. It decides only what the top of the page offers.
        g.bus_viewer_unknown = status >= 500 or not _is_viewer_known()
    title, usual = _ERROR_TEXTS.get(status, ("That did not work", "Go back and try again."))
    if is_api_request():
        response = jsonify(ok=False, error=title.lower(), message=message or usual)
    else:
        response = make_response(
            render_template(
                "errors/error.html",
                status=status,
                title=title,
                message=message or usual,
                retry_url=retry_url,
                # What whoever runs this looks for in the log; where nothing failed there is nothing to look for.
                request_id=g.get("bus_request_id") if status >= 500 else None,
            )
        )
    response.status_code = status
    if status == 503:
        response.headers["Retry-After"] = _RETRY_AFTER_SECONDS
    return response


def _is_viewer_known() -> bool:
    try:
        viewer()
    except (BusError, psycopg.Error):
        return False
    return True


def _handle_bus_error(error: BusError) -> Response:
    status = HTTP_STATUS_BY_CODE[error.code]
    if is_api_request():
        answer = jsonify(ok=False, error=error.data.get("reason", error.code), message=error.message)
        answer.status_code = status
        if status == 503:
            answer.headers["Retry-After"] = _RETRY_AFTER_SECONDS
        return answer
    if isinstance(error, Unavailable):
        g.bus_viewer_unknown = True
        return render_error_page(503)
    return render_error_page(status, None if status == 404 else error.message)


def _handle_database_error(error: psycopg.OperationalError) -> Response:
    _log.warning("the database does not answer: %s", error)
    return _handle_bus_error(Unavailable(_ERROR_TEXTS[503][1]))


def _handle_owner_suspended(_error: OwnerSuspended) -> Response:
    return render_error_page(403, "The account that this belongs to is suspended.")


def _handle_not_authenticated(_error: NotAuthenticated) -> Response:
    # A grant that ended while its page was open.
    return render_error_page(404)


def _handle_csrf_error(_error: CSRFError) -> Response:
    return render_error_page(400, _CSRF_MESSAGE)


def _handle_http_error(error: HTTPException) -> HTTPException | Response:
    if error.response is not None or (error.code or 500) < 400:
        # A redirect of the router, or an answer that somebody raised.
        return error
    if isinstance(error, InternalServerError):
        return render_error_page(500)
    said = error.description if error.description != type(error).description else None
    answer = render_error_page(error.code or 500, said)
    for name, value in error.get_headers(request.environ):
        if name.lower() in ("allow", "retry-after", "www-authenticate"):
            answer.headers[name] = value
    return answer


def _handle_unexpected_error(error: Exception) -> Response:
    _log.exception("a page failed", exc_info=error, extra={"fields": {"route": str(request.url_rule)}})
    return render_error_page(500)
