"""Liveness and readiness probes."""

from flask import Blueprint, Response, current_app, jsonify

from bus import __version__
from bus.db import Database, schema_version
from bus.errors import Unavailable

blueprint = Blueprint("health", __name__)


@blueprint.get("/healthz")
def healthz() -> Response:
    """The process answers and does not drain; its dependencies are not checked."""
    return jsonify(ok=True, service="llm-bus", version=__version__)


@blueprint.get("/readyz")
def readyz() -> tuple[Response, int]:
    """The database answers and has the schema that this version expects, or a newer one."""
    db: Database = current_app.extensions["bus.db"]
    try:
        with db.connection() as conn:
            current_version = schema_version.find_schema_version(conn.raw)
    except Unavailable:
        return jsonify(ok=False, database="away"), 503
    expected_version = schema_version.EXPECTED_SCHEMA_VERSION
    is_ready = schema_version.is_sufficient(current_version)
    report = jsonify(ok=is_ready, database="ok", migration=current_version, expected=expected_version)
    return report, 200 if is_ready else 503
