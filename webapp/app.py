"""The Flask application, made by a factory that takes its settings."""

import importlib
import pkgutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from flask import Flask, Response, jsonify, request
from werkzeug.exceptions import HTTPException
from werkzeug.wsgi import ClosingIterator

import webapp.pages
from bus.cards import Addresses
from bus.db import Database
from bus.errors import BusError
from bus.settings import Settings

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

_HERE = Path(__file__).resolve().parent
# In an installed package they lie beside this module.
_TEMPLATES = next(path for path in (_HERE / "templates", _HERE.parent / "templates") if path.is_dir())

_STATUS = {
    "invalid_argument": 400,
    "key_reuse": 400,
    "forbidden": 403,
    "not_found": 404,
    "unknown_recipient": 404,
    "conflict": 409,
    "wrong_state": 409,
    "unavailable": 503,
}


def create_app(settings: Settings) -> Flask:
    """The web over one database. Every file in webapp/pages that has a `pages` blueprint is a part of it."""
    app = Flask(__name__, template_folder=str(_TEMPLATES))
    app.config["MAX_CONTENT_LENGTH"] = settings.max_body_bytes
    app.extensions["bus.settings"] = settings
    app.extensions["bus.addresses"] = Addresses(settings.public_url, settings.mcp_url)
    app.extensions["bus.db"] = Database(settings.database_url, size=settings.threads, name="llm-bus web")
    for module in pkgutil.iter_modules(webapp.pages.__path__):
        app.register_blueprint(importlib.import_module(f"webapp.pages.{module.name}").pages)
    app.register_error_handler(BusError, _refused)
    app.register_error_handler(HTTPException, _http_error)
    app.after_request(_harden)
    app.wsgi_app = _NeverEmpty(app.wsgi_app)  # type: ignore[method-assign]
    return app


class _NeverEmpty:
    """Gives every response at least one chunk, if only an empty one: hypercorn sends no headers without."""

    def __init__(self, app: "WSGIApplication") -> None:
        self._app = app

    def __call__(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterator[bytes]:
        chunks = self._app(environ, start_response)
        try:
            yield b""
            yield from chunks
        finally:
            if isinstance(chunks, ClosingIterator):
                chunks.close()


def _refused(error: BusError) -> tuple[Response, int]:
    return jsonify(ok=False, error=error.data.get("reason", error.code), message=error.message), _STATUS[error.code]


def _http_error(error: HTTPException) -> HTTPException | tuple[Response, int]:
    if request.path == "/join" and request.method == "POST":
        return jsonify(ok=False, error=error.name.lower(), message=error.description), error.code or 500
    return error


def _harden(response: Response) -> Response:
    response.headers.setdefault(
        "Content-Security-Policy",
        "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; base-uri 'none'; "
        "frame-ancestors 'none'",
    )
    response.headers.setdefault("X-Content-Type-Options", "nosniff")
    response.headers.setdefault("Referrer-Policy", "no-referrer")
    return response
