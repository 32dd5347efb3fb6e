"""Liveness and readiness, for whoever runs the service."""

from flask import Blueprint, Response, current_app, jsonify

from bus import __version__
from bus.db import Database, schema_version
from bus.errors import Unavailable

blueprint = Blueprint("health", __name__)


@blueprint.get("/healthz")
def healthz() -> Response:
    """The process answers; says nothing about what it needs."""
    return jsonify(ok=True, service="llm-bus", version=__version__)


@blueprint.get("/readyz")
def readyz() -> tuple[Response, int]:
    """The process has what it needs: the database, at the schema this code expects."""
    db: Database = current_app.extensions["bus.db"]
    try:
        with db.connection() as conn:
            found = schema_version.find_schema_version(conn.raw)
    except Unavailable:
        return jsonify(ok=False, database="away"), 503
    ready = found == schema_version.EXPECTED_SCHEMA_VERSION
    report = jsonify(ok=ready, database="ok", migration=found, expected=schema_version.EXPECTED_SCHEMA_VERSION)
    return report, 200 if ready else 503
