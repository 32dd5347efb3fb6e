"""Error responses: pages for people, JSON for API views."""

import logging

import psycopg
from flask import Flask, Response, g, jsonify, make_response, render_template, request
from flask.globals import request_ctx
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

# By status: a title, and a sentence that says what to do next.
_ERROR_TEXTS = {
    400: ("That request couldn't be processed", "Go back, reload the page and try again."),
    401: ("Sign in first", "This page requires you to be signed in."),
    403: ("Not allowed", "Nothing was changed."),
    404: ("Page not found", "It may have been deleted, or you may not have access."),
    405: ("Method not allowed", "This address does not support that kind of request."),
    409: ("This changed in the meantime", "Go back, reload the page and check before you try again."),
    413: ("That's too large", "Shorten it and send it again."),
    421: ("Unknown host name", "Add the host name to ALLOWED_HOSTS or PUBLIC_URL to serve it."),
    429: ("Too many attempts", "Wait a minute, then try again."),
    500: (
        "Something went wrong",
        "It has been logged. If it keeps happening, send the request ID to your administrator.",
    ),
    502: (
        "The sign-in provider cannot be used now",
        "Nothing was changed. Try again in a minute, or sign in another way.",
    ),
    503: ("Temporarily unavailable", "The database does not answer. Nothing was lost; try again in a few seconds."),
}
# API clients match the error of this status; see docs/howto/invites.md.
_API_ERRORS = {429: "too many tries"}
_OTHER_ERROR_TEXTS = ("That did not work", "Go back and try again.")
_CSRF_MESSAGE = "The form has expired, or your browser blocks cookies. Reload the page and send it again."


def init_app(app: Flask) -> None:
    """Register the error handlers."""
    app.register_error_handler(BusError, _handle_bus_error)
    app.register_error_handler(OwnerSuspended, _handle_owner_suspended)
    app.register_error_handler(NotAuthenticated, _handle_not_authenticated)
    app.register_error_handler(psycopg.OperationalError, _handle_database_error)
    app.register_error_handler(CSRFError, _handle_csrf_error)
    app.register_error_handler(HTTPException, _handle_http_error)
    app.register_error_handler(Exception, _handle_unexpected_error)


def render_error_page(status: int, message: str | None = None, *, retry_url: str | None = None) -> Response:
    """Render the error page, or the JSON error of an API view.

    Args:
        status: the HTTP status.
        message: replaces the default sentence.
        retry_url: target of a "Try again" button; no button if left out.
    """
    if "_login_user" not in g:
        # The viewer is not loaded yet, and only decides what the header of the page shows.
        g.bus_viewer_unknown = status >= 500 or not _is_viewer_known()
    g.bus_is_error_page = True
    title, default_message = _ERROR_TEXTS.get(status, _OTHER_ERROR_TEXTS)
    if is_api_request():
        response = jsonify(ok=False, error=_API_ERRORS.get(status, title.lower()), message=message or default_message)
    elif request_ctx.url_adapter is None:
        # The Host header is none, so the page would have no address for its links.
        response = make_response(f"{title}\n")
        response.mimetype = "text/plain"
    else:
        response = make_response(
            render_template(
                "errors/error.html",
                status=status,
                title=title,
                message=message or default_message,
                retry_url=retry_url,
                # Finds the failure in the log; other statuses are no failures.
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
        response = jsonify(ok=False, error=error.data.get("reason", error.code), message=error.message)
        response.status_code = status
        if status == 503:
            response.headers["Retry-After"] = _RETRY_AFTER_SECONDS
        return response
    if isinstance(error, Unavailable):
        g.bus_viewer_unknown = True
        return render_error_page(503)
    return render_error_page(status, None if status == 404 else error.message)


def _handle_database_error(error: psycopg.OperationalError) -> Response:
    _log.warning("the database does not answer: %s", error)
    return _handle_bus_error(Unavailable(_ERROR_TEXTS[503][1]))


def _handle_owner_suspended(_error: OwnerSuspended) -> Response:
    return render_error_page(403, "The account that owns this is suspended.")


def _handle_not_authenticated(_error: NotAuthenticated) -> Response:
    # The participation ended while its page was open.
    return render_error_page(404)


def _handle_csrf_error(_error: CSRFError) -> Response:
    return render_error_page(400, _CSRF_MESSAGE)


def _handle_http_error(error: HTTPException) -> HTTPException | Response:
    if error.response is not None or (error.code or 500) < 400:
        # A redirect of the router, or a complete response that was raised.
        return error
    if isinstance(error, InternalServerError):
        return render_error_page(500)
    message = error.description if error.description != type(error).description else None
    response = render_error_page(error.code or 500, message)
    for name, value in error.get_headers(request.environ):
        if name.lower() in ("allow", "retry-after", "www-authenticate"):
            response.headers[name] = value
    return response


def _handle_unexpected_error(error: Exception) -> Response:
    _log.exception("a page failed", exc_info=error, extra={"fields": {"route": str(request.url_rule)}})
    return render_error_page(500)
