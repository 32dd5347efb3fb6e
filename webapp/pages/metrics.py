"""What Prometheus reads of this process and of the service, for whoever has the token."""

from flask import Response, current_app, request
from werkzeug.datastructures import WWWAuthenticate
from werkzeug.exceptions import NotFound, Unauthorized

from bus.operations.metrics import CONTENT_TYPE, Metrics
from webapp.blueprints import PublicPages, machine

pages = PublicPages("metrics")


@pages.get("/metrics")
@machine
def index() -> Response:
    """The metrics; there is no such page without METRICS_TOKEN."""
    metrics: Metrics = current_app.extensions["bus.metrics"]
    status = metrics.status(request.headers.get("Authorization"))
    if status == 404:
        raise NotFound
    if status != 200:
        raise Unauthorized(www_authenticate=WWWAuthenticate("bearer"))
    return Response(metrics.text(), content_type=CONTENT_TYPE)
