"""Liveness and readiness, for whoever runs the service."""

from flask import Blueprint, Response, current_app, jsonify

from bus import __version__
from bus.db import Database, schema_version
from bus.errors import Unavailable

pages = Blueprint("health", __name__)


@pages.get("/healthz")
def healthz() -> Response:
    """The process answers; says nothing about what it needs."""
    return jsonify(ok=True, service="llm-bus", version=__version__)


@pages.get("/readyz")
def readyz() -> tuple[Response, int]:
    """The process has what it needs: the database, at the schema this code expects."""
    db: Database = current_app.extensions["bus.db"]
    try:
        with db.call() as conn:
            found = schema_version.current(conn.raw)
    except Unavailable:
        return jsonify(ok=False, database="away"), 503
    ready = found == schema_version.EXPECTED
    report = jsonify(ok=ready, database="ok", migration=found, expected=schema_version.EXPECTED)
    return report, 200 if ready else 503
